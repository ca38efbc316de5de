"""The auxiliary networks and the self-supervised losses of greedy learning, in the forms that were published."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.base import BlockState, Model
from localgrad.blocks import cnn, mlp, output_spec, vgg
from localgrad.methods import dgl
from localgrad.methods.greedy import AUXILIARIES, HEADS
from localgrad.methods.heads import ImageDecoder
from localgrad.methods.images import images_of
from localgrad.pipeline import specs

BATCH, CLASSES, KEY = 4, 3, jax.random.key(0)
TX = optax.sgd(0.1)


def shapes_of(params: Any) -> list[tuple[int, ...]]:
    """Shapes of the kernels of a head's layers, convolutions first, each kind in order."""
    order = sorted((name.partition("_")[0], int(name.partition("_")[2])) for name in params)
    return [params[f"{kind}_{i}"]["kernel"].shape for kind, i in order if kind != "BatchNorm"]


def image_spec(side: int, channels: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((BATCH, side, side, channels), dtype)


# --- auxiliary networks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kernels", "norms"),
    [
        ("mlp_sr", [(8, 8)] * 3 + [(32, 32)] * 3 + [(32, CLASSES)], 6),
        ("mlp", [(32, 32)] * 3 + [(32, CLASSES)], 3),
        ("cnn", [(3, 3, 8, 8)] * 2 + [(32, CLASSES)], 3),
        ("hidden", [(8 * 16 * 16, 6), (6, CLASSES)], 0),
    ],
)
def test_auxiliary_networks_have_the_layers_of_their_papers(name: str, kernels: list, norms: int) -> None:
    """Of 8 channels at 16 x 16; Belilovsky's end in 2 x 2 places, four times the channels."""
    block = AUXILIARIES[name](CLASSES, None, 6)
    params, _ = jax.eval_shape(block.init, KEY, image_spec(16, 8))
    assert shapes_of(params) == kernels
    assert sum(layer.startswith("BatchNorm") for layer in params) == norms
    # a layer that a norm follows has no bias of its own
    assert sum("bias" in layer for name, layer in params.items() if not name.startswith("BatchNorm")) == max(
        1, len(kernels) - norms
    )
    assert block.name == name


def test_the_last_block_has_the_head_that_is_chosen() -> None:
    spec = image_spec(16, 2)
    of = lambda **more: specs(dgl(cnn((4, 8)), spec, CLASSES, tx=TX, **more))[0][-1].params["aux"]
    assert shapes_of(of()) == [(8 * 8 * 8, CLASSES)]  # the network's own: one dense layer on all of the features
    assert shapes_of(of(head="mlp")) == [(32, 32), (32, 32), (32, CLASSES)]  # Belilovsky's: two layers on 2 x 2 places
    assert set(HEADS) == {"linear", "mlp"}


def first_params(model: Model) -> dict:
    """The parameters of the first block, as shapes."""
    message = jax.eval_shape(model.enter, model.x_spec, model.y_spec)
    return jax.eval_shape(lambda key: model.blocks[0].init(key, message), KEY).params


def norm(x: np.ndarray, params: Any, stats: Any, i: int) -> np.ndarray:
    own, running = params[f"BatchNorm_{i}"], stats[f"BatchNorm_{i}"]
    return (x - running["mean"]) / np.sqrt(running["var"] + 1e-5) * own["scale"] + own["bias"]


def convolved(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A 3x3 convolution that keeps the size."""
    height, width = x.shape[1:3]
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(x[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))  # type: ignore


def means(x: np.ndarray, side: int) -> np.ndarray:
    """Means over side x side windows that divide images."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, side, height // side, side, width // side, channels).mean(axis=(2, 4))


@pytest.mark.parametrize("name", ["mlp_sr", "mlp", "cnn", "head"])
def test_auxiliary_networks_written_out_again(name: str, x64: None) -> None:
    block = HEADS["mlp"](CLASSES) if name == "head" else AUXILIARIES[name](CLASSES, None, 6)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, 8, 8, 2))
    variables = jax.eval_shape(block.init, KEY, jax.ShapeDtypeStruct(x.shape, jnp.float64))
    noise = lambda x: np.abs(rng.normal(size=x.shape)) if x.ndim == 1 else rng.normal(size=x.shape) / len(x) ** 0.5
    params, model_state = jax.tree.map(noise, variables)
    stats = model_state["batch_stats"]
    relu = lambda x: np.maximum(x, 0)
    kernel = lambda kind, i: params[f"{kind}_{i}"]["kernel"]
    if name == "cnn":
        h = x
        for i in range(2):
            h = relu(norm(convolved(h, kernel("Conv", i)), params, stats, i))
        h = norm(means(h, 2), params, stats, 2).reshape(BATCH, -1)
        last = 0
    else:
        places, dense = {"mlp_sr": (3, 3), "mlp": (0, 3), "head": (0, 2)}[name]
        h = means(x, 2)  # a grid of 8 / 4, which is 2 x 2 already
        for i in range(places + dense):
            h = h.reshape(BATCH, -1) if i == places else h
            h = relu(norm(h @ kernel("Dense", i), params, stats, i))
        last = places + dense
    expected = h @ kernel("Dense", last) + params[f"Dense_{last}"]["bias"]
    params, model_state = jax.tree.map(jnp.asarray, (params, model_state))
    found, _ = block.apply(params, model_state, jnp.asarray(x), key=None, train=False)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


