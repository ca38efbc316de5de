from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localgrad.base import Block
from localgrad.blocks import NETWORKS, chain, cnn, from_linen, mlp, networks_of, output_spec, regroup, vgg
from localgrad.blocks.deep import RESNET, VGG
from localgrad.blocks.layers import ResidualLayer

KEY = jax.random.key(0)


def shapes(network: Sequence[Block], *x_shape: int) -> list[tuple[int, ...]]:
    """Output shape of every block."""
    spec, found = jax.ShapeDtypeStruct(x_shape, jnp.float32), []
    for block in network:
        spec = output_spec(block, spec)
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


def test_layers_add_their_input_and_end_in_a_layer_norm() -> None:
    x = np.random.default_rng(0).normal(size=(6, 4))
    plain, skipping = (mlp((4, 3), **options) for options in ({}, {"skip": True}))
    for first, second in zip(plain, skipping, strict=True):
        spec = jax.ShapeDtypeStruct(x.shape, jnp.float32)
        params, _ = second.init(KEY, spec)
        dense = {name: value for name, value in params.items() if name.startswith("Dense")}
        y, _ = first.apply(dense, {}, jnp.asarray(x, jnp.float32), key=None, train=False)
        y = np.asarray(x + y if x.shape == y.shape else y, np.float64)
        expected = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
        x, _ = second.apply(params, {}, jnp.asarray(x, jnp.float32), key=None, train=False)
        np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-5)


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


@pytest.mark.parametrize(
    "name", ["mlp", "cnn", "vanilla_cnn", "convnet", "two_conv", "basic_cnn", "vgg11", "resnet20", "alexnet"]
)
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


# --- the networks of the papers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("vanilla_cnn", 28, [(28, 28, 32)] * 3 + [(14, 14, 32)] + [(14, 14, 64)] * 3 + [(7, 7, 64)]),
        ("convnet", 28, [(28, 28, 128), (28, 28, 256), (28, 28, 512)]),
        ("two_conv", 28, [(28, 28, 32), (28, 28, 32), (128,)]),
        ("basic_cnn", 32, [(16, 16, 128), (8, 8, 128), (4, 4, 128), (256,)]),
        (
            "vgg11b",
            32,
            [(32, 32, 128)] * 3
            + [(32, 32, 256), (16, 16, 256), (16, 16, 512), (8, 8, 512), (8, 8, 512), (4, 4, 512), (1024,)],
        ),
        (
            "vgg8b",
            32,
            [(32, 32, 128), (32, 32, 256), (16, 16, 256), (16, 16, 512), (8, 8, 512), (4, 4, 512), (1024,)],
        ),
        (
            "vgg11",
            32,
            [(16, 16, 64), (8, 8, 128), (8, 8, 256), (4, 4, 256), (4, 4, 512), (2, 2, 512), (2, 2, 512), (1, 1, 512)],
        ),
        (
            "vgg11c",
            32,
            [(32, 32, 64), (16, 16, 128), (16, 16, 256), (8, 8, 256)] + [(8, 8, 512)] * 3 + [(4, 4, 512)],
        ),
        ("resnet20", 32, [(32, 32, 16)] * 4 + [(16, 16, 32)] * 3 + [(8, 8, 64)] * 2 + [(64,)]),
        (
            "alexnet",
            32,
            [(8, 8, 64), (4, 4, 192), (4, 4, 384), (4, 4, 256), (2, 2, 256), (4096,), (4096,)],
        ),
    ],
)
def test_shapes_of_the_papers(name: str, image: int, expected: list[tuple[int, ...]]) -> None:
    assert [shape[1:] for shape in shapes(NETWORKS[name](), 2, image, image, 3)] == expected


@pytest.mark.parametrize(
    ("name", "layers", "parameters"),
    [  # known counts, less the classifier (513 or 65 a class) and convolutions' biases, which batch norm cancels
        ("vgg13", 10, 9_416_010 - 10 * 513 - 2_944),
        pytest.param("vgg16", 13, 14_728_266 - 10 * 513 - 4_224, marks=pytest.mark.full),  # between its neighbours
        ("vgg19", 16, 20_040_522 - 10 * 513 - 5_504),
        ("resnet18", 9, 11_173_962 - 10 * 513),
        ("resnet20", 10, 272_474 - 10 * 65),
        pytest.param("resnet32", 16, 466_906 - 10 * 65, marks=pytest.mark.full),  # resnet20 with more of the same
    ],
)
def test_size_of_the_papers(name: str, layers: int, parameters: int) -> None:
    network = NETWORKS[name]()
    assert len(network) == layers
    image = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    params, _ = jax.eval_shape(lambda key: chain(network).init(key, image), jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(params)) == parameters


