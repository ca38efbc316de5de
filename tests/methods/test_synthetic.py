"""Synthetic gradients: perfect ones are backpropagation, one step in numpy, who hears of whom, and refusals."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.base import Block, BlockState, Model
from localgrad.blocks import cnn, mlp
from localgrad.methods import bp, cdni, dni
from localgrad.methods.heads import classifier
from localgrad.methods.parts import classifying_model
from localgrad.methods.synthetic import _last_block, synthetic_block
from localgrad.pipeline import init, sequential
from localgrad.pipeline.step import gradients
from localgrad.report import largest_difference
from localgrad.tasks import classification
from localgrad.testing import check_model

BATCH, FEATURES, CLASSES, RATE = 6, 5, 3, 0.1
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(BATCH, FEATURES)), np.array([0, 2, 1, 1, 0, 2], np.int32)
SPEC = jax.ShapeDtypeStruct((BATCH, FEATURES), jnp.float64)
TX = optax.sgd(RATE)

pytestmark = pytest.mark.usefixtures("x64")
States = tuple[BlockState, ...]


def moments_of(model: Model, x: np.ndarray = X) -> Callable[[States], list[dict[str, Any]]]:
    """Every block's gradients, as a function of the states that is compiled once."""
    keys = [jax.random.key(i) for i in range(len(model.blocks))]
    return jax.jit(lambda states: [own for _, own, _ in gradients(model, states, model.enter(x, jnp.asarray(Y)), keys)])


def tiny(make: Callable[..., Model] = dni, **options: Any) -> Model:
    return make(mlp((6, 5, 4), activation="tanh"), SPEC, CLASSES, tx=TX, **options)


def test_with_perfect_synthesizers_the_rule_is_backpropagation(random_states: Callable) -> None:
    """And they have nothing left to learn: what comes down is what they said."""
    network, task = mlp((6, 5, 4), activation="tanh"), classification(CLASSES)
    of_bp = bp(network, SPEC, CLASSES, tx=TX)
    states = random_states(of_bp)

    def loss_above(i: int, h: jax.Array) -> jax.Array:
        for block, state in zip(network[i + 1 :], states[i + 1 :], strict=True):
            h, _ = block.apply(state.params["f"], state.model_state["f"], h, key=None, train=True)
        head = classifier(CLASSES).apply(states[-1].params["head"], {}, h, key=None, train=True)[0]
        return task.loss(head, jnp.asarray(Y))

    def perfect(i: int) -> Block:
        apply = lambda params, model_state, h, *, key, train: (
            BATCH * jax.grad(lambda h: loss_above(i, h))(h) + params["off"],
            model_state,
        )
        return Block(lambda key, spec: ({"off": jnp.zeros(spec.shape[1:])[None]}, {}), apply, "perfect")

    parts: list[dict[str, Block]] = [{"f": f, "synthesizer": perfect(i)} for i, f in enumerate(network[:-1])]
    parts.append({"f": network[-1], "head": classifier(CLASSES)})
    blocks = [*(synthetic_block(part, task, TX, labels=False) for part in parts[:-1]), _last_block(parts[-1], task, TX)]
    model = classifying_model("perfect", blocks, parts, [None, None, "head"], SPEC, task)
    own = [
        state._replace(params={**state.params, "synthesizer": {"off": jnp.zeros((1, width))}})
        for state, width in zip(states[:-1], (6, 5), strict=True)
    ]
    own = [state._replace(model_state={**state.model_state, "synthesizer": {}}) for state in own]
    ours, theirs = moments_of(model)((*own, states[-1])), moments_of(of_bp)(states)
    for i, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        assert largest_difference(mine["f"], other["f"]) < 1e-12
        assert np.abs(other["f"]["Dense_0"]["kernel"]).max() > 1e-3
        assert i == 2 or np.abs(mine["synthesizer"]["off"]).max() < 1e-12


