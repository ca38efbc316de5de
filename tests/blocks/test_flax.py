from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from localgrad.base import Block
from localgrad.blocks import from_linen, from_nnx

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(2.0, 3.0, (16, 4)).astype(np.float32)


class LinenLayer(nn.Module):
    """Told whether it trains by `train`."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Dense(5)(x))
        return nn.Dropout(self.dropout, deterministic=not train)(x)


class LinenDropout(nn.Module):
    """Told by `deterministic`."""

    @nn.compact
    def __call__(self, x, deterministic: bool):
        return nn.Dropout(0.5, deterministic=deterministic)(x)


class NnxLayer(nnx.Module):
    def __init__(self, dropout: float, rngs: nnx.Rngs):
        self.dense = nnx.Linear(4, 5, rngs=rngs)
        self.norm = nnx.BatchNorm(5, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.norm(self.dense(x)))


class NnxStack(nnx.Module):
    """Layers in a list."""

    def __init__(self, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(4, 6, rngs=rngs), nnx.Linear(6, 3, rngs=rngs)])

    def __call__(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return x


def layer(kind: str, dropout: float = 0.0) -> Block:
    return from_linen(LinenLayer(dropout)) if kind == "linen" else from_nnx(lambda rngs: NnxLayer(dropout, rngs))


def statistics(model_state: Any) -> dict[str, Any]:
    """Running mean and variance, however they are stored."""
    found = {
        jax.tree_util.keystr(path).split("'")[-2].split("/")[-1]: x
        for path, x in jax.tree_util.tree_leaves_with_path(model_state)
    }
    return {name: found[name] for name in ("mean", "var")}


def started(block: Block, dtype: Any = jnp.float32, shape: tuple[int, ...] = (16, 4)) -> tuple[Any, Any]:
    return jax.jit(lambda key: block.init(key, jax.ShapeDtypeStruct(shape, dtype)))(KEY)


both = pytest.mark.parametrize("kind", ["linen", "nnx"])


@both
def test_plain_dicts_of_arrays(kind: str) -> None:
    params, model_state = started(layer(kind, 0.5))

    def plain(tree: Any) -> bool:
        return all(map(plain, tree.values())) if type(tree) is dict else isinstance(tree, jax.Array)

    assert plain(params) and plain(model_state)
    assert sorted(x.shape for x in jax.tree.leaves(params)) == [(4, 5), (5,), (5,), (5,)]
    assert sorted(x.shape for x in jax.tree.leaves(model_state)) == [(5,), (5,)]


@both
def test_shapes_and_names(kind: str) -> None:
    block = layer(kind)
    params, model_state = started(block)
    for train in (True, False):
        y, _ = block.apply(params, model_state, jnp.asarray(X), key=KEY, train=train)
        assert y.shape == (16, 5) and y.dtype == jnp.float32
    assert block.name == ("LinenLayer" if kind == "linen" else "NnxLayer")
    assert from_linen(nn.Dense(3), name="mine").name == "mine"
    assert from_nnx(lambda rngs: nnx.Linear(4, 3, rngs=rngs), name="mine").name == "mine"


@both
def test_statistics_advance_in_training_only(kind: str) -> None:
    block = layer(kind)
    params, model_state = started(block)
    _, same = block.apply(params, model_state, jnp.asarray(X), key=None, train=False)
    jax.tree.map(np.testing.assert_array_equal, same, model_state)
    y, new = block.apply(params, model_state, jnp.asarray(X), key=KEY, train=True)
    kernel = next(x for x in jax.tree.leaves(params) if x.shape == (4, 5))
    hidden = X @ np.asarray(kernel)
    np.testing.assert_allclose(statistics(new)["mean"], 0.1 * hidden.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(statistics(new)["var"], 0.9 + 0.1 * hidden.var(0), rtol=1e-4)
    np.testing.assert_allclose(y, (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5), rtol=1e-3, atol=1e-3)
    z, _ = block.apply(params, new, jnp.asarray(X), key=None, train=False)
    stored = {name: np.asarray(x) for name, x in statistics(new).items()}
    np.testing.assert_allclose(z, (hidden - stored["mean"]) / np.sqrt(stored["var"] + 1e-5), rtol=1e-3, atol=1e-3)


@both
def test_dropout_is_of_its_key_alone(kind: str) -> None:
    block = layer(kind, 0.5)
    params, model_state = started(block)

    def masks(key: jax.Array) -> np.ndarray:
        return np.asarray(block.apply(params, model_state, jnp.asarray(X), key=key, train=True)[0] == 0)

    first, second = masks(jax.random.key(5)), masks(jax.random.key(6))
    assert 0.2 < first.mean() < 0.8
    assert (first != second).any()
    np.testing.assert_array_equal(first, masks(jax.random.key(5)))  # after three calls as on the first
    y, advanced = block.apply(params, model_state, jnp.asarray(X), key=jax.random.key(5), train=True)
    again, _ = block.apply(params, advanced, jnp.asarray(X), key=jax.random.key(5), train=True)
    np.testing.assert_array_equal(y, again)  # a state that has moved on carries no count
    evaluated, _ = block.apply(params, model_state, jnp.asarray(X), key=None, train=False)
    assert not np.asarray(evaluated == 0).any()


def test_deterministic_argument() -> None:
    block = from_linen(LinenDropout())
    params, model_state = started(block)
    assert (params, model_state) == ({}, {})
    x = jnp.asarray(X)
    assert set(np.unique(block.apply(params, model_state, x, key=KEY, train=True)[0] / x)) == {0.0, 2.0}
    np.testing.assert_array_equal(block.apply(params, model_state, x, key=None, train=False)[0], x)


@both
def test_float64_throughout(kind: str, x64: None) -> None:
    block = layer(kind, 0.5)
    params, model_state = started(block, jnp.float64)
    assert {x.dtype for x in jax.tree.leaves((params, model_state))} == {np.dtype("float64")}
    for train in (True, False):
        y, new = block.apply(params, model_state, jnp.asarray(X, jnp.float64), key=KEY, train=train)
        assert {x.dtype for x in jax.tree.leaves((y, new))} == {np.dtype("float64")}
        jax.tree.map(lambda a, b: None, new, model_state)  # of the same structure, or this raises


@pytest.mark.parametrize(
    "block",
    [
        from_linen(nn.Dense(3, dtype=jnp.bfloat16), name="pinned"),
        from_nnx(lambda rngs: nnx.Linear(4, 3, dtype=jnp.bfloat16, rngs=rngs), name="pinned"),
    ],
    ids=["linen", "nnx"],
)
def test_a_pinned_dtype_is_refused(block: Block) -> None:
    params, model_state = started(block)
    message = r"block 'pinned' turns float32 into bfloat16: .*Leave the module's dtype at its default \(None\)"
    with pytest.raises(TypeError, match=message):
        block.apply(params, model_state, jnp.asarray(X), key=KEY, train=True)


def test_nnx_lists_of_layers() -> None:
    block = from_nnx(NnxStack)
    params, model_state = started(block)
    assert {name: x.shape for name, x in params.items()} == {
        "layers/0/bias": (6,),
        "layers/0/kernel": (4, 6),
        "layers/1/bias": (3,),
        "layers/1/kernel": (6, 3),
    }
    expected = X
    for i in range(2):
        expected = np.tanh(expected @ np.asarray(params[f"layers/{i}/kernel"]) + np.asarray(params[f"layers/{i}/bias"]))
    y, model_state = block.apply(params, model_state, jnp.asarray(X), key=KEY, train=True)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert model_state == {}


def test_linen_and_nnx_agree() -> None:
    linen, nnx_ = from_linen(nn.Dense(3)), from_nnx(lambda rngs: nnx.Linear(4, 3, rngs=rngs))
    params, _ = started(linen)
    assert set(params) == set(started(nnx_)[0]) == {"kernel", "bias"}
    params = {"kernel": params["kernel"], "bias": jnp.arange(3, dtype=jnp.float32)}

    def outputs(block: Block) -> tuple[Any, Any]:
        def total(params: Any) -> jax.Array:
            return jnp.sum(jnp.sin(block.apply(params, {}, jnp.asarray(X), key=KEY, train=True)[0]))

        return block.apply(params, {}, jnp.asarray(X), key=KEY, train=True)[0], jax.grad(total)(params)

    jax.tree.map(np.testing.assert_array_equal, outputs(linen), outputs(nnx_))


@both
def test_initialisation_is_of_the_key(kind: str) -> None:
    block = layer(kind)
    init = jax.jit(lambda key: block.init(key, jax.ShapeDtypeStruct((16, 4), jnp.float32))[0])
    one, two, three = (
        jnp.concatenate([x.ravel() for x in jax.tree.leaves(init(jax.random.key(k)))]) for k in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, two)
    assert (one != three).any()


def drawn_shapes(module: nn.Module) -> dict:
    spec = jax.ShapeDtypeStruct(X.shape, X.dtype)
    block = from_linen(module)
    return jax.tree.map(jnp.shape, jax.eval_shape(lambda key: block.init(key, spec), KEY)[0])


class ReadsWidth(nn.Module):
    """Reads what is no attribute of its own."""

    width = 3

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.width)(x)


@pytest.mark.parametrize("kind", [ReadsWidth, nn.remat(ReadsWidth)])
def test_what_a_module_reads_elsewhere_may_change(kind, monkeypatch):
    assert drawn_shapes(kind()) == {"Dense_0": {"kernel": (4, 3), "bias": (3,)}}
    monkeypatch.setattr(ReadsWidth, "width", 5)
    assert drawn_shapes(kind()) == {"Dense_0": {"kernel": (4, 5), "bias": (5,)}}


def test_an_interceptor_of_ones_own_is_asked_and_not_remembered():
    asked = []

    def intercept(call, args, kwargs, context):
        asked.append(context.module)
        return call(*args, **kwargs)

    shapes = drawn_shapes(nn.Dense(21))
    with nn.intercept_methods(intercept):
        assert drawn_shapes(nn.Dense(21)) == shapes and asked
        del asked[:]
        assert drawn_shapes(nn.Dense(22)) != shapes and asked
    del asked[:]
    assert drawn_shapes(nn.Dense(22)) != shapes and not asked


def test_equal_modules_of_flax_are_traced_once(monkeypatch):
    calls, plain = [], nn.Dense.param

    def counted(self, *args, **kwargs):
        calls.append(self.features)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(nn.Dense, "param", counted)
    shapes = drawn_shapes(nn.Dense(23))
    before = len(calls)
    assert before and drawn_shapes(nn.Dense(23)) == shapes and len(calls) == before
    assert drawn_shapes(nn.Dense(24)) != shapes and len(calls) > before


@pytest.mark.parametrize("given", [lambda own: own, jax.tree_util.Partial])
def test_an_initializer_of_ones_own_is_asked_anew(given):
    scale = {"now": 1.0}
    own = given(lambda key, shape, dtype: scale["now"] * jnp.ones(shape, dtype))

    def drawn():
        spec = jax.ShapeDtypeStruct((1, 2), X.dtype)
        return jax.jit(lambda key: from_linen(nn.Dense(2, kernel_init=own)).init(key, spec))(KEY)[0]["kernel"][0, 0]

    assert drawn() == 1.0
    scale["now"] = 2.0
    assert drawn() == 2.0