# --- self-supervised losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("upsample", "kernels", "size"),
    [
        ("transposed", [(3, 3, 8, 2), (4, 4, 12, 8), (4, 4, 8, 8)], 16),  # doubled twice
        ("bilinear", [(3, 3, 12, 2)], 16),
        ("none", [(3, 3, 12, 2)], 4),
    ],
)
def test_decoders(upsample: str, kernels: list, size: int) -> None:
    decoder = ImageDecoder((16, 16, 2), upsample)
    x = jnp.zeros((BATCH, 4, 4, 12))
    params = jax.eval_shape(lambda key: decoder.init(key, x, train=False), KEY)["params"]
    assert shapes_of(params) == kernels
    made = jax.eval_shape(lambda key: decoder.init_with_output(key, x, train=False)[0], KEY)
    assert made.shape == (BATCH, size, size, 2)


def test_a_bilinear_decoder_interpolates() -> None:
    """Between the centres of places; beyond the outermost it repeats them, as PyTorch's interpolate does."""
    decoder = ImageDecoder((4, 4, 1), "bilinear")
    x = jnp.asarray([[0.0, 1.0], [0.0, 1.0]]).reshape(1, 2, 2, 1)
    centre = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)  # hands its input on
    params = {"Conv_0": {"kernel": centre, "bias": jnp.zeros(1)}}
    made = decoder.apply({"params": params}, x, train=False)
    np.testing.assert_allclose(made[0, :, :, 0], [[0, 0.25, 0.75, 1]] * 4, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "upsample"),
    [  # both ways of enlarging compare at the size of the image
        ("reconstruct", "bilinear"),
        ("reconstruct", "none"),
        ("shift", "transposed"),
        ("shift", "none"),
        pytest.param("reconstruct", "transposed", marks=pytest.mark.full),
        pytest.param("shift", "bilinear", marks=pytest.mark.full),
    ],
)
def test_targets(kind: str, upsample: str) -> None:
    """The image, shifted by 5/32 to a half of its size from the first to the last, at the features' size or its own."""
    network, spec = cnn((3, 4, 5, 6)), image_spec(32, 2)
    image = np.random.default_rng(0).normal(size=spec.shape).astype(np.float32)
    found = images_of(network, spec, kind, upsample, "l1", (0.5, 0.5))
    assert len(found) == 3  # the last block learns of the class alone
    given = spec
    for f, shift, each in zip(network, (5, round(32 * (5 / 32 + 11 / 64)), 16), found, strict=False):
        given = output_spec(f, given)
        expected = np.roll(image, (shift, shift), axis=(1, 2)) if kind == "shift" else image
        expected = means(expected, given.shape[1]) if upsample == "none" else expected
        np.testing.assert_allclose(each.target(jnp.asarray(image)), expected, atol=1e-6)


@pytest.mark.parametrize(("name", "expected"), [("l1", np.abs), ("l2", np.square)])
def test_distances(name: str, expected: Callable) -> None:
    (image, *_) = images_of(mlp((3, 4)), image_spec(4, 1), "reconstruct", "transposed", name, (0.5, 0.5))
    one, other = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(image.distance(one, other), expected(one - other).mean(), rtol=1e-6)


def first_block(states_of: Callable, state: BlockState | None = None, **options: Any) -> tuple[dict, dict, BlockState]:
    """Gradients and metrics of the first block of two, and the state that it has, which may be given."""
    spec = jax.ShapeDtypeStruct((BATCH, 8, 8, 2), jnp.float64)
    model: Model = dgl(cnn((3, 4)), spec, CLASSES, tx=TX, aux="hidden", hidden=5, **options)
    state = state or states_of(model)[0]
    rng = np.random.default_rng(0)
    message = model.enter(jnp.asarray(rng.normal(size=spec.shape)), jnp.asarray([0, 1, 2, 0], jnp.int32))
    passed = jax.jit(model.blocks[0].forward)(state, message, KEY)
    if model.blocks[0].signal == "none":
        return passed.grads, passed.metrics, state
    error = {"error": jnp.asarray(rng.normal(size=(BATCH, CLASSES)))}
    made = model.blocks[0].backward(state, passed.stash, error)
    return made.grads, made.metrics, state