def numpy_synthesizer(params: dict, given: np.ndarray, code: np.ndarray | None):
    """G in numpy: its output, and a function from the gradient along that to those of its parameters."""
    forward, y = [], given
    for turn in range(2):
        kernel = np.asarray(params[f"Dense_{turn}"]["kernel"])
        z = y @ kernel
        if code is not None and turn == 0:
            z = z + code @ np.asarray(params["context"]["kernel"])
        mean, var = z.mean(0), z.var(0)
        normed = (z - mean) / np.sqrt(var + 1e-5)
        norm = params[f"BatchNorm_{turn}"]
        a = np.asarray(norm["scale"]) * normed + np.asarray(norm["bias"])
        forward.append((y, kernel, normed, np.asarray(norm["scale"]), np.sqrt(var + 1e-5), a))
        y = np.maximum(a, 0)
    last = {name: np.asarray(params["Dense_2"][name]) for name in ("kernel", "bias")}

    def back(along: np.ndarray) -> dict:
        found: dict = {"Dense_2": {"kernel": y.T @ along, "bias": along.sum(0)}}
        delta = along @ last["kernel"].T
        for turn in (1, 0):
            below, kernel, normed, scale, deviation, a = forward[turn]
            delta = delta * (a > 0)
            found[f"BatchNorm_{turn}"] = {"scale": (delta * normed).sum(0), "bias": delta.sum(0)}
            d = delta * scale
            d = (d - d.mean(0) - normed * (d * normed).mean(0)) / deviation
            found[f"Dense_{turn}"] = {"kernel": below.T @ d}
            if code is not None and turn == 0:
                found["context"] = {"kernel": code.T @ d}
            delta = d @ kernel.T
        return found

    return y @ last["kernel"] + last["bias"], back


@pytest.mark.parametrize("make", [pytest.param(dni, marks=pytest.mark.full), cdni])
def test_one_step_restated_in_numpy(make: Callable, as_batches: Callable, random_states: Callable) -> None:
    model = tiny(make)
    states = random_states(model)
    engine = sequential(model)
    state, metrics = engine.run(engine.load(states, jax.random.key(0)), as_batches(X[None], Y[None]))
    found = engine.states(state)

    code = np.eye(CLASSES)[Y] if make is cdni else None
    xs, hs, guesses, backs = [X], [], [], []
    for i, own in enumerate(states):
        f = own.params["f"]["Dense_0"]
        hs.append(np.tanh(xs[-1] @ np.asarray(f["kernel"]) + np.asarray(f["bias"])))
        xs.append(hs[-1])
        if i < 2:
            guess, back = numpy_synthesizer(own.params["synthesizer"], hs[-1], code)
            guesses.append(guess)
            backs.append(back)
    head = {name: np.asarray(states[-1].params["head"]["Dense_0"][name]) for name in ("kernel", "bias")}
    scores = hs[-1] @ head["kernel"] + head["bias"]
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    e = p - np.eye(CLASSES)[Y]  # of each example's own loss
    delta = [guess * (1 - h**2) for guess, h in zip(guesses, hs, strict=False)]
    delta.append(e @ head["kernel"].T * (1 - hs[-1] ** 2))
    expected_losses = [0.0, 0.0, -np.log(p[np.arange(BATCH), Y]).mean()]
    for i, (before, after) in enumerate(zip(states, found, strict=True)):
        moved = jax.tree.map(lambda a, b: (np.asarray(a) - np.asarray(b)) / RATE, before.params, after.params)
        np.testing.assert_allclose(moved["f"]["Dense_0"]["kernel"], xs[i].T @ delta[i] / BATCH, atol=1e-12)
        np.testing.assert_allclose(moved["f"]["Dense_0"]["bias"], delta[i].mean(0), atol=1e-12)
        if i < 2:
            target = delta[i + 1] @ np.asarray(states[i + 1].params["f"]["Dense_0"]["kernel"]).T
            theirs = backs[i](2 * (guesses[i] - target) / BATCH)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), moved["synthesizer"], theirs)
            expected_losses[i] = ((guesses[i] - target) ** 2).sum() / BATCH + (guesses[i] * hs[i]).sum() / BATCH
    np.testing.assert_allclose(moved["head"]["Dense_0"]["kernel"], hs[-1].T @ e / BATCH, atol=1e-12)
    np.testing.assert_allclose([values["loss"][0] for values in metrics.values], expected_losses, atol=1e-12)


