"""What is not finite is seen at once, named, and never kept; batches that do not fit the model are refused."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import localgrad as lg
from localgrad.base import EARLIER, GRADIENT, LEARNT, LOSS, PARAMETERS, DivergedError
from localgrad.methods import METHODS
from localgrad.pipeline.finite import some_of

B, D, C, K = 8, 12, 4, 6
RNG = np.random.default_rng(0)
XS = RNG.normal(size=(K, B, D)).astype(np.float32)
YS = RNG.integers(0, C, (K, B)).astype(np.int32)
SPEC = jax.ShapeDtypeStruct((B, D), jnp.float32)
# Every schedule, and the plain program of one that data shards share.
ENGINES = {
    "sequential": lg.sequential,
    "pipeline": lambda model: lg.spmd(model, stages=2, bubble=float("nan")),
    "shards": lambda model: lg.spmd(model, stages=1, data_parallel=2),
    "programs": lambda model: lg.mpmd(model, stages=2),
}
RULES = ("early_exit", "al", "scl", "dfa", "bp")  # local losses, the error at the output, the gradient from above


SMALL = {"al": {"target_width": 5, "bridge": ()}}
WIDTHS = {"dfa": (6,)}  # whose output is a block of its own


@cache  # what is compiled and traced of a model serves all tests
def make(rule: str = "early_exit", tx: optax.GradientTransformation | None = None, **options) -> lg.Model:
    """A model of two blocks."""
    network = lg.mlp(widths=WIDTHS.get(rule, (6, 5)), **options)
    return METHODS[rule].make(network, SPEC, C, tx=tx or optax.adam(1e-2), **SMALL.get(rule, {}))


@cache
def engine_of(engine: str, rule: str = "early_exit", **options) -> lg.Engine:
    return ENGINES[engine](make(rule, **options))


def train(engine: lg.Engine, begin, xs=XS, ys=YS, key: int = 1, calls: int = 1):
    """The states before and after, and the metrics of all calls, those of batches that were in flight too."""
    state = engine.load(begin, jax.random.key(key))
    found = []
    for part in zip(np.split(xs, calls), np.split(ys, calls), strict=True):
        fed = lg.data.batches(np.zeros_like(part[0]), np.zeros_like(part[1]))  # which looks at labels itself
        fed = fed._replace(items=tuple(map(jnp.asarray, part)))
        state, metrics = engine.run(state, fed)
        found.append(metrics)
    states, rest = engine.drain(state, fed)  # by the program of the calls: another need not be compiled
    return begin, states, [*found, rest]


def first_stop(metrics) -> tuple[int, int]:
    """The batch and the block of the error that `check` raises."""
    for call in metrics:
        try:
            call.check()
        except DivergedError as error:
            return error.batch, error.block
    return -1, -1


def is_finite(tree) -> bool:
    return all(np.isfinite(x).all() for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact))


# One of each kind of rule and of engine; the others are run with the full suite.
QUICK = {
    ("sequential", "early_exit"), ("pipeline", "al"), ("pipeline", "bp"), ("programs", "al"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("engine", "rule"),
    [pytest.param(e, r, marks=[] if (e, r) in QUICK else pytest.mark.full) for e in ENGINES for r in RULES],
)
def test_what_is_no_number_or_no_label_stops_learning_there(rule, engine, random_states):
    """A pixel of NaN, and labels on both sides of the range; one compiled program serves all."""
    begin = random_states(make(rule, norm=True))
    trains = engine_of(engine, rule, norm=True)
    for batch, pixel, label in ((3, np.nan, 0), (2, 0.0, -1), (5, 0.0, C)):
        xs, ys = XS.copy(), YS.copy()
        xs[batch, 0, 0] = pixel
        ys[batch, 5] = label
        _, states, metrics = train(trains, begin, xs, ys, calls=2)
        assert is_finite(states)
        assert first_stop(metrics)[0] == batch


@cache
def nan_gradient(at: float) -> lg.Model:
    """Block 2's loss is finite and its gradient is not, on batches whose inputs are large."""
    model = make()
    block = model.blocks[1]

    def forward(state, message, key):
        found = block.forward(state, message, key)
        broken = jnp.where(
            jnp.max(state.params["head"]["Dense_0"]["bias"]) * 0 + jnp.max(message["x"]) > at, jnp.nan, 0.0
        )
        return found._replace(grads=jax.tree.map(lambda x: x + broken, found.grads))

    return model._replace(blocks=(model.blocks[0], block._replace(forward=forward), *model.blocks[2:]))


