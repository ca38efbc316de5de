"""Codes made before training: against their equations, and that frozen ones change nothing but what a step costs."""

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from localgrad.base import Batches, BlockState, Engine, Model
from localgrad.blocks import cnn, from_linen, mlp
from localgrad.methods import al, graft, trial_keys, trials
from localgrad.methods.levels import hadamard
from localgrad.pipeline import completed, drawn, init, make_plan, sequential, specs
from localgrad.report import ledger
from localgrad.tasks import Task, multilabel, regression, tokens
from localgrad.testing import check_engines, check_isolation

BATCH, FEATURES, CLASSES, WIDTH = 6, 5, 3, 4
KEY = jax.random.key(0)
KINDS = ("first", "fixed")


def build(profile: str = "neco", depth: int = 2, classes: Task | int = CLASSES, dtype: Any = None, **options) -> Model:
    spec = jax.ShapeDtypeStruct((BATCH, FEATURES), dtype or jnp.float64)
    given: dict[str, Any] = {"tx": optax.sgd(0.1), "target_width": WIDTH, "bridge": (), **options}
    return al(mlp((7, 6, 5)[:depth]), spec, classes, profile=profile, **given)


@cache
def made(**options: Any) -> tuple[Model, tuple[BlockState, ...]]:
    """A model and its first states, whose codes are made, in float64; for all tests that ask for it."""
    model = build(**options)
    return model, init(model, KEY)


def examples() -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(BATCH, FEATURES))), jnp.asarray([0, 1, 2, 0, 1, 1], jnp.int32)


def equal(ours: Any, theirs: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True))


# --- the equations, written out again -----------------------------------------------------------------------------