def test_who_hears_of_whom(random_states: Callable) -> None:
    """f learns of nothing above it; its synthesizer of the next block, both groups, and of nobody further up."""
    model = tiny()
    states, others = random_states(model), random_states(model, seed=1)
    moments = moments_of(model)
    before = moments(states)
    for j in range(3):
        for group in states[j].params:
            own = states[j]._replace(params={**states[j].params, group: others[j].params[group]})
            after = moments((*states[:j], own, *states[j + 1 :]))
            for i in range(3):
                for hearing, old in before[i].items():
                    of_below, of_above = i > j and group == "f", i == j - 1 and hearing == "synthesizer"
                    heard = largest_difference(old, after[i][hearing]) > 0
                    assert i == j or heard == (of_below or of_above), (i, hearing, j, group)


@pytest.mark.parametrize("shape", [(FEATURES,), (4, 4, 2)])
def test_a_synthesizer_begins_by_saying_nothing(shape: tuple[int, ...]) -> None:
    """Zero weights and zero bias; so at first the blocks below the last do not move."""
    network = mlp((6, 4)) if len(shape) == 1 else cnn((3, 4))
    model = cdni(network, jax.ShapeDtypeStruct((BATCH, *shape), jnp.float64), CLASSES, tx=TX)
    states = init(model, jax.random.key(0))
    layers = "Dense" if len(shape) == 1 else "Conv"
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(states[0].params["synthesizer"][f"{layers}_2"]))
    found = moments_of(model, RNG.normal(size=(BATCH, *shape)))(states)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(found[0]["f"]))
    assert np.any(found[0]["synthesizer"][f"{layers}_2"]["kernel"])


def synthesizer_of(model: Model) -> dict:
    """The parameters of the first block's, as shapes."""
    message = jax.eval_shape(model.enter, model.x_spec, model.y_spec)
    return jax.eval_shape(lambda key: model.blocks[0].init(key, message), jax.random.key(0)).params["synthesizer"]


def test_sizes_and_profiles_of_synthesizers(random_states: Callable) -> None:
    spec = jax.ShapeDtypeStruct((BATCH, 4, 4, 2), jnp.float64)
    of = lambda make, **options: synthesizer_of(make(cnn((3, 4)), spec, CLASSES, tx=TX, **options))
    kernels = lambda params: {name: own["kernel"].shape for name, own in params.items() if "kernel" in own}
    assert kernels(of(dni)) == {f"Conv_{i}": (5, 5, 3, 3) for i in range(3)}
    wider = {"Conv_0": (3, 3, 3, 7), "Conv_1": (3, 3, 7, 7), "Conv_2": (3, 3, 7, 3), "context": (CLASSES, 7)}
    assert kernels(of(cdni, hidden=7, kernel=3)) == wider
    model, plain = tiny(), tiny(profile="notes")  # the same parameters, another function
    states = random_states(model, seed=2)
    ours, theirs = moments_of(model)(states), moments_of(plain)(states)
    assert largest_difference(ours[0]["f"], theirs[0]["f"]) > 1e-3
    assert largest_difference(ours[2], theirs[2]) == 0


@pytest.mark.full
@pytest.mark.parametrize("make", [dni, cdni])
@pytest.mark.parametrize("stages", [1, 3])
def test_the_whole_law(make: Callable, stages: int, random_states: Callable) -> None:
    """Delayed engines equal the sequential one with their delays; `locked` equals none."""
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9))
    model = make(mlp((6, 5, 4), dropout=0.1), SPEC, CLASSES, tx=tx)
    check_model(model, states=random_states(model), stages=stages)


@pytest.mark.parametrize("make", [dni, cdni])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "new"}, "unknown profile 'new' of method 'c?dni'; there are released, notes"),
        ({"hidden": 0}, "hidden of method 'c?dni' is a whole number of at least 1; got 0"),
        ({"hidden": 2.0}, "hidden of method 'c?dni' is a whole number of at least 1; got 2.0"),
        ({"kernel": 0}, "kernel of method 'c?dni' is a whole number of at least 1; got 0"),
    ],
)
def test_bad_options_are_refused(make: Callable, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(make, **options)
