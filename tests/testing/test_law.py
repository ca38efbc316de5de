"""Each part of the law fails on a method that breaks it, and names the block and the fault."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad import testing
from localgrad.base import Engine, Model
from localgrad.methods import trials
from localgrad.pipeline import sequential
from localgrad.testing import traces, variants
from tests.pipeline import toys
from tests.testing import strangers

TX = optax.sgd(0.1)


@pytest.fixture(autouse=True)
def _float64(x64: None) -> Iterator[None]:
    yield


def test_an_honest_stranger_keeps_the_law() -> None:
    testing.check_model(strangers.honest(), without=("round_trip", "engines", "bubbles", "trials"))


@pytest.mark.slow
def test_an_honest_stranger_keeps_the_whole_law() -> None:
    testing.check_model(strangers.honest())


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [pytest.param(lambda: toys.dni(TX, (4, 3), 4, 3), marks=pytest.mark.full), lambda: toys.targets(TX, (4,), 4, 3)],
)
def test_blocks_that_wait_keep_it(make) -> None:
    testing.check_model(make(), without=("round_trip", "trials"))


def test_one_model_after_another_is_each_compiled_once() -> None:
    """Chex counts by the text of a function, which is the same for every model: the count begins again for each."""
    for _ in range(2):
        testing.check_traces(strangers.honest())


# --- what the issue asks for: four strangers ------------------------------------------------------------------------


def test_a_leak_is_caught_and_both_blocks_are_named() -> None:
    with pytest.raises(
        AssertionError, match=r"loss of block 2 \('curious'\) has the derivative .* block 1 \('careless'\)"
    ):
        testing.check_isolation(strangers.leaking())
    with pytest.raises(AssertionError, match="a gradient crosses. Detach the message"):
        testing.check_model(strangers.leaking())


@pytest.mark.parametrize(("make", "name"), [(strangers.counting, "counter"), (strangers.drawing_by_numpy, "numpy")])
def test_a_hidden_counter_or_draw_is_caught_and_named(make, name: str) -> None:
    with pytest.raises(AssertionError, match=rf"block 2 \('{name}'\), `forward` is another program .*became"):
        testing.check_traces(make())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (strangers.compiling_twice, r"block 2 \('weak'\): model_state\['seen'\] is weakly typed"),
        (strangers.narrowing, r"block 1 \('narrow'\), model_state: \['seen'\] was float64\[\] and became float32\[\]"),
    ],
)
def test_a_second_compilation_is_caught_and_named(make, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_traces(make())


def test_the_engine_itself_is_looked_at_for_a_second_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    model = strangers.honest()
    engine = sequential(model)
    narrow = lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x

    @jax.jit
    def run(state: Any, fed: Any) -> Any:
        return state._replace(blocks=(state.blocks[0], jax.tree.map(narrow, state.blocks[1]))), None

    monkeypatch.setattr(traces, "sequential", lambda model: engine._replace(run=run))
    with pytest.raises(AssertionError, match=r"block 2 \('upper'\): params\['f'\] was float64.* became float32.*twice"):
        testing.check_traces(model)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            strangers.own_key,
            r"block 2 \('stubborn'\), `forward`: random numbers are drawn at .*strangers.py.* another key",
        ),
        (strangers.shared_key, r"block 1 \('gossip'\), `forward`: random numbers are drawn at .* another key"),
        (strangers.spent_key, r"block 1 \('spent'\), `forward` draws .* the same with the keys of two batches"),
        (
            strangers.key_as_number,
            r"block 2 \('miser'\), `forward` draws nothing, and with the keys of two batches: .*differs by",
        ),
    ],
)
def test_a_key_from_the_wrong_place_is_caught_and_named(make, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_keys(make())


# --- the other parts --------------------------------------------------------------------------------------------------


def test_what_changes_with_jit_is_caught() -> None:
    with pytest.raises(
        AssertionError, match=r"block 1 \('tracer'\), with jit against without: params\['f'\] differs by"
    ):
        testing.check_variants(strangers.looking_at_jit())


def test_what_reports_otherwise_with_jit_is_caught() -> None:
    where = r"block 2 \('reporter'\), with jit against without, metrics of batch 0: .*'loss'.* differs by"
    with pytest.raises(AssertionError, match=where):
        testing.check_variants(strangers.reporting_by_jit())


def test_what_draws_on_the_host_is_caught() -> None:
    with pytest.raises(AssertionError, match=r"block 1 \('host'\), trained twice: params\['[a-z]+'\] differs by"):
        testing.check_variants(strangers.drawing_on_the_host())


def test_what_is_not_finite_is_caught() -> None:
    bad = strangers.block("logarithm", moved=lambda x: jnp.log(x - 1.0))
    with pytest.raises(AssertionError, match=r"block 2 \('logarithm'\): .*is not finite on batch 0"):
        testing.check_variants(strangers.model(strangers.block("plain"), bad))


@pytest.mark.slow
def test_a_pipeline_of_other_numbers_is_caught() -> None:
    with pytest.raises(AssertionError, match=r"block 1 \('counts examples'\), on the schedule 'local'.* differs by"):
        testing.check_engines(strangers.of_one_batch_size(), data_parallel=2)


def test_a_bubble_that_leaves_a_trace_is_caught() -> None:
    model = strangers.honest()

    def make(bubble: float) -> Engine:
        engine = sequential(model)
        spoilt = lambda states: (
            *states[:1],
            states[1]._replace(params={**states[1].params, "f": bubble + states[1].params["f"]}),
        )
        drain = lambda state, compiled_for=None: (spoilt(engine.drain(state)[0]), engine.drain(state)[1])
        return engine._replace(drain=drain)

    with pytest.raises(AssertionError, match=r"block 2 \('upper'\), with bubbles of NaN: params\['f'\] is not finite"):
        testing.check_bubbles(model, make=make)


def test_what_a_checkpoint_cannot_hold_is_caught() -> None:
    with pytest.raises(AssertionError, match=r"block 2 \('keeper'\): model_state\['seen'\] is key<fry>\[\], which"):
        testing.check_round_trip(strangers.unfinished())


@pytest.mark.slow
def test_trials_that_share_something_are_caught() -> None:
    with pytest.raises(AssertionError, match=r"block 2 \('counter'\), as trial 1 of 2 against alone"):
        testing.check_trials(strangers.counting())


@pytest.mark.slow
def test_trials_that_report_something_shared_are_caught() -> None:
    where = r"block 2 \('turns'\), as trial 1 of 2 against alone, metrics of batch 0: .*differs by"
    with pytest.raises(AssertionError, match=where):
        testing.check_trials(strangers.reporting_by_turns())


@pytest.mark.slow
def test_trials_that_predict_as_one_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = strangers.honest()._replace(predict=lambda states, x, exit=None: x @ states[0].params["f"])

    def as_one(model: Model, count: int) -> Model:
        many = trials(model, count)
        return many._replace(predict=lambda states, x: many.predict(states, x)[:1].repeat(count, 0))

    monkeypatch.setattr(variants, "trials", as_one)
    with pytest.raises(AssertionError, match="what is predicted as trial 2 of 2 against alone: .*differs by"):
        testing.check_trials(model)


def test_unknown_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown part 'engine'; there are task, traces"):
        testing.check_model(strangers.honest(), without=("engine",))


def test_random_batches_are_of_the_models_shapes() -> None:
    xs, ys = testing.random_batches(strangers.honest(), 3).items
    assert xs.shape == (3, 4, 3) and ys.shape == (3, 4) and set(np.unique(ys)) <= {0, 1, 2}
    assert isinstance(xs, jax.Array)
