"""Greedy InfoMax restated in numpy and PyTorch, LoCo and the overlap of any local rule."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from localgrad.base import BlockState, Metrics, Model
from localgrad.blocks import cnn, from_linen, mlp
from localgrad.keys import block_key
from localgrad.methods import al, bp, early_exit, freeze, gim, loco, noprop, overlapping, trials
from localgrad.pipeline import sequential
from localgrad.pipeline.step import gradients
from localgrad.report import largest_difference

torch = pytest.importorskip("torch", reason="of the dev extra")
BATCH, CLASSES, RATE = 2, 3, 0.1
SPEC = jax.ShapeDtypeStruct((BATCH, 8, 6, 2), jnp.float64)  # patches of 2: 7 rows of 5
STEPS = 2  # so many rows below are predicted
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(1, *SPEC.shape)), np.array([[2, 1]], np.int32)
TX = optax.sgd(RATE)

pytestmark = pytest.mark.usefixtures("x64")


def network() -> list:
    return [*cnn((3,), activation="tanh"), *mlp((4,), activation="tanh")]


def patch(image: np.ndarray, i: int, j: int) -> np.ndarray:
    return image[:, i : i + 2, j : j + 2]


def info_nce(z: Any, predict: Any, key: jax.Array) -> Any:
    """Of means over places z `(B, rows, columns, D)`, written out by loops."""
    rows, total = z.shape[1], 0.0
    for j in range(STEPS):
        w = predict.reshape(z.shape[-1], STEPS, -1)[:, j]
        below = z[:, j + 2 :] @ w
        flat = below.reshape(-1, below.shape[-1])
        draw = jax.random.fold_in(jax.random.fold_in(key, 0x6E656761), j)
        shape = (len(z), rows - 2 - j, z.shape[2], 16)
        drawn = np.asarray(jax.random.randint(draw, shape, 0, len(flat), jnp.int32))
        terms = []
        for b, r, c in np.ndindex(*shape[:3]):
            context = z[b, r, c]
            scores = [context @ below[b, r, c], *(context @ flat[n] for n in drawn[b, r, c])]
            terms.append(torch.logsumexp(torch.stack(scores), 0) - scores[0])
        total = total + torch.stack(terms).mean()
    return total / STEPS


class Trained(NamedTuple):
    """A model, its states before and after one step, and what the step reported."""

    model: Model
    before: tuple[BlockState, ...]
    after: tuple[BlockState, ...]
    metrics: Metrics


def one_step(model: Model, random_states: Callable, as_batches: Callable) -> Trained:
    states, engine = random_states(model), sequential(model)
    state, metrics = engine.run(engine.load(states, jax.random.key(4)), as_batches(X, Y))
    return Trained(model, states, engine.states(state), metrics)


@pytest.fixture(scope="module")
def of_gim(random_states: Callable, as_batches: Callable) -> Trained:
    with jax.enable_x64(True):
        return one_step(gim(network(), SPEC, CLASSES, tx=TX, steps=STEPS), random_states, as_batches)


def test_one_step_of_the_first_block_restated(of_gim: Trained) -> None:
    model, states, after, metrics = of_gim
    params = jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf), requires_grad=True), states[0].params)
    cut = np.stack([patch(X[0], i, j) for i in range(7) for j in range(5)], axis=1)  # (B, 35, 2, 2, C)
    conv = params["f"]["Conv_0"]
    padded = torch.nn.functional.pad(torch.tensor(cut.reshape(-1, 2, 2, 2)).permute(0, 3, 1, 2), (1, 1, 1, 1))
    h = torch.nn.functional.conv2d(padded, conv["kernel"].permute(3, 2, 0, 1), conv["bias"])
    z = torch.tanh(h).mean(dim=(2, 3)).reshape(BATCH, 7, 5, -1)
    own = info_nce(z, params["predict"]["Dense_0"]["kernel"], block_key(jax.random.key(4), jnp.int32(0), 0))
    probe = params["probe"]["Dense_0"]
    scores = z.detach().mean(dim=(1, 2)) @ probe["kernel"] + probe["bias"]
    loss = own + torch.nn.functional.cross_entropy(scores, torch.tensor(Y[0]).long())
    loss.backward()
    np.testing.assert_allclose(metrics.values[0]["self_supervised"][0], own.item(), rtol=1e-12)
    for ours, theirs in zip(jax.tree.leaves(after[0].params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, (theirs - RATE * theirs.grad).detach().numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(model.predict(states, jnp.asarray(X[0]), 1), scores.detach().numpy(), rtol=1e-12)


def grads_of(model: Model, states: Sequence[BlockState], x: np.ndarray, y: np.ndarray) -> list[dict]:
    keys = [jax.random.key(i) for i in range(len(model.blocks))]
    run = lambda states: gradients(model, states, model.enter(jnp.asarray(x), jnp.asarray(y)), keys)
    return [grads for _, grads, _ in jax.jit(run)(tuple(states))]


def test_loco_without_overlap_is_gim(of_gim: Trained, random_states: Callable, as_batches: Callable) -> None:
    of_loco = one_step(loco(network(), SPEC, CLASSES, tx=TX, steps=STEPS, overlap=False), random_states, as_batches)
    assert largest_difference(of_gim.after, of_loco.after) == 0
    assert [block.signal for block in loco(network(), SPEC, CLASSES, tx=TX).blocks] == ["next", "none"]


def test_a_shared_block_gets_both_gradients(random_states: Callable) -> None:
    """Of three blocks of `early_exit`, against autograd of each loss through two blocks."""
    spec = jax.ShapeDtypeStruct((4, 5), jnp.float64)
    plain = early_exit(mlp((4, 6, 3), activation="tanh"), spec, CLASSES, tx=TX)
    x, y = RNG.normal(size=spec.shape), np.array([0, 1, 2, 1], np.int32)
    states = random_states(plain)
    found = grads_of(overlapping(plain), states, x, y)
    leaf = lambda value: torch.tensor(np.asarray(value), requires_grad=True)
    params = [jax.tree.map(leaf, state.params) for state in states]
    dense = lambda x, layer: x @ layer["kernel"] + layer["bias"]
    outputs = [torch.tensor(x)]
    for own in params:
        outputs.append(torch.tanh(dense(outputs[-1], own["f"]["Dense_0"])).detach())
    for k, own in enumerate(params):
        below = outputs[k]
        if k:  # the block below once more, with gradients
            below = torch.tanh(dense(outputs[k - 1], params[k - 1]["f"]["Dense_0"]))
        scores = dense(torch.tanh(dense(below, own["f"]["Dense_0"])), own["head"]["Dense_0"])
        torch.nn.functional.cross_entropy(scores, torch.tensor(y).long()).backward()  # sums over losses
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("shape", "options", "says"),
    [
        ((BATCH, 5), {}, r"cut images \(B, H, W, C\) into patches; the inputs are \(2, 5\)"),
        (SPEC.shape, {"patch": 3}, "patch is an even number of pixels from 2 up; got 3"),
        (SPEC.shape, {"patch": 6}, r"patches of 6 make 1 rows of images \(8, 6\): choose smaller ones"),
        (SPEC.shape, {"steps": 0}, "steps must be a whole number from 1 up; got 0"),
        (SPEC.shape, {"negatives": 0}, "negatives must be a whole number from 1 up; got 0"),
    ],
)
def test_refusals(shape: tuple, options: dict, says: str) -> None:
    for make in (gim, loco):
        with pytest.raises(ValueError, match=says):
            make(network(), jax.ShapeDtypeStruct(shape, jnp.float64), CLASSES, tx=TX, **options)


class Pool(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.max_pool(x, (4, 4), (4, 4))


class Fixed(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x.reshape(len(x), 96))


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (Pool(), r"block 'Pool' makes \(2, 0, 0, 2\) of patches of 2: choose larger ones"),
        (Fixed(), r"block 'Fixed' cannot read patches of 2, \(2, 2, 2, 2\)"),
    ],
)
def test_patches_that_a_network_cannot_read_are_refused(module: nn.Module, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        gim([from_linen(module)], SPEC, CLASSES, tx=TX)


def test_what_has_nothing_to_overlap_is_refused() -> None:
    make = lambda method, **more: method(mlp((4, 4)), jax.ShapeDtypeStruct((4, 5), jnp.float64), CLASSES, tx=TX, **more)
    for model in (
        make(bp),
        make(al, target_width=4),
        make(noprop, steps=2),
        freeze(make(early_exit), 1),
        trials(make(early_exit), 2),
    ):
        with pytest.raises(ValueError, match=f"method '{model.method}' is not so here"):
            overlapping(model)
    with pytest.raises(ValueError, match="method 'early_exit' is not so here"):
        overlapping(overlapping(make(early_exit)))
