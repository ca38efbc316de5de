"""InfoPro restated in PyTorch, its published weights, and what it refuses."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.blocks import cnn, mlp
from localgrad.data import DATASETS, digits
from localgrad.data.registry import Reader
from localgrad.methods import infopro
from localgrad.methods.infopro import PUBLISHED, _pairs
from localgrad.pipeline import sequential, specs
from localgrad.tasks import regression
from localgrad.training import Config, prepare

torch = pytest.importorskip("torch", reason="of the dev extra")
BATCH, CLASSES, RATE, HIDDEN = 6, 3, 0.1, 128
SPEC = jax.ShapeDtypeStruct((BATCH, 5), jnp.float64)
IMAGES = jax.ShapeDtypeStruct((BATCH, 4, 4, 1), jnp.float64)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(BATCH, 5)), np.array([0, 1, 2, 0, 1, 1], np.int32)

pytestmark = pytest.mark.usefixtures("x64")


def network() -> list:
    return mlp((4, 6), activation="tanh")


def supcon(z: Any) -> Any:
    """The loss by a double loop."""
    z = z / z.norm(dim=1, keepdim=True)
    total = 0.0
    for i in range(BATCH):
        others = [j for j in range(BATCH) if j != i]
        below = torch.stack([torch.exp(z[i] @ z[j] / 0.07) for j in others]).sum().log()
        same = [j for j in others if Y[j] == Y[i]]
        total = total + sum(below - z[i] @ z[j] / 0.07 for j in same) / max(len(same), 1)
    return total / BATCH


@pytest.mark.parametrize("loss", ["contrast", "softmax"])
def test_one_step_restated(loss: str, random_states: Callable, as_batches: Callable) -> None:
    scale = (np.full(5, 0.4), np.full(5, 0.2))
    model = infopro(network(), SPEC, CLASSES, tx=optax.sgd(RATE), loss=loss, lambdas=(2, 3, 2, 3), image_scale=scale)
    states = random_states(model)
    engine = sequential(model)
    state, metrics = engine.run(engine.load(states, jax.random.key(0)), as_batches(X[None], Y[None]))
    image = np.clip(X * 0.2 + 0.4, 0, 1)
    assert 0 < np.sum((image == 0) | (image == 1)) < image.size
    tensor = lambda leaf: torch.tensor(np.asarray(leaf), requires_grad=True)
    dense = lambda x, layer: x @ layer["kernel"] + layer["bias"]
    below = torch.tensor(X)
    for i, (before, after) in enumerate(zip(states, engine.states(state), strict=True)):
        params = jax.tree.map(tensor, before.params)
        h = torch.tanh(dense(below, params["f"]["Dense_0"]))
        if i == 0:
            read = dense(torch.relu(dense(h, params["head"]["Dense_0"])), params["head"]["Dense_1"])
            shown = torch.sigmoid(dense(h, params["decoder"]["Dense_0"]))
            own = 2 * torch.nn.functional.binary_cross_entropy(shown, torch.tensor(image))
            own = own + 3 * (supcon(read) if loss == "contrast" else cross_entropy(read))
        else:
            own = cross_entropy(dense(h, params["head"]["Dense_0"]))
        own.backward()
        np.testing.assert_allclose(metrics.values[i]["loss"][0], own.item(), rtol=1e-13)
        for ours, theirs in zip(jax.tree.leaves(after.params), jax.tree.leaves(params), strict=True):
            np.testing.assert_allclose(ours, (theirs - RATE * theirs.grad).detach().numpy(), rtol=0, atol=1e-13)
        below = h.detach()


def cross_entropy(scores: Any) -> Any:
    return torch.nn.functional.cross_entropy(scores, torch.tensor(Y).long())


def test_the_published_weights_run_linearly_over_the_local_blocks() -> None:
    assert set(PUBLISHED) == {2, 4, 8, 16}
    assert _pairs(1, None) == [] and _pairs(2, None) == [(5, 1)] and _pairs(3, None) == [(5, 1), (5, 1)]
    assert _pairs(4, None) == [(6, 0), (3.5, 1), (1, 2)]
    assert _pairs(16, None)[0] == (5, 0.05) and _pairs(20, None)[-1] == (2, 0.5)
    assert _pairs(5, (1, 0, 0, 3)) == [(1, 0), pytest.approx((2 / 3, 1)), pytest.approx((1 / 3, 2)), (0, 3)]


def test_heads_and_exits() -> None:
    contrast, softmax = (infopro(cnn((2, 40, 70)), IMAGES, CLASSES, tx=optax.sgd(RATE), loss=loss) for loss in
                         ("contrast", "softmax"))  # fmt: skip
    assert contrast.exits == (3,) and softmax.exits == (1, 2, 3)
    shapes = lambda tree: [leaf.shape for leaf in jax.tree.leaves(tree) if leaf.ndim > 1]
    first, second, last = (state.params for state in specs(contrast)[0])
    assert shapes(first["head"]) == [(3, 3, 2, 4), (4, HIDDEN), (HIDDEN, HIDDEN)]
    assert shapes(second["head"]) == [(3, 3, 40, 64), (64, HIDDEN), (HIDDEN, HIDDEN)]
    assert shapes(first["decoder"]) == [(3, 3, 2, 12), (3, 3, 12, 1)] and set(last) == {"f", "head"}
    assert shapes(specs(softmax)[0][0].params["head"])[-1] == (HIDDEN, CLASSES)
    assert (contrast.least_examples, softmax.least_examples) == (3, 1)
    messages = specs(contrast)[1]
    assert all(message["image"].shape == IMAGES.shape for message in messages)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"loss": "triplet"}, "unknown loss 'triplet' of method 'infopro'; there are contrast, softmax"),
        ({"lambdas": (1, 2)}, r"lambdas are four numbers from 0 up.*got \(1, 2\)"),
        ({"lambdas": (1, 2, 0, 0)}, "of each of which one is above 0"),
        ({"lambdas": (1, -2, 1, 1)}, "four numbers from 0 up"),
        ({"temperature": 0.0}, "temperature must be positive and finite; got 0.0"),
        ({"image_scale": ((0.5,), (0.1,))}, r"image_scale is \(mean, std\), 5 numbers each"),
        ({"image_scale": ((0.5,) * 5, (0.0,) * 5)}, "deviations positive"),
        ({"image_scale": 3}, "image_scale is"),
    ],
)
def test_refusals(options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        infopro(network(), SPEC, CLASSES, tx=optax.sgd(RATE), **options)


def test_what_has_no_classes_or_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="loss='contrast' compares labels; choose loss='softmax'"):
        infopro(network(), SPEC, regression(2), tx=optax.sgd(RATE))
    with pytest.raises(ValueError, match="token ids are no quantities"):
        infopro(network(), jax.ShapeDtypeStruct((BATCH, 5), jnp.int32), CLASSES, tx=optax.sgd(RATE))


def test_the_command_line_gives_the_scale_of_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits are bytes of 0 to 16; a table's numbers have no range, and the scale is not the user's to give."""
    small = {"method": "infopro", "widths": (4, 4), "workdir": "nowhere"}
    job = prepare(Config(**small))
    mean, std = job.stats
    x, _, _ = next(iter(job.eval_batches("train")))
    image = np.asarray(x) * (std / 16) + mean / 16
    assert image.min() > -1e-6 and abs(image.max() - 1) < 1e-6
    floats = lambda name, split, folder: digits.load("digits", split)._replace(inputs=np.ones((300, 5), np.float32))
    cut = lambda *args: floats(*args)._replace(labels=digits.load("digits", args[1]).labels[:300])
    monkeypatch.setitem(DATASETS, "floats", Reader(cut))
    with pytest.raises(ValueError, match="reconstructs images of bytes; those of digits are float32"):
        prepare(Config(**small, dataset="floats"))
    with pytest.raises(ValueError, match="has no option 'image_scale'"):
        prepare(Config(**small, method_options=("image_scale=3",)))