def dense(params: Any, x: np.ndarray, activation: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    layer = jax.device_get(params)["Dense_0"]
    return activation(x @ layer["kernel"] + layer["bias"][None])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def decoded(profile: str, params: Any, codes: np.ndarray, first: bool) -> np.ndarray:
    linear = profile == "iclr_head" and not first
    return dense(params, codes, sigmoid if profile == "neco" else (lambda x: x) if linear else np.tanh)


def excess(profile: str, scores: np.ndarray, below: np.ndarray, first: bool) -> float:
    """The autoencoder loss above the least that it can be, as a share of what it is where all classes look alike."""
    if profile == "iclr_head" and first:
        entropy = np.log(np.exp(scores).sum(1, keepdims=True)) - scores
        floor = np.log(1 + (CLASSES - 1) * np.exp(-2))
        return float(((below * entropy).sum(1).mean() - floor) / (np.log(CLASSES) - floor))
    return float(np.mean((scores - below) ** 2) / np.mean((below - below.mean(0, keepdims=True)) ** 2))


def codes_of(profile: str, states: tuple[BlockState, ...], frozen: bool) -> list[np.ndarray]:
    """The codes of every level, from the one-hot targets up."""
    found = [np.eye(CLASSES)]
    for state in states:
        g = state.params["g"]
        found.append(
            np.asarray(g["codes"]) if frozen else dense(g, found[-1], sigmoid if profile == "neco" else np.tanh)
        )
    return found


LEVELS = {  # each profile, kind of codes and way of learning meets each of the others once
    ("neco", "first", False),
    ("neco", "fixed", True),
    ("iclr_head", "first", True),
    ("iclr_head", "fixed", False),
}


def levels() -> list[Any]:
    rows = itertools.product(("neco", "iclr", "iclr_head"), KINDS, (False, True))
    return [pytest.param(*row, marks=() if row in LEVELS else pytest.mark.full) for row in rows]


@pytest.mark.parametrize(("profile", "kind", "learn_on"), levels())
def test_every_level_decodes_its_codes(profile: str, kind: str, learn_on: bool, x64: None) -> None:
    _, states = made(profile=profile, codes=kind, codes_learn_on=learn_on, target_width=16)
    codes = codes_of(profile, states, not learn_on)
    for i, (state, below, own) in enumerate(zip(states, codes, codes[1:], strict=False)):
        assert own.shape == (CLASSES, 16)
        assert -1e-12 < excess(profile, decoded(profile, state.params["h"], own, i == 0), below, i == 0) < 1e-3
        distances = np.linalg.norm(own[:, None] - own[None], axis=-1)[np.triu_indices(CLASSES, 1)]
        assert distances.min() > 0.3


@pytest.mark.parametrize(("profile", "middle", "amplitude"), [("neco", 0.5, 0.3), ("iclr_head", 0.0, 0.6)])
def test_fixed_codes_are_rows_of_a_hadamard_matrix(profile: str, middle: float, amplitude: float, x64: None) -> None:
    _, states = made(profile=profile, depth=1, codes="fixed", code_amplitude=amplitude)
    for state in states:
        np.testing.assert_allclose(
            state.params["g"]["codes"], middle + amplitude * np.asarray(hadamard(CLASSES, WIDTH)), rtol=0, atol=1e-12
        )


def test_hadamard_corners() -> None:
    for count, width in [(2, 2), (3, 5), (10, 10), (10, 48), (100, 100)]:
        rows = np.asarray(hadamard(count, width), float)
        assert rows.shape == (count, width) and set(np.unique(rows)) <= {-1.0, 1.0}
        assert np.linalg.matrix_rank(rows) == count
    rows = np.asarray(hadamard(10, 48), float)
    np.testing.assert_array_equal(rows @ rows.T, 48 * np.eye(10))


def test_codes_come_from_the_key_alone(x64: None) -> None:
    model = build(depth=1, codes="first", code_steps=20)
    first = init(model, KEY)
    assert equal(first, init(model, KEY))
    assert not equal([s.params["g"] for s in first], [s.params["g"] for s in init(model, jax.random.key(1))])
    fewer = init(build(depth=1, codes="first", code_steps=10), KEY)
    assert not equal([s.params["g"] for s in first], [s.params["g"] for s in fewer])


def test_all_but_the_target_side_is_drawn_as_published(x64: None) -> None:
    _, published = made(profile="neco", depth=1)
    for options in ({}, {"codes_learn_on": True}):
        _, states = made(profile="neco", depth=1, codes="fixed", code_amplitude=0.3, **options)
        for ours, theirs in zip(states, published, strict=True):
            assert equal([ours.params[group] for group in "fb"], [theirs.params[group] for group in "fb"])


def test_an_optimizer_that_remembers_its_parameters_begins_with_the_made_ones(
    x64: None, random_states: Callable
) -> None:
    tx = optax.contrib.schedule_free(optax.sgd(0.1), 0.1)
    model = build(depth=1, tx=tx, target_rate=1.0, codes="fixed", codes_learn_on=True)
    (state,) = completed(model, KEY, random_states(model))
    (own,) = state.opt_state.values()
    assert equal(own.z, state.params)


# --- what a step of frozen codes is -------------------------------------------------------------------------------


def test_a_look_up_is_the_published_step_without_the_target_side(x64: None) -> None:
    """Losses, gradients and features of f and b are those of the published form with the same codes, at every block."""
    whole, frozen = build(codes="fixed", codes_learn_on=True), build(codes="fixed")
    states = init(whole, KEY)
    codes = codes_of("neco", states, False)[1:]
    tabled = tuple(
        state._replace(params={**state.params, "g": {"codes": jnp.asarray(own)}}, opt_state=())
        for state, own in zip(states, codes, strict=True)
    )
    x, y = examples()
    ours, theirs = frozen.enter(x, y), whole.enter(x, y)
    assert set(ours) == {"s", "y"} and ours["y"].shape == (BATCH,)
    for i, (state, table) in enumerate(zip(states, tabled, strict=True)):
        step, published = (
            jax.jit(model.blocks[i].forward)(own, message, KEY)
            for model, own, message in ((frozen, table, ours), (whole, state, theirs))
        )
        assert set(step.grads) == {"f", "b"} and set(step.metrics) == {"loss", "association"}
        np.testing.assert_allclose(step.metrics["loss"], published.metrics["association"], rtol=0, atol=1e-12)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12),
            step.grads,
            {group: published.grads[group] for group in "fb"},
        )
        ours, theirs = step.message, published.message
    for exit in whole.exits:
        np.testing.assert_array_equal(frozen.predict(tabled, x, exit), whole.predict(states, x, exit))


@cache
def frozen(kind: str) -> tuple[Model, Engine]:
    """Two blocks with two optimizers."""
    model = build(codes=kind, code_steps=20, tx={"f+b": optax.sgd(1e-2, 0.9), "g+h": optax.sgd(1e-2, 0.9)})
    return model, sequential(model)