DEEP_ALIKE = ("vgg13", "vgg16", "vgg19", "resnet18", "resnet32", "vgg11b", "vgg11c")  # made as their neighbours are


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.full] * (n in DEEP_ALIKE)) for n in sorted(networks_of("images"))]
)
def test_any_image_size(name: str) -> None:
    """Poolings stop at one place, so that every network takes the smallest of images."""
    assert all(min(shape) >= 1 for shape in shapes(NETWORKS[name](), 2, 8, 8, 1))
    assert shapes(NETWORKS[name](blocks=3), 2, 5, 7, 2)[-1][0] == 2


def test_the_residual_networks_of_neco(x64: None) -> None:
    """Its top bridge reads 8 x 8 x 64 features, and its baseline their mean."""
    network = NETWORKS["resnet20"](form="neco", blocks=(1, 3, 3, 3))
    assert [shape[1:] for shape in shapes(network, 2, 32, 32, 3)] == [
        (32, 32, 16), (32, 32, 16), (16, 16, 32), (8, 8, 64),
    ]  # fmt: skip
    baseline = NETWORKS["resnet20"](form="neco", mean=True, activation="relu", blocks=(1, 3, 3, 3))
    assert shapes(baseline, 2, 32, 32, 3)[-1] == (2, 64)
    image = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    params = lambda network: jax.eval_shape(lambda key: chain(network).init(key, image)[0], KEY)
    count = lambda network: sum(x.size for x in jax.tree.leaves(params(network)))
    shortcuts = 32 + 64  # two 1x1 convolutions have a bias where He's have the scale and bias of a norm
    assert count(network) == count(baseline) == count(NETWORKS["resnet20"]()) - shortcuts


