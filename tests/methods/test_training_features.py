"""`Model.features` with the keys of a step is what that step made, for every method; without, it is prediction's."""

from collections.abc import Callable, Sequence
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.base import Key, Model
from localgrad.blocks import cnn, mlp
from localgrad.keys import block_key
from localgrad.methods import METHODS, trials

BATCH, CLASSES = 8, 3
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(BATCH, 5)), np.arange(BATCH, dtype=np.int32) % CLASSES
IMAGES = RNG.normal(size=(BATCH, 4, 4, 2))

pytestmark = pytest.mark.usefixtures("x64")

ROWS: dict[str, tuple[str, dict]] = {
    **{method: (method, {}) for method in METHODS},
    "predsim, dropout between blocks": ("predsim", {"dropout": 0.4}),
    "pred, dropout between blocks": ("pred", {"dropout": 0.4}),
    "al, one block": ("al", {"stops": False}),
    "al, iclr": ("al", {"profile": "iclr"}),
    "scl, two views": ("scl", {"views": 2, "head": "linear"}),
    "dgl, reconstructing": ("dgl", {"self_supervised": "reconstruct", "aux": "mlp"}),
    "dgl, mixed": ("dgl", {"last_gradient_weight": 0.5, "aux": "mlp"}),
    "bp_fc, first statistics": ("bp_fc", {"statistics": "first"}),
}
QUICK = ("al", "bp", "dkp", "kp", "bp_fc", "predsim, dropout between blocks", "al, one block", "scl, two views")


@cache
def build(row: str) -> tuple[Model, jax.Array]:
    method, options = ROWS[row]
    network = mlp((7, 6), norm=True, dropout=0.4)
    x = X
    if method == "bp_fc":
        network, x = [*cnn((4,), norm=True, dropout=0.4), *network], IMAGES
    x = jnp.asarray(x)
    model = METHODS[method](network, jax.ShapeDtypeStruct(x.shape, x.dtype), CLASSES, lambda s: optax.sgd(s), **options)
    return model, x


def keys_of(model: Model) -> list[Key]:
    return [block_key(jax.random.key(5), jnp.int32(3), i) for i in range(len(model.blocks))]


def messages(model: Model, states: Sequence, x: jax.Array, keys: Sequence[Key]) -> list[jax.Array]:
    """What each block handed on in its step."""
    found, message = [], model.enter(x, jnp.asarray(Y))
    for block, state, key in zip(model.blocks, states, keys, strict=True):
        message = block.forward(state, message, key).message
        found.append(message["s" if "s" in message else "x"])
    return found


@pytest.mark.parametrize("row", [row if row in QUICK else pytest.param(row, marks=pytest.mark.full) for row in ROWS])
def test_features_of_a_step_are_what_it_made(row: str, random_states: Callable) -> None:
    model, x = build(row)
    states, keys = random_states(model), keys_of(model)
    shown = jnp.stack([x, -x], axis=1) if "views" in row else x

    @jax.jit
    def both(states: tuple):
        return model.features(states, shown, keys), messages(model, states, shown, keys), model.features(states, x)

    found, handed, predicted = both(states)
    assert len(found) == len(predicted) == len(model.path)
    assert model.path[-1] == "scores" and found[-1].shape == (len(handed[-1]), CLASSES)
    of_f = [value for name, value in zip(model.path, found, strict=True) if name.startswith("f ")]
    if row == "al, one block":
        of_f = of_f[-1:]
    for block, state, message in zip(model.blocks, states, handed, strict=True):
        ends = "f" not in state.params or (block.signal == "above" and "head" in state.params)
        ours = found[-1] if ends else of_f.pop(0)
        if ends or "dropout between" not in row:  # there a block hands on another thing than its losses see
            np.testing.assert_allclose(ours, message, rtol=1e-12)
    predicted_scores = predicted[-1][: len(x)]
    assert np.abs(found[-1][: len(x)] - predicted_scores).max() > 1e-3  # prediction is another thing


@pytest.mark.parametrize("row", ["al", "bp", "predsim, dropout between blocks", "al, one block"])
def test_features_of_prediction_end_in_its_scores(row: str, random_states: Callable) -> None:
    model, x = build(row)
    states = random_states(model)
    scores, features = jax.jit(lambda states: (model.predict(states, x), model.features(states, x)))(states)
    np.testing.assert_allclose(features[-1], scores, rtol=1e-12)


def test_the_path_of_inference_of_associated_learning(random_states: Callable) -> None:
    """NECO section 5.4: through the encoders, the bridge of the last and all decoders, whose first gives the scores."""
    model, x = build("al")
    states = random_states(model)
    assert model.path == ("f 1", "f 2", "b 2", "h 2", "scores")
    s_1, s_2, bridged, t_1, scores = jax.jit(model.features)(states, x)
    assert [value.shape[1] for value in (s_1, s_2, bridged, t_1, scores)] == [7, 6, 128, 128, CLASSES]
    layer = lambda group, i: [states[i].params[group][name] for name in sorted(states[i].params[group])]
    sigmoid = lambda x, params: jax.nn.sigmoid(x @ params["kernel"] + params["bias"][None])
    (h_2,), (h_1,), bridge = layer("h", 1), layer("h", 0), layer("b", 1)
    hidden = s_2
    for params in bridge:
        hidden = sigmoid(hidden, params)
    np.testing.assert_allclose(bridged, hidden, rtol=1e-12)
    np.testing.assert_allclose(t_1, sigmoid(bridged, h_2), rtol=1e-12)
    np.testing.assert_allclose(scores, sigmoid(t_1, h_1), rtol=1e-12)


def test_trials_have_the_features_of_each_alone(random_states: Callable) -> None:
    model, x = build("bp")
    many, each = trials(model, 2), [random_states(model, seed) for seed in range(2)]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    keys = [keys_of(model), [jax.random.fold_in(key, 1) for key in keys_of(model)]]
    xs = jnp.stack([x, x + 1])
    found = jax.jit(many.features)(together, xs, [jnp.stack(both) for both in zip(*keys, strict=True)])
    shared = jax.jit(many.features)(together, x)
    alone, predict = jax.jit(model.features), jax.jit(model.predict)
    for r in range(2):
        for ours, theirs in zip(found, alone(each[r], xs[r], keys[r]), strict=True):
            np.testing.assert_allclose(ours[r], theirs, rtol=1e-12)
        np.testing.assert_allclose(shared[-1][r], predict(each[r], x), rtol=1e-12)
