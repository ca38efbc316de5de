"""SimCLR, rotation and their probes, restated in numpy and PyTorch; what they refuse."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.base import BlockState, Model
from localgrad.blocks import mlp
from localgrad.methods import rotation, simclr
from localgrad.pipeline import sequential
from localgrad.training import Config, prepare

torch = pytest.importorskip("torch", reason="of the dev extra")
BATCH, CLASSES, RATE = 4, 3, 0.1
SPEC = jax.ShapeDtypeStruct((BATCH, 5), jnp.float64)
IMAGES = jax.ShapeDtypeStruct((BATCH, 3, 3, 2), jnp.float64)
RNG = np.random.default_rng(0)
Y = np.array([0, 1, 2, 1], np.int32)

pytestmark = pytest.mark.usefixtures("x64")


def network() -> list:
    return mlp((4, 6), activation="tanh")


def dense(x: Any, layer: dict) -> Any:
    return x @ layer["kernel"] + layer["bias"]


def check_one_step(
    model: Model, x: np.ndarray, seen: np.ndarray, own: Callable[[dict, Any], Any], probed: slice,
    labels: np.ndarray, states: tuple[BlockState, ...], as_batches: Callable,
) -> None:  # fmt: skip
    """A step of a model against autograd: `own` is a block's own loss of its head's params and its features."""
    engine = sequential(model)
    state, metrics = engine.run(engine.load(states, jax.random.key(0)), as_batches(x[None], Y[None]))
    below = torch.tensor(seen)
    for i, (before, after) in enumerate(zip(states, engine.states(state), strict=True)):
        params = jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf), requires_grad=True), before.params)
        h = torch.tanh(dense(below, params["f"]["Dense_0"]))
        loss = own(params["head"], h)
        scores = dense(h[probed].detach(), params["probe"]["Dense_0"])
        probe = torch.nn.functional.cross_entropy(scores, torch.tensor(labels).long())
        (loss + probe).backward()
        np.testing.assert_allclose(metrics.values[i]["self_supervised"][0], loss.item(), rtol=1e-13)
        np.testing.assert_allclose(metrics.values[i]["loss"][0], (loss + probe).item(), rtol=1e-13)
        for ours, theirs in zip(jax.tree.leaves(after.params), jax.tree.leaves(params), strict=True):
            np.testing.assert_allclose(ours, (theirs - RATE * theirs.grad).detach().numpy(), rtol=0, atol=1e-13)
        below = h.detach()


def test_one_step_of_simclr_restated(random_states: Callable, as_batches: Callable) -> None:
    """Equation 1 by a double loop, over both orders of each pair."""
    model = simclr(network(), SPEC, CLASSES, tx=optax.sgd(RATE), temperature=0.3, hidden=7, width=5)
    x = RNG.normal(size=(BATCH, 2, 5))

    def own(head: dict, h: Any) -> Any:
        z = dense(torch.relu(dense(h, head["Dense_0"])), head["Dense_1"])
        z = z / z.norm(dim=1, keepdim=True)
        total = 0.0
        for i in range(2 * BATCH):
            others = torch.stack([torch.exp(z[i] @ z[k] / 0.3) for k in range(2 * BATCH) if k != i]).sum()
            total = total - torch.log(torch.exp(z[i] @ z[i ^ 1] / 0.3) / others)
        return total / (2 * BATCH)

    check_one_step(model, x, x.reshape(-1, 5), own, slice(None), np.repeat(Y, 2), random_states(model), as_batches)


def test_one_step_of_rotation_restated(random_states: Callable, as_batches: Callable) -> None:
    model = rotation(network(), IMAGES, CLASSES, tx=optax.sgd(RATE))
    x = RNG.normal(size=IMAGES.shape)
    turned = np.stack([np.rot90(x, k, axes=(1, 2)) for k in range(4)], axis=1).reshape(4 * BATCH, -1)

    def own(head: dict, h: Any) -> Any:
        turns = torch.arange(4).repeat(BATCH)
        return torch.nn.functional.cross_entropy(dense(h, head["Dense_0"]), turns)

    check_one_step(model, x, turned, own, slice(None, None, 4), Y, random_states(model), as_batches)


@pytest.mark.parametrize("make", [simclr, rotation])
def test_labels_move_the_probes_alone(make: Callable, random_states: Callable) -> None:
    model = make(network(), IMAGES, CLASSES, tx=optax.sgd(RATE))
    states, x = random_states(model), RNG.normal(size=model.x_spec.shape)
    passes, grads = [jax.jit(block.forward) for block in model.blocks], []
    for labels in (Y, (Y + 1) % CLASSES):
        message, found = model.enter(jnp.asarray(x), jnp.asarray(labels)), []
        for forward, state in zip(passes, states, strict=True):
            passed = forward(state, message, jax.random.key(0))
            message, found = passed.message, [*found, passed.grads]
        grads.append(found)
    for ours, theirs in zip(*grads, strict=True):
        for group in ours:
            same = all(map(np.array_equal, jax.tree.leaves(ours[group]), jax.tree.leaves(theirs[group])))
            assert same == (group != "probe"), group
    assert model.exits == (1, 2) and model.effective == ({"f"}, {"f", "probe"})
    assert jax.eval_shape(model.predict, states, jnp.zeros((3, 3, 3, 2))).shape == (3, CLASSES)


@pytest.mark.parametrize(
    ("make", "options", "says"),
    [
        (simclr, {"temperature": 0.0}, "temperature must be positive and finite; got 0.0"),
        (simclr, {"hidden": 0}, "hidden and width are positive numbers of units; got 0 and 128"),
        (simclr, {"views": 1}, "compares two views of an image: views is 2; got 1"),
        (rotation, {}, r"turns square images \(B, H, H, C\); the inputs are \(4, 5\)"),
        (rotation, {"pool": 0}, "pool is a positive number"),
    ],
)
def test_refusals(make: Callable, options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make(network(), SPEC, CLASSES, tx=optax.sgd(RATE), **options)


def test_the_command_line_gives_simclr_its_two_views() -> None:
    small = {"method": "simclr", "widths": (4,), "workdir": "nowhere"}
    with pytest.raises(ValueError, match="views=2 of an example differ by their augmentation: give --augment"):
        prepare(Config(**small))
    job = prepare(Config(**small, augment=("crop",)))
    batches = job.source.batches(0, 1)
    x, _ = batches.fetch(jax.tree.map(lambda leaf: leaf[0], batches.items), 0, 64)
    assert x.shape == (64, 2, 8, 8, 1) and np.any(np.asarray(x[:, 0] != x[:, 1]))
