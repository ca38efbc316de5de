"""What is given in place of a module or a Block, and what modules give back: it works, or one line says what to do."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

from localgrad.blocks import chain, from_linen, from_nnx, mlp, regroup, remat
from localgrad.methods import METHODS

SPEC = jax.ShapeDtypeStruct((8, 12), jnp.float32)


class Linen(nn.Module):
    """Calls any function `(module, x, train) -> y`."""

    body: Any

    @nn.compact
    def __call__(self, x, train):
        return self.body(self, x, train)


class TwoInputs(nn.Module):
    @nn.compact
    def __call__(self, x, context):
        return nn.Dense(3)(x) + nn.Dense(3)(context)


class NoCall(nn.Module):
    def encode(self, x):
        return x


class Loss(nnx.Variable):
    pass


class Nnx(nnx.Module):
    """Calls any function `(module, x) -> y`."""

    def __init__(self, body, rngs):
        self.body, self.norm = body, nnx.BatchNorm(12, rngs=rngs)

    def __call__(self, x):
        return self.body(self, x)


class NnxTwoInputs(nnx.Module):
    def __init__(self, *, rngs):
        self.dense = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x, y):
        return self.dense(x) + self.dense(y)


class NnxWholeParam(nnx.Module):
    def __init__(self, rngs):
        self.count = nnx.Param(jnp.ones((1, 12), jnp.int32))

    def __call__(self, x):
        return x * self.count[...].astype(x.dtype)


def linen(body: Any, **options: Any):
    return from_linen(Linen(body), **options)


def sowing(module, x, train):
    x = nn.BatchNorm(use_running_average=not train)(x)
    module.sow("intermediates", "h", x)
    module.sow("losses", "list", x.mean())
    module.sow("penalty", "sum", x.mean(), init_fn=lambda: 0.0, reduce_fn=lambda a, b: a + b)
    return module.perturb("signal", x)


def sowing_nnx(module, x):
    x = module.norm(x)
    module.sow(nnx.Intermediate, "h", x)
    module.sow(Loss, "list", x.mean())
    return module.perturb("signal", x)


def noisy(module, x, train):
    return x + jax.random.normal(module.make_rng("noise"), x.shape, x.dtype) if train else x


def late(module, x, train):
    y = nn.BatchNorm(use_running_average=not train)(x)
    if train:
        module.variable("batch_stats", "late", lambda: jnp.zeros(3)).value = jnp.ones(3)
    return y


def counting(module, x, train):
    count = module.variable("counts", "n", lambda: 0)
    if train:
        count.value = count.value + 1
    return x


def stepped(block: Any, dtype: Any = jnp.float32) -> tuple[Any, Any, Any, Any]:
    """`(model state before, after two steps, output, params)`, as specs."""

    def run(key, x):
        params, before = block.init(key, jax.ShapeDtypeStruct(x.shape, x.dtype))
        after = before
        for _ in range(2):
            y, after = block.apply(params, after, x, key=key, train=True)
        z, _ = block.apply(params, after, x, key=None, train=False)
        return before, after, (y, z), params

    return jax.eval_shape(run, jax.random.key(0), jax.ShapeDtypeStruct((8, 12), dtype))


MAKES = {"linen": lambda: linen(sowing), "nnx": lambda: from_nnx(lambda rngs: Nnx(sowing_nnx, rngs))}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_sown_values_are_no_state_and_statistics_keep_their_dtype(make: Any, dtype: Any) -> None:
    before, after, outputs, params = stepped(make(), dtype)
    assert before == after
    leaves = jax.tree.leaves(before)
    assert [x.shape for x in leaves] == [(12,), (12,)] and {x.dtype for x in leaves} == {np.dtype("float32")}
    assert {x.dtype for x in jax.tree.leaves((outputs, params))} == {np.dtype(dtype)}


def test_variables_of_other_kinds_are_state() -> None:
    before, after, _, _ = stepped(linen(counting))
    assert before == after == {"counts": {"n": jax.ShapeDtypeStruct((), jnp.int32)}}
    constant = lambda module, x, train: x * module.variable("constants", "c", lambda: jnp.ones((1, 12))).value
    assert jax.tree.leaves(stepped(linen(constant))[0])[0].shape == (1, 12)


def test_complex_numbers_and_keys_are_state() -> None:
    def body(module, x, train):
        turn = module.variable("own", "turn", lambda: jnp.ones((1, 12), jnp.complex64))
        key = module.variable("own", "key", lambda: jax.random.key(0))
        noise = jax.random.normal(key.value, x.shape, x.dtype)
        if train:
            turn.value, key.value = turn.value * 1j, jax.random.split(key.value)[0]
        return x * turn.value.real + noise

    before, after, _, _ = stepped(linen(body))
    assert before == after
    assert {name: str(x.dtype) for name, x in before["own"].items()} == {"turn": "complex64", "key": "key<fry>"}


def test_streams_by_name() -> None:
    assert stepped(linen(noisy, rngs=("dropout", "noise")))[0] == {}


def test_a_module_shaped_by_its_input() -> None:
    block = from_nnx(lambda rngs: nnx.bridge.lazy_init(nnx.bridge.ToNNX(nn.Dense(3), rngs=rngs), jnp.ones((1, 12))))
    assert stepped(block)[2][0].shape == (8, 3)


def test_call_says_how() -> None:
    for block in (
        from_linen(TwoInputs(), call=lambda module, x, train: module(x[:, :6], x[:, 6:])),
        from_nnx(NnxTwoInputs, call=lambda module, x, train: module(x[:, :6], x[:, 6:])),
        from_linen(nn.Dense(3), call=lambda module, x, train: (module(x), x)[0]),
    ):
        assert stepped(block)[2][0].shape == (8, 3)
    assert stepped(from_linen(NoCall(), call=lambda module, x, train: module.encode(x)))[2][0].shape == (8, 12)


USED = {
    "tuple": (lambda: linen(lambda m, x, t: (x, x)), "gives a tuple, where a Block gives one array"),
    "dict": (lambda: linen(lambda m, x, t: {"y": x}), "gives a dict"),
    "no batch": (lambda: linen(lambda m, x, t: x.mean(axis=0)), r"makes \(12,\) of \(8, 12\)"),
    "other batch": (lambda: linen(lambda m, x, t: x[::2]), r"makes \(4, 12\) of \(8, 12\)"),
    "stream": (lambda: linen(noisy), r"stream 'noise' while it trains: pass rngs=\('dropout', 'noise'\)"),
    "late variable": (lambda: linen(late), "turns its variable 'batch_stats/late' from nothing into"),
    "late param": (
        lambda: linen(lambda m, x, t: nn.Dense(3)(x) if t else x),
        "asks for a variable in training that it does not make in prediction",
    ),
    "whole param": (
        lambda: linen(lambda m, x, t: x * m.param("n", lambda key: jnp.ones((1, 12), jnp.int32)).astype(x.dtype)),
        "parameter 'n' is int32, which has no gradient",
    ),
    "complex param": (
        lambda: linen(lambda m, x, t: x * jnp.abs(m.param("c", lambda key: jnp.ones((1, 12), jnp.complex64)))),
        "parameter 'c' is complex64.*real and imaginary parts as two parameters",
    ),
    "nnx whole param": (lambda: from_nnx(NnxWholeParam), "parameter 'count' is int32, which has no gradient"),
    "nnx tuple": (lambda: from_nnx(lambda rngs: Nnx(lambda m, x: (x, x), rngs), frozen=("",)), "gives a tuple"),
}


@pytest.mark.parametrize(("make", "message"), USED.values(), ids=USED)
def test_what_modules_do_that_blocks_do_not(make: Any, message: str) -> None:
    block = make()
    with pytest.raises(TypeError, match=f"block {block.name!r}.*{message}"):
        stepped(block)


GIVEN = {
    "nnx object": (lambda: from_linen(nnx.Linear(3, 4, rngs=nnx.Rngs(0))), r"from_nnx\(lambda rngs: Linear"),
    "nnx class": (lambda: from_linen(nnx.Linear), r"from_nnx\(lambda rngs: Linear"),
    "linen class": (lambda: from_linen(nn.Dense), r"from_linen\(Dense\(...\)\)"),
    "bound": (lambda: from_linen(nn.Dense(3).bind({"params": {}})), r"module.clone\(parent=None\)"),
    "block": (lambda: from_linen(mlp((3,))[0]), "a Block already"),
    "function": (lambda: from_linen(jnp.tanh), "was given a PjitFunction"),
    "two inputs": (lambda: from_linen(TwoInputs()), "wants context beside its input.*call=lambda"),
    "no call": (lambda: from_linen(NoCall()), "has no __call__.*call=lambda"),
    "one name": (lambda: from_linen(nn.Dense(3), frozen="norm"), r"frozen=\('norm',\)"),
    "an nnx object": (lambda: from_nnx(nnx.Linear(3, 4, rngs=nnx.Rngs(0))), r"from_nnx\(lambda rngs: Linear"),
    "an nnx class of sizes": (lambda: from_nnx(nnx.Linear), r"from_nnx\(lambda rngs: Linear\(..., rngs=rngs\)\)"),
    "a linen object": (lambda: from_nnx(nn.Dense(3)), r"from_linen\(module\)"),
    "a linen class": (lambda: from_nnx(nn.Dense), r"from_linen\(Dense\(...\)\)"),
    "a maker of linen": (lambda: from_nnx(lambda rngs: nn.Dense(3)), "makes a module of Flax linen"),
    "nothing": (lambda: from_nnx(None), "was given a NoneType"),
    "nnx two inputs": (lambda: from_nnx(NnxTwoInputs), "wants y beside its input"),
    "chain": (lambda: chain([nn.Dense(3)]), r"chain\[0\] is a module of Flax linen, Dense.*from_linen"),
    "regroup": (lambda: regroup([nn.Dense(3)], 1), r"layers\[0\] is a module of Flax linen"),
    "remat": (lambda: remat(nn.Dense(3)), "remat is a module of Flax linen"),
}


@pytest.mark.parametrize(("make", "message"), GIVEN.values(), ids=GIVEN)
def test_what_is_given_in_place_of_a_module(make: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("network", "message"),
    [
        ([*mlp((3,)), nn.Dense(3)], r"network\[1\] is a module of Flax linen, Dense.*from_linen\(module\)"),
        ([nnx.Linear(12, 3, rngs=nnx.Rngs(0))], r"network\[0\] is a module of Flax nnx.*from_nnx"),
        ([nn.Dense], r"network\[0\] is a class of Flax linen"),
        (nn.Dense(3), "network is a list of Blocks, and was given a module of Flax linen"),
        (mlp((3,))[0], "network is one Block, 'dense3'"),
    ],
)
def test_methods_refuse_bare_modules(method: str, network: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        METHODS[method](network, SPEC, 3, lambda rate: optax.sgd(0.1 * rate))
