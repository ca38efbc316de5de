from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localgrad.base import Block
from localgrad.blocks import NETWORKS, cnn, mlp


def shapes(network: Sequence[Block], *x_shape: int) -> list[tuple[int, ...]]:
    """Output shape of every block."""
    spec, found = jax.ShapeDtypeStruct(x_shape, jnp.float32), []
    for block in network:
        params, model_state = jax.eval_shape(
            lambda key, block=block, spec=spec: block.init(key, spec), jax.random.key(0)
        )
        run = lambda p, s, x, key, block=block: block.apply(p, s, x, key=key, train=True)[0]
        spec = jax.eval_shape(run, params, model_state, spec, jax.random.key(0))
        found.append(spec.shape)
    return found


def test_mlp() -> None:
    assert [block.name for block in mlp((7, 5))] == ["dense7", "dense5"]
    assert shapes(mlp((7, 5)), 2, 4, 4, 3) == [(2, 7), (2, 5)]  # images are flattened
    assert len(mlp()) == 4


def test_cnn() -> None:
    assert [block.name for block in cnn((4, 8))] == ["conv4", "conv8"]
    assert shapes(cnn((4, 4, 8, 8, 16)), 2, 8, 8, 1) == [(2, 8, 8, 4)] * 2 + [(2, 4, 4, 8)] * 2 + [(2, 2, 2, 16)]
    assert shapes(cnn((4, 8)), 2, 7, 7, 3) == [(2, 7, 7, 4), (2, 4, 4, 8)]  # odd sizes round up
    assert shapes(cnn((8, 4)), 2, 8, 8, 1) == [(2, 8, 8, 8), (2, 8, 8, 4)]  # a narrower layer keeps the size
    assert len(cnn()) == 6


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("elu", lambda h: np.where(h > 0, h, np.expm1(h))),
        ("relu", lambda h: np.maximum(h, 0)),
        ("gelu", lambda h: 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))),
        ("tanh", np.tanh),
        ("sigmoid", lambda h: 1 / (1 + np.exp(-h))),
    ],
)
def test_activations(activation: str, expected: Callable[[np.ndarray], np.ndarray]) -> None:
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    params = {"Dense_0": {"kernel": jnp.asarray(kernel), "bias": jnp.arange(3, dtype=jnp.float32)}}
    y, _ = mlp((3,), activation=activation)[0].apply(params, {}, jnp.asarray(x), key=None, train=False)
    np.testing.assert_allclose(y, expected(x @ kernel + np.arange(3.0)), rtol=1e-4, atol=1e-5)


def test_he_normal_initialisation() -> None:
    block = mlp((400,))[0]
    params, _ = jax.jit(lambda key: block.init(key, jax.ShapeDtypeStruct((1, 300), jnp.float32)))(jax.random.key(0))
    np.testing.assert_allclose(np.asarray(params["Dense_0"]["kernel"]).std(), np.sqrt(2 / 300), rtol=0.02)
    assert not np.asarray(params["Dense_0"]["bias"]).any()


@pytest.mark.parametrize(("make", "shape"), [(mlp, (2, 5)), (cnn, (2, 4, 4, 1))])
def test_norm_and_dropout_are_asked_for(make: Callable[..., list[Block]], shape: tuple[int, ...]) -> None:
    def variables(**options: bool | float) -> tuple[list[str], list[str]]:
        (block,) = make((4,), **options)
        specs = jax.eval_shape(lambda key: block.init(key, jax.ShapeDtypeStruct(shape, jnp.float32)), jax.random.key(0))
        params, model_state = (
            [jax.tree_util.keystr(path).split("'")[-2] for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
            for tree in specs
        )
        return sorted(params), sorted(model_state)

    assert variables() == variables(dropout=0.5) == (["bias", "kernel"], [])
    assert variables(norm=True) == (["bias", "kernel", "scale"], ["mean", "var"])  # the norm's bias alone
    for dropout, some in ((0.5, True), (0.0, False)):
        (block,) = make((64,), dropout=dropout, activation="sigmoid")
        spec = jax.ShapeDtypeStruct(shape, jnp.float32)
        run = jax.jit(
            lambda key, block=block, spec=spec: block.apply(
                *block.init(key, spec), jnp.ones(shape, jnp.float32), key=key, train=True
            )[0]
        )
        assert bool((run(jax.random.key(0)) == 0).any()) is some


@pytest.mark.parametrize("name", ["mlp", "cnn", "vanilla_cnn", "convnet", "two_conv", "vgg11", "resnet20", "alexnet"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": ()}, r"widths must be positive whole numbers, one a layer; got \(\)"),
        ({"widths": (4, 0)}, r"widths must be positive whole numbers, one a layer; got \(4, 0\)"),
        ({"activation": "swish"}, "unknown activation 'swish'; there are elu, relu, leaky_relu, gelu, tanh, sigmoid"),
        ({"dropout": 1.0}, r"dropout is a rate in \[0, 1\); got 1.0"),
        ({"dropout": -0.1}, r"dropout is a rate in \[0, 1\); got -0.1"),
    ],
)
def test_bad_arguments_are_refused(name: str, options: dict, message: str) -> None:
    if "widths" in options and name in (*VGG, *RESNET):
        options, message = {"width_factor": 0}, "width_factor must be positive; got 0"
    with pytest.raises(ValueError, match=message):
        NETWORKS[name](**options)
