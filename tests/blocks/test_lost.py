"""What a call does to its nnx module is kept as model state, is a note that changes nothing, or is refused."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from localgrad.base import Block
from localgrad.blocks import compute_dtype, from_nnx

SPEC = jax.ShapeDtypeStruct((8, 5), jnp.float32)
X = np.random.default_rng(0).normal(size=SPEC.shape).astype(np.float32)
KEY = jax.random.key(0)


class Calls(nnx.Module):
    """A layer and a dropout, with more attributes, whose call is any function `(module, x) -> y`."""

    def __init__(self, call: Callable, rngs: nnx.Rngs, **attributes: Any):
        self.call, self.layer, self.dropout = call, nnx.Linear(5, 5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        for name, value in attributes.items():
            setattr(self, name, value)

    def __call__(self, x):
        return self.call(self, x)


def block_of(call: Callable, make: Callable[[], dict[str, Any]] = dict) -> Block:
    return from_nnx(lambda rngs: Calls(call, rngs, **make()))


def lazy(module, x):
    if not hasattr(module, "gain"):
        module.gain = nnx.Param(jnp.ones((1, 5)))
    return module.layer(x) * module.gain


def lazy_layer(module, x):
    if not hasattr(module, "second"):
        module.second = nnx.Linear(5, 5, rngs=nnx.Rngs(0))
    return module.second(module.layer(x))


def lazy_in_training(module, x):
    if not module.dropout.deterministic:
        module.gain = nnx.Param(jnp.ones((1, 5)))
    return module.dropout(module.layer(x))


def writing(module, x):
    module.layer.kernel[...] = module.layer.kernel[...] * 2
    return module.layer(x)


def writing_in_prediction(module, x):
    return writing(module, x) if module.dropout.deterministic else module.layer(x)


def replacing(module, x):
    module.layer.kernel = nnx.Param(jnp.ones((5, 5)))
    return module.layer(x)


def removing(module, x):
    y = module.layer(x)
    del module.layer.bias
    return y


def counting(module, x):
    module.count += 1
    return module.layer(x) * module.count


def counting_to_three(module, x):
    """The first two calls are alike."""
    module.count += 1
    return module.layer(x) if module.count < 3 else x


def appending(module, x):
    module.seen.append(1)
    return module.layer(x) * len(module.seen)


def switching(module, x):
    y = module.layer(x) if module.first else x
    module.first = False
    return y


REFUSED = {
    "a lazy parameter": (lazy, {}, "makes the parameter 'gain'.*make it in __init__"),
    "a lazy layer": (lazy_layer, {}, "makes the parameter 'second/bias'"),
    "one of training alone": (lazy_in_training, {}, "makes the parameter 'gain'"),
    "a written one": (writing, {}, "writes its parameter 'layer/kernel'.*local value"),
    "one written in prediction": (writing_in_prediction, {}, "writes its parameter 'layer/kernel'"),
    "one written under jit": (lambda m, x: nnx.jit(writing)(m, x), {}, "writes its parameter 'layer/kernel'"),
    "one written under remat": (lambda m, x: nnx.remat(writing)(m, x), {}, "writes its parameter 'layer/kernel'"),
    "a replaced one": (replacing, {}, "writes its parameter 'layer/kernel'"),
    "a removed one": (removing, {}, "takes its parameter 'layer/bias' away"),
    "a counter": (counting, {"count": 0}, "attribute 'count' from 0 into 1.*nnx.Variable"),
    "a slow counter": (counting_to_three, {"count": 0}, "attribute 'count' from 0 into 1"),
    "a private one": (lambda m, x: setattr(m, "_n", m._n + 1) or m.layer(x) * m._n, {"_n": 0}, "attribute '_n'"),
    "a list": (appending, {"seen": []}, r"attribute 'seen' from \[.*\] into \[1"),
    "a switch": (switching, {"first": True}, "attribute 'first' from True into False"),
}


@pytest.mark.parametrize(("call", "attributes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_would_be_lost_is_refused_at_init(call: Any, attributes: Any, message: str) -> None:
    block = block_of(call, lambda: attributes)
    with pytest.raises(TypeError, match=f"(?s)block {block.name!r}: its call.*{message}"):
        jax.eval_shape(block.init, KEY, SPEC)


@pytest.mark.parametrize("norm", [nnx.SpectralNorm, nnx.WeightNorm])
def test_norms_of_weights_that_write_are_refused(norm: Any) -> None:
    block = from_nnx(lambda rngs: norm(nnx.Linear(5, 4, rngs=rngs), rngs=rngs))
    with pytest.raises(TypeError, match="writes its parameter 'layer_instance/kernel'.*those of linen do not"):
        jax.eval_shape(block.init, KEY, SPEC)


def custom(module, x):
    @nnx.custom_vjp
    def layer(m, x):
        return m(x)

    layer.defvjp(lambda m, x: (layer(m, x), (m, x)), lambda kept, g: g)
    return layer(module.layer, x)


PASSED_ON = {
    "jit": nnx.jit(lambda m, x: m.layer(x)),
    "remat": nnx.remat(lambda m, x: m.layer(x)),
    "remat within jit": nnx.jit(nnx.remat(lambda m, x: m.layer(x))),
    "vmap": lambda m, x: nnx.vmap(lambda layer, x: layer(x), in_axes=(None, 0))(m.layer, x),
    "cond": lambda m, x: nnx.cond(x.sum() > 0, lambda layer, x: layer(x), lambda layer, x: x, m.layer, x),
    "loop": lambda m, x: nnx.fori_loop(0, 2, lambda i, carry: (carry[0], carry[0](carry[1])), (m.layer, x))[1],
    "custom_vjp": custom,
    "a note": lambda m, x: setattr(m, "shape", x.shape) or m.layer(x),
}


@pytest.mark.parametrize("call", PASSED_ON.values(), ids=PASSED_ON)
def test_parameters_that_are_only_handed_on_and_notes_pass(call: Any) -> None:
    params, _ = jax.eval_shape(block_of(call).init, KEY, SPEC)
    assert set(params) == {"layer/bias", "layer/kernel"}


def moving(module, x):
    module.plain = module.plain + 1
    module.key = jax.random.split(module.key)[0]
    module.own[...] = jax.random.split(module.own[...])[0]
    y = module.layer(x)[:, module.order] * module.plain * module.several["a", "b"]
    return y + jax.random.normal(module.key, x.shape, x.dtype) + jax.random.normal(module.own[...], x.shape, x.dtype)


def arrays() -> dict[str, Any]:
    return {
        "plain": jnp.full((1, 5), 2.0),
        "order": np.array([4, 3, 2, 1, 0]),
        "several": nnx.data({("a", "b"): jnp.full((1, 5), 3.0)}),
        "key": jax.random.key(1),
        "own": nnx.Variable(jax.random.key(2)),
    }


@pytest.mark.parametrize("jitted", [False, True])
def test_arrays_and_keys_in_attributes_are_model_state(jitted: bool) -> None:
    """They do what they do in the module itself, made within a trace or outside of one."""
    call = lambda module, x: moving(module, x)
    block, module = block_of(call, arrays), Calls(call, nnx.Rngs(KEY), **arrays())
    params, state = (jax.jit(block.init, static_argnums=1) if jitted else block.init)(KEY, SPEC)
    for step in range(2):
        y, state = block.apply(params, state, jnp.asarray(X), key=jax.random.key(step), train=True)
        np.testing.assert_allclose(y, module(X), rtol=1e-6)
    assert set(state) == {"plain", "order", "several/('a', 'b')", "key", "own"}
    np.testing.assert_array_equal(state["plain"], module.plain)
    assert state["key"] == module.key and state["own"] == module.own[...]


def test_keys_pass_through_another_dtype() -> None:
    def keyed(module, x):
        module.own[...] = jax.random.split(module.own[...])[0]
        return module.layer(x)

    block = compute_dtype(block_of(keyed, lambda: {"own": nnx.Variable(jax.random.key(2))}))
    params, state = block.init(KEY, SPEC)
    y, after = block.apply(params, state, jnp.asarray(X), key=KEY, train=True)
    assert y.dtype == jnp.bfloat16
    assert after["own"] == jax.random.split(state["own"])[0]


@pytest.mark.filterwarnings("ignore:Variable hooks are deprecated")
def test_hooks_of_reading_and_writing_run_once() -> None:
    class Hooked(nnx.Module):
        def __init__(self, rngs):
            self.gain = nnx.Param(jnp.full((1, 5), 0.5), on_get_value=lambda variable, value: jnp.exp(value))
            self.count = nnx.Variable(jnp.ones((1, 1)), on_set_value=lambda variable, value: 2 * value)

        def __call__(self, x):
            self.count.set_value(self.count.get_value() + 1)
            return x * self.gain.get_value() * self.count.get_value()

    block, module = from_nnx(Hooked), Hooked(nnx.Rngs(0))
    params, state = block.init(KEY, SPEC)
    np.testing.assert_array_equal(params["gain"], np.full((1, 5), 0.5, np.float32))
    for _ in range(2):
        y, state = block.apply(params, state, jnp.asarray(X), key=KEY, train=True)
        np.testing.assert_allclose(y, module(X), rtol=1e-6)
    np.testing.assert_array_equal(state["count"], module.count.get_value())