@pytest.mark.parametrize("mixed", [pytest.param(0.0, marks=pytest.mark.full), 0.25])
def test_weights_of_the_two_losses(mixed: float, x64: None, random_states: Callable) -> None:
    """The gradient is linear in them, and one of them may be 0."""
    options = {"self_supervised": "reconstruct", "last_gradient_weight": mixed}
    classes, _, state = first_block(random_states, **options, weights=(1, 0))
    image, *_ = first_block(random_states, state, **options, weights=(0, 1))
    both, metrics, _ = first_block(random_states, state, **options, weights=(2.0, 0.5))
    nothing = lambda tree: not any(np.asarray(x).any() for x in jax.tree.leaves(tree))
    assert nothing(classes["decoder"]) and not nothing(classes["aux"]) and not nothing(classes["f"])
    assert nothing(image["aux"]) and not nothing(image["decoder"]) and not nothing(image["f"])
    expected = jax.tree.map(lambda a, b: 2.0 * a + 0.5 * b, classes, image)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), both, expected)
    np.testing.assert_allclose(metrics["loss"], 2.0 * metrics["classification"] + 0.5 * metrics["self_supervised"])
    _, halved, _ = first_block(random_states, state, **options)
    np.testing.assert_allclose(halved["loss"], 0.5 * (halved["classification"] + halved["self_supervised"]))


def test_without_its_weight_a_self_supervised_loss_changes_nothing(x64: None, random_states: Callable) -> None:
    weighed, others, state = first_block(random_states, self_supervised="shift", weights=(1, 0))
    less = lambda groups: {group: tree for group, tree in groups.items() if group != "decoder"}
    plain, metrics, _ = first_block(random_states, BlockState(less(state.params), less(state.model_state), ()))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), plain, less(weighed))
    np.testing.assert_allclose(metrics["loss"], others["classification"])


def test_heads_read_behind_a_pooling_and_decoders_before_it() -> None:
    """NOTES: the classifier is smaller behind it, and the decoder enlarges less before it."""
    spec = image_spec(8, 2)
    options = {"aux": "hidden", "hidden": 5, "pool": None, "self_supervised": "reconstruct"}

    def first(pool: str) -> dict:
        network = vgg("vgg11c", pool=pool, width_factor=1 / 64, blocks=(2, 6))
        return first_params(dgl(network, spec, CLASSES, tx=TX, **options))

    between, after, before = map(first, ("between", "after", "before"))
    pooled, whole = 2 * 4 * 4, 2 * 8 * 8  # features of 2 channels
    assert shapes_of(between["aux"])[0] == shapes_of(after["aux"])[0] == (pooled, 5)
    assert shapes_of(before["aux"])[0] == (whole, 5)
    assert shapes_of(between["decoder"]) == shapes_of(before["decoder"]) == [(3, 3, 2, 2)]
    assert len(shapes_of(after["decoder"])) == 2  # one transposed convolution from 4 x 4 to 8 x 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aux": "rnn"}, "unknown auxiliary network 'rnn' of method 'dgl'; there are mlp_sr, mlp, cnn, hidden"),
        ({"head": "cnn"}, "unknown head 'cnn' of method 'dgl'; there are linear, mlp"),
        ({"hidden": 0}, "hidden is a positive number of units; got 0"),
        ({"hidden": 2.5}, "hidden is a positive number of units"),
        ({"self_supervised": "colour"}, "unknown self_supervised loss 'colour'"),
        ({"self_supervised": "shift", "upsample": "cubic"}, "unknown upsample 'cubic'"),
        ({"self_supervised": "shift", "distance": "l3"}, "unknown distance 'l3'"),
        ({"self_supervised": "shift", "weights": (0, 0)}, "two numbers from 0 up, of which one is above"),
        ({"self_supervised": "shift", "weights": (-1, 1)}, "two numbers from 0 up"),
        ({"self_supervised": "shift", "weights": (1, math.nan)}, "two numbers from 0 up"),
        ({"self_supervised": "shift", "weights": (1,)}, "two numbers from 0 up"),
        ({"self_supervised": "shift", "weights": ("a", 1)}, "two numbers from 0 up"),
        ({"self_supervised": "shift", "weights": 0.5}, "two numbers from 0 up"),
        ({"last_gradient_weight": 1.5}, "a share in"),
        ({"network": mlp((4, 3)), "self_supervised": "reconstruct", "upsample": "none"}, "'dense4' are"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    network = options.pop("network", None) or cnn((3, 4))
    with pytest.raises(ValueError, match=message):
        dgl(network, image_spec(8, 1), CLASSES, tx=TX, **options)