# A step looks codes up in the same way, whatever made them.
@pytest.mark.parametrize("kind", [pytest.param("first", marks=pytest.mark.full), "fixed"])
def test_frozen_codes_stand_still(
    kind: str, x64: None, as_batches: Callable[..., Batches], random_states: Callable
) -> None:
    model, engine = frozen(kind)
    start = random_states(model)
    assert [sorted(state.opt_state) for state in start] == [["f+b"]] * 2
    x, y = examples()
    state, metrics = engine.run(engine.load(start, KEY), as_batches(np.stack([x, x]), np.stack([y, y])))
    metrics.check()
    for before, after in zip(start, engine.states(state), strict=True):
        for group in "fbgh":
            assert equal(before.params[group], after.params[group]) == (group in "gh")


def test_a_label_out_of_range_is_not_learnt(
    x64: None, as_batches: Callable[..., Batches], random_states: Callable
) -> None:
    model, engine = frozen("fixed")
    start = random_states(model)
    x, y = examples()
    _, metrics = engine.run(engine.load(start, KEY), as_batches(np.stack([x, x]), np.stack([y.at[0].set(CLASSES), y])))
    with pytest.raises(ArithmeticError, match=r"the loss of block 1 is not finite on batch 0"):
        metrics.check()


def test_what_frozen_codes_save(x64: None) -> None:
    """Fewer FLOPs and bytes of state, and a label in place of a code on the way up."""
    books = []
    for options in ({}, {"codes": "first"}):
        model = build(**options)
        plan = make_plan(model, 2)
        books.append(ledger(model, specs(model)[0], plan, 10))
    published, frozen = books
    for ours, theirs in zip(frozen.blocks, published.blocks, strict=True):
        assert ours.effective == theirs.effective
        assert ours.flops < theirs.flops
        assert theirs.message - ours.message == BATCH * (8 * WIDTH - 4)
    # the table of the codes in place of g: (3, 4) against 3 * 4 + 4 or 4 * 4 + 4
    assert [
        theirs.affiliated - ours.affiliated for ours, theirs in zip(frozen.blocks, published.blocks, strict=True)
    ] == [4, 8]


# --- engines, trials, growth --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"codes": "first"},
        pytest.param({"codes": "fixed", "codes_learn_on": True}, marks=pytest.mark.full),
        pytest.param({"codes": "first", "codes_learn_on": True, "profile": "iclr"}, marks=pytest.mark.full),
        pytest.param({"codes": "fixed", "profile": "iclr_head"}, marks=pytest.mark.full),
    ],
    ids=str,
)
def test_the_pipeline_agrees_and_no_gradient_crosses(
    options: dict[str, Any], x64: None, random_states: Callable
) -> None:
    model = build(depth=2, code_steps=20, **options)
    states = random_states(model)
    check_isolation(model, states=states)
    assert check_engines(model, stages=2, states=states) < 1e-12


@pytest.mark.full
def test_the_pipeline_agrees_on_images(x64: None) -> None:
    spec = jax.ShapeDtypeStruct((BATCH, 6, 6, 1), jnp.float64)
    network = cnn((4, 6, 6), norm=True, dropout=0.1)
    model = al(network, spec, CLASSES, tx=optax.adam(1e-2), target_width=WIDTH, pool=16, codes="first", code_steps=20)
    assert check_engines(model, stages=3) < 1e-12
    assert check_engines(model, stages=2, data_parallel=2) < 1e-12


def test_trials_are_made_as_each_alone() -> None:
    """To the bit, in float32."""
    model = build(depth=1, dtype=jnp.float32, codes="first", code_steps=30)
    together = init(trials(model, 2), trial_keys(5, 2))
    for r in range(2):
        assert equal(jax.tree.map(lambda leaf, r=r: leaf[r], together), init(model, trial_keys(5 + r, None)))


@pytest.mark.parametrize("learn_on", [False, True], ids=["frozen", "learning"])
def test_levels_that_are_made_stay_as_they_are(learn_on: bool, x64: None) -> None:
    """A grown network keeps the levels of the shorter one, and those above learn from the codes of these."""
    options = {"codes": "first", "codes_learn_on": learn_on, "target_width": 16}
    short, long = build(depth=1, **options), build(depth=2, **options)
    trained, key = init(short, KEY), jax.random.key(7)
    grown = completed(long, key, graft(drawn(long, key), trained))
    assert equal([state.params for state in grown[:1]], [state.params for state in trained])
    assert equal(grown[1].params["f"], drawn(long, key)[1].params["f"])
    *_, below, own = codes_of("neco", grown, not learn_on)
    assert excess("neco", decoded("neco", grown[1].params["h"], own, False), below, False) < 1e-3
    assert equal(completed(long, key, grown), grown)