@pytest.mark.parametrize("engine", ["sequential", "pipeline"])
def test_a_gradient_that_is_no_number_under_a_finite_loss(engine, random_states):
    model, xs = nan_gradient(at=1e3), XS.copy()
    xs[4] = 1e6
    _, states, metrics = train(ENGINES[engine](model), random_states(model), xs)
    assert is_finite(states)
    assert first_stop(metrics) == (4, 1)
    stopped = {
        int(b): int(s) for call in metrics for b, s in zip(call.batch_id[1], call.stopped[1], strict=True) if b >= 0
    }
    assert stopped == {0: LEARNT, 1: LEARNT, 2: LEARNT, 3: LEARNT, 4: GRADIENT, 5: EARLIER}
    assert all(np.isfinite(call.values[1]["loss"]).all() for call in metrics if call.values[1])


@pytest.mark.parametrize(
    ("engine", "rule"),
    [("sequential", "bp"), pytest.param("pipeline", "early_exit", marks=pytest.mark.full), ("pipeline", "dfa")],
)
def test_a_rate_that_is_no_number_is_not_taken(rule, engine, random_states):
    """The schedule is NaN on the third batch: the state is that after two."""
    rate = lambda count: jnp.where(count == 2, jnp.nan, 0.1)
    model = make(rule, optax.sgd(rate))
    make_engine = ENGINES[engine] if rule != "dfa" else lambda m: lg.spmd(m, stages=2, staleness="locked")
    _, states, metrics = train(make_engine(model), random_states(model))
    plain = make(rule, optax.sgd(0.1))
    _, expected, _ = train(lg.sequential(plain), random_states(plain), XS[:2], YS[:2])
    found = jax.tree.map(lambda x, y: np.abs(x - y).max(), [s.params for s in states], [s.params for s in expected])
    assert max(jax.tree.leaves(found)) < 1e-6
    assert first_stop(metrics)[0] == 2
    assert any((np.asarray(stopped) == PARAMETERS).any() for call in metrics for stopped in call.stopped)


@pytest.mark.parametrize("engine", ["sequential", pytest.param("pipeline", marks=pytest.mark.full)])
def test_a_single_parameter_that_overflows_is_seen_at_the_end_of_the_call(engine, random_states):
    """Adam without epsilon divides zero by zero where a gradient is zero: here for an input that is always zero."""
    xs = XS.copy()
    xs[:, :, -1] = 0
    model = METHODS["early_exit"].make(lg.mlp(widths=(64, 5)), SPEC, C, tx=optax.adam(1e-3, eps=0.0))
    _, _, metrics = train(ENGINES[engine](model), random_states(model), xs[:1], YS[:1])
    assert first_stop(metrics) == (0, 0)


@pytest.mark.parametrize("rule", ["early_exit", pytest.param("dfa", marks=pytest.mark.full), "bp"])
def test_a_gradient_whose_square_overflows_is_not_taken(rule, random_states):
    xs = XS.copy()
    xs[2] *= 1e25
    model = make(rule, activation="relu")
    _, states, metrics = train(lg.sequential(model), random_states(model), xs)
    assert is_finite(states) and first_stop(metrics)[0] == 2


@pytest.mark.parametrize("shape", [(), (1,), (40,), (3, 40), (40, 3), (2, 3, 5), (0,), (0, 3), (3, 0), (2, 0, 4)])
def test_some_of_an_array_of_any_shape_is_its_first_elements(shape):
    array = jnp.arange(float(np.prod(shape))).reshape(shape)
    found = some_of(array)
    np.testing.assert_array_equal(found, np.arange(len(found)))
    assert (len(found) > 0) == (array.size > 0) and len(found) <= 16


def test_metrics_of_a_sound_run_raise_nothing(random_states):
    _, _, metrics = train(engine_of("sequential", dropout=0.5), random_states(make(dropout=0.5)))
    assert first_stop(metrics) == (-1, -1)


def test_the_error_names_what_block_and_batch(random_states):
    model, xs = make(dropout=0.5), XS.copy()
    xs[1] = np.inf
    _, _, (metrics, _) = train(engine_of("sequential", dropout=0.5), random_states(model), xs)
    with pytest.raises(lg.DivergedError, match=r"the loss of block 1 \(dense6\) is not finite on batch 1"):
        metrics.check([block.name for block in model.blocks])
    assert int(metrics.stopped[0][1]) == LOSS


# --- numbers of batches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "rule"),
    [
        ("sequential", "early_exit"),
        *(
            pytest.param(*row, marks=pytest.mark.full)
            for row in (
                ("pipeline", "dfa"),
                ("sequential", "dfa"),
                ("pipeline", "early_exit"),
                ("pipeline", "bp"),
                ("shards", "early_exit"),
                ("programs", "dfa"),
            )
        ),
    ],
)
def test_batches_without_numbers_are_counted(rule, engine, random_states):
    """Two calls draw the dropout of one call of the same batches; the batches that a call brings numbers for go on."""
    trains, begin = engine_of(engine, rule, dropout=0.5), random_states(make(rule, dropout=0.5))
    _, once, _ = train(trains, begin)
    _, twice, metrics = train(trains, begin, calls=3)
    jax.tree.map(np.testing.assert_array_equal, once, twice)
    ids = np.concatenate([call.batch_id[0] for call in metrics])
    assert ids[ids >= 0].tolist() == list(range(K))