@pytest.mark.parametrize("stride", [1, 2])
def test_a_residual_block_of_neco(stride: int, x64: None) -> None:
    """ELU follows the second convolution too, and the shortcut has no norm, written out again here."""
    rng = np.random.default_rng(0)
    width = 3 if stride == 1 else 4
    block = from_linen(ResidualLayer(width, stride, "elu", form="neco"))
    x = rng.normal(size=(2, 4, 4, 3))
    variables = jax.eval_shape(block.init, KEY, jax.ShapeDtypeStruct(x.shape, jnp.float64))
    noise = lambda x: np.abs(rng.normal(size=x.shape)) if x.ndim == 1 else rng.normal(size=x.shape)
    params, model_state = jax.tree.map(noise, variables)
    stats = model_state["batch_stats"]

    def conv(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
        size = kernel.shape[0]
        out = -(-x.shape[1] // stride)
        total = max((out - 1) * stride + size - x.shape[1], 0)
        x = np.pad(x, ((0, 0), (total // 2, total - total // 2), (total // 2, total - total // 2), (0, 0)))
        places = [
            [np.einsum("bhwc,hwcd->bd", x[:, i * stride :, j * stride :][:, :size, :size], kernel) for j in range(out)]
            for i in range(out)
        ]
        return np.transpose(np.array(places), (2, 0, 1, 3))

    def norm(x: np.ndarray, i: int) -> np.ndarray:
        own, running = params[f"BatchNorm_{i}"], stats[f"BatchNorm_{i}"]
        return (x - running["mean"]) / np.sqrt(running["var"] + 1e-5) * own["scale"] + own["bias"]

    elu = lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    kernel = lambda i: params[f"Conv_{i}"]["kernel"]
    y = elu(norm(conv(x, kernel(0), stride), 0))
    y = elu(norm(conv(y, kernel(1), 1), 1))
    if stride == 2:
        assert set(params) == {"Conv_0", "Conv_1", "Conv_2", "BatchNorm_0", "BatchNorm_1"}
        shortcut = conv(x, kernel(2), 2) + params["Conv_2"]["bias"]
    else:
        shortcut = x
    params, model_state = jax.tree.map(jnp.asarray, (params, model_state))
    found, _ = block.apply(params, model_state, jnp.asarray(x), key=None, train=False)
    np.testing.assert_allclose(found, elu(shortcut + y), rtol=0, atol=1e-10)


def test_between_blocks_a_pooling_is_read_behind_it_and_decoded_before_it() -> None:
    """Blocks hand on what `before` hands on; heads read it pooled, as with `after`."""
    make = lambda pool: vgg("vgg11c", pool=pool, width_factor=1 / 64)
    between, before, after = map(make, ("between", "before", "after"))
    assert shapes(between, 2, 8, 8, 1) == shapes(before, 2, 8, 8, 1)
    assert [block.name for block in between] == [block.name for block in before]
    read = [
        jax.eval_shape(block.summary, jax.ShapeDtypeStruct(shape, jnp.float32)).shape
        for block, shape in zip(between, shapes(between, 2, 8, 8, 1), strict=True)
    ]
    assert read == shapes(after, 2, 8, 8, 1)
    assert read[1] == (2, 4, 4, 2) and shapes(between, 2, 8, 8, 1)[1] == (2, 8, 8, 2)


def test_pooling_before_and_after_compute_the_same() -> None:
    """Only where a block ends differs, and so what its local loss sees."""
    after, before = (vgg("vgg8b", pool=pool, width_factor=1 / 64) for pool in ("after", "before"))
    assert shapes(after, 2, 8, 8, 1)[1] == (2, 4, 4, 4)
    assert shapes(before, 2, 8, 8, 1)[1] == (2, 8, 8, 4)
    assert shapes(after, 2, 8, 8, 1)[-1] == shapes(before, 2, 8, 8, 1)[-1]
    spec, x = (
        jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32),
        jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), jnp.float32),
    )
    outs = []
    for network in (after, before):
        whole = chain(network)
        params, model_state = whole.init(jax.random.key(0), spec)
        outs.append(whole.apply(params, model_state, x, key=None, train=False)[0])
    np.testing.assert_allclose(*outs, rtol=1e-5)


def test_the_vgg_that_neco_trains() -> None:
    network = vgg("vgg8b", pool="after", dense=(1024, 1024), blocks=(2, 2, 2, 2))
    assert [block.name for block in network] == [
        "conv128+conv256+pool", "conv256+conv512+pool", "conv512+pool+conv512+pool", "dense1024+dense1024",
    ]  # fmt: skip


# --- groups -------------------------------------------------------------------------------------------------------


def test_a_chain_is_its_parts_in_a_row() -> None:
    parts = mlp((5, 4), norm=True)
    block = chain(parts)
    spec = jax.ShapeDtypeStruct((6, 3), jnp.float32)
    params, model_state = block.init(jax.random.key(0), spec)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
    y, moved = block.apply(params, model_state, x, key=None, train=True)
    for i, part in enumerate(parts):
        x, own = part.apply(params[str(i)], model_state[str(i)], x, key=None, train=True)
        jax.tree.map(np.testing.assert_array_equal, own, moved[str(i)])
    np.testing.assert_array_equal(x, y)
    assert chain(parts[:1]) is parts[0]


def test_parts_of_a_chain_draw_from_keys_of_their_own() -> None:
    block = chain(mlp((64, 64), dropout=0.5, activation="sigmoid"))
    params, _ = block.init(jax.random.key(0), jax.ShapeDtypeStruct((1, 64), jnp.float32))
    assert (np.asarray(params["0"]["Dense_0"]["kernel"]) != np.asarray(params["1"]["Dense_0"]["kernel"])).any()


@pytest.mark.parametrize(
    ("blocks", "names"),
    [
        (None, ["dense5", "dense4", "dense3", "dense2"]),
        (1, ["dense5+dense4+dense3+dense2"]),
        (3, ["dense5+dense4", "dense3", "dense2"]),
        ((1, 3), ["dense5", "dense4+dense3+dense2"]),
    ],
)
def test_regroup(blocks: int | tuple[int, ...] | None, names: list[str]) -> None:
    assert [block.name for block in regroup(mlp((5, 4, 3, 2)), blocks)] == names


@pytest.mark.parametrize("blocks", [0, 5, (), (2, 1), (4, 0), (5, -1)])
def test_a_grouping_that_does_not_fit_is_refused(blocks: int | tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="blocks="):
        mlp((5, 4, 3, 2), blocks=blocks)


def test_an_empty_chain_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one Block"):
        chain([])