def test_a_token_has_a_code(x64: None) -> None:
    spec = jax.ShapeDtypeStruct((2, 3, FEATURES), jnp.float64)
    model = al([from_linen(nn.Dense(6))], spec, tokens(CLASSES), tx=optax.sgd(0.1), target_width=WIDTH, codes="fixed")
    states = init(model, KEY)
    x, y = jnp.ones(spec.shape), jnp.asarray([[0, 1, 2], [2, 1, 0]], jnp.int32)
    found = jax.jit(model.blocks[0].forward)(states[0], model.enter(x, y), KEY)
    assert np.isfinite(found.metrics["loss"]) and found.message["y"].shape == (2, 3)
    assert model.predict(states, x).shape == (2, 3, CLASSES)


@pytest.mark.full
def test_sixteen_blocks_learn_where_learned_codes_are_at_chance(as_batches: Callable[..., Batches]) -> None:
    """Clouds of four classes, 150 batches; with codes made before every exit is right."""
    rng, classes = np.random.default_rng(0), 4
    centres = rng.normal(size=(classes, FEATURES))
    y = rng.integers(0, classes, (151, 16)).astype(np.int32)
    x = (centres[y] + 0.1 * rng.normal(size=(*y.shape, FEATURES))).astype(np.float32)
    spec = jax.ShapeDtypeStruct(x.shape[1:], jnp.float32)
    right = {}
    for kind in ("learned", *KINDS):
        model = al(mlp((16,) * 16), spec, classes, tx=optax.adam(3e-3), target_width=16, bridge=(), codes=kind)
        engine = sequential(model)
        state, metrics = engine.run(engine.load(init(model, KEY), KEY), as_batches(x[:150], y[:150]))
        metrics.check()
        states = engine.states(state)
        scores = [model.predict(states, jnp.asarray(x[150]), exit) for exit in (1, 8, 16)]
        right[kind] = [float(np.mean(np.argmax(each, axis=1) == y[150])) for each in scores]
    assert min(right["first"] + right["fixed"]) > 0.9, right
    assert max(right["learned"][1:]) < 0.6, right


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codes": "last"}, "unknown codes 'last' of method 'al'; there are learned, first, fixed"),
        ({"codes_learn_on": True}, "codes_learn_on is for codes='first' or 'fixed': with 'learned' they always learn"),
        ({"code_amplitude": 0.1}, "code_amplitude is for codes='fixed'; got 0.1 with codes='learned'"),
        ({"codes": "first", "code_amplitude": 0.1}, "code_amplitude is for codes='fixed'; got 0.1 with codes='first'"),
        ({"codes": "fixed", "code_amplitude": 0.5}, "code_amplitude is above 0 and below 0.5, .* sigmoid; got 0.5"),
        ({"codes": "fixed", "code_amplitude": -0.1}, "code_amplitude is above 0 and below 0.5, .* got -0.1"),
        ({"codes": "fixed", "code_amplitude": 1.0, "profile": "iclr"}, "below 1.0, .* tanh; got 1.0"),
        ({"codes": "fixed", "code_amplitude": float("nan")}, "code_amplitude .* got nan"),
        ({"codes": "fixed", "target_width": 2}, "needs a target_width of at least the number of classes, 3, .* got 2"),
        ({"codes": "first", "code_bound": 0.0}, "code_bound must be above 0 and below 1; got 0.0"),
        ({"codes": "first", "code_bound": float("nan")}, "code_bound must be above 0 and below 1; got nan"),
        ({"codes": "first", "code_steps": 0}, "code_steps must be at least 1; got 0"),
        ({"codes": "first", "stops": False}, "stops=False is a form of codes='learned'.* got 'first'"),
        (
            {"codes": "first", "classes": regression(2)},
            "codes='first' makes one code for each class .* regression has none",
        ),
        (
            {"codes": "fixed", "classes": multilabel(3)},
            "codes='fixed' makes one code for each class .* multilabel has none",
        ),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)