def test_an_engine_counts_on_from_where_it_is_told(random_states):
    engine, begin = engine_of("sequential", dropout=0.5), random_states(make(dropout=0.5))
    fed = lambda **first: lg.data.batches(jnp.asarray(XS[:2]), jnp.asarray(YS[:2]), **first)
    found = []
    for state, batches in (
        (engine.load(begin, jax.random.key(1)), fed(first=7)),
        (engine.load(begin, jax.random.key(1), first=7), fed()),
    ):
        state, metrics = engine.run(state, batches)
        assert metrics.batch_id[0].tolist() == [7, 8] and int(state.next_id) == 9
        found.append(engine.states(state))
    jax.tree.map(np.testing.assert_array_equal, *found)


# --- batches that do not fit -----------------------------------------------------------------------------------------

WRONG = {
    "larger": (np.zeros((1, 2 * B, D), np.float32), np.zeros((1, 2 * B), np.int32), "batches of 16 examples"),
    "smaller": (np.zeros((1, B // 2, D), np.float32), np.zeros((1, B // 2), np.int32), "batches of 4 examples"),
    "shape": (np.zeros((1, B, D + 1), np.float32), np.zeros((1, B), np.int32), r"inputs is float32\[8, 13\]"),
    "rank": (np.zeros((1, B, 3, 4), np.float32), np.zeros((1, B), np.int32), r"inputs is float32\[8, 3, 4\]"),
    "whole numbers": (np.zeros((1, B, D), np.int32), np.zeros((1, B), np.int32), r"inputs is int32\[8, 12\]"),
    "half": (np.zeros((1, B, D), np.float16), np.zeros((1, B), np.int32), r"inputs is float16\[8, 12\]"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("engine", ["sequential", "pipeline"])
def test_batches_of_another_kind_are_refused(wrong, engine, random_states):
    xs, ys, says = WRONG[wrong]
    run = engine_of(engine, dropout=0.5)
    state = run.load(random_states(make(dropout=0.5)), jax.random.key(1))
    with pytest.raises(ValueError, match=says):
        run.run(state, lg.data.batches(jnp.asarray(xs), jnp.asarray(ys)))


def test_anything_but_batches_is_refused(random_states):
    engine = engine_of("sequential", dropout=0.5)
    state = engine.load(random_states(make(dropout=0.5)), jax.random.key(1))
    with pytest.raises(TypeError, match="run takes Batches"):
        engine.run(state, (jnp.asarray(XS), jnp.asarray(YS)))


# --- optimizers that want the loss -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "rule"),
    [
        ("sequential", "bp"),
        ("pipeline", "early_exit"),
        *(pytest.param(engine, "dfa", marks=pytest.mark.full) for engine in ("pipeline", "shards")),
    ],
)
def test_a_transform_is_given_the_loss(rule, engine):
    """`reduce_on_plateau` counts the losses that were no better; it does the same on every engine."""
    tx = optax.chain(optax.sgd(0.0), optax.contrib.reduce_on_plateau(patience=2, factor=0.5))
    model = make(rule, tx)
    xs, ys = np.repeat(XS[:1], K, axis=0), np.repeat(YS[:1], K, axis=0)
    make_engine = ENGINES[engine] if rule != "dfa" else lambda m: lg.spmd(m, stages=2, staleness="locked")
    _, states, _ = train(make_engine(model), lg.init(model, jax.random.key(0)), xs, ys)
    for state in states:
        assert float(optax.tree.get(state.opt_state, "scale")) == 0.25  # the loss never falls: halved every two batches


POLYAK, MOMO, ADAM = optax.polyak_sgd(), optax.contrib.momo(1e-2), optax.adam(1e-2)


# `momo` wants the loss as `polyak_sgd` does, and keeps numbers as `adam` does.
@pytest.mark.parametrize(
    ("tx", "other"),
    [(POLYAK, ADAM), *(pytest.param(tx, tx, marks=pytest.mark.full) for tx in (POLYAK, MOMO, ADAM))],
)
def test_transforms_with_and_without_the_loss_serve_trials_and_groups(tx, other):
    model = lg.al(lg.mlp(widths=(6,)), SPEC, C, tx={"f+b": tx, "g+h": other}, **SMALL["al"])
    both = lg.trials(model, 2)
    engine = lg.sequential(both)
    state = engine.load(lg.init(both, jax.random.split(jax.random.key(0), 2)), jax.random.split(jax.random.key(1), 2))
    xs, ys = (jnp.repeat(jnp.asarray(a)[:, None], 2, axis=1) for a in (XS, YS))
    state, metrics = engine.run(state, lg.data.batches(xs, ys))
    metrics.check()
