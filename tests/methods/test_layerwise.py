"""Sequential greedy learning: one block after another, each frozen before the next begins."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import localgrad as lg
from localgrad import testing, training
from localgrad.base import Batches, BlockState, Model
from localgrad.blocks import mlp
from localgrad.pipeline import init, sequential
from localgrad.pipeline.coupling import couples
from localgrad.report import largest_difference
from localgrad.training.workdir import read_records

SPEC = jax.ShapeDtypeStruct((6, 5), jnp.float64)
TURN = 3
RATES = optax.cosine_decay_schedule(0.3, 6)  # of each block's own turn


def build(widths: tuple[int, ...] = (7, 6, 4)) -> Model:
    network = mlp(widths, norm=True, dropout=0.2)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(RATES, momentum=0.9))
    return lg.early_exit(network, SPEC, 3, tx=tx)


def fed(as_batches: Callable[..., Batches], first: int, count: int) -> Batches:
    rng = np.random.default_rng(0)
    xs, ys = rng.normal(size=(30, *SPEC.shape)), rng.integers(0, 3, (30, 6)).astype(np.int32)
    return as_batches(xs[first : first + count], ys[first : first + count], first=first)


def after(model: Model, start: Any, given: Batches) -> tuple[BlockState, ...]:
    engine = sequential(model)
    return engine.states(engine.run(engine.load(tuple(start), jax.random.key(2)), given)[0])


def parts(states: Any) -> list:
    return [(state.params, state.model_state) for state in states]


class Turns(NamedTuple):
    """A training of three blocks, in four calls of one turn each: what was there before and after every call."""

    states: list[tuple[BlockState, ...]]
    losses: list[np.ndarray]


@pytest.fixture(scope="module")
def turns(as_batches: Callable, random_states: Callable) -> Turns:
    with jax.enable_x64(True):
        model = lg.layerwise(build(), TURN)
        engine, start = sequential(model), random_states(model)
        state, found = engine.load(start, jax.random.key(2)), Turns([start], [])
        for turn in range(4):
            state, metrics = engine.run(state, fed(as_batches, turn * TURN, TURN))
            found.states.append(engine.states(state))
            found.losses.append(np.stack([each["loss"] for each in metrics.values]))
        return found


def test_freezing_is_cutting_the_network(
    turns: Turns, x64: None, as_batches: Callable, random_states: Callable
) -> None:
    """Block i learns what it learns, by itself, of a network that ends with it, above the blocks as they were left."""
    start, done = turns.states[0], turns.states[2]
    plain = random_states(build((7, 6)))
    below: list[BlockState] = []
    for i in range(2):
        cut = build((7, 6)[: i + 1])
        cut = lg.freeze(cut, i)
        own = after(cut, [*below, plain[i]], fed(as_batches, i * TURN, TURN))
        below.append(own[i]._replace(opt_state={}))
        assert largest_difference(parts(done[: i + 1]), parts(below)) <= 1e-12, i
        inner = [state.inner_state for state in done[i].opt_state.values()]
        assert largest_difference(inner, list(own[i].opt_state.values())) <= 1e-12, i
        assert largest_difference(done[i].params, start[i].params) > 1e-3


def test_a_block_before_its_turn_does_nothing(turns: Turns) -> None:
    first, second, *_ = turns.losses
    assert largest_difference(parts(turns.states[1][1:]), parts(turns.states[0][1:])) == 0
    assert largest_difference(parts(turns.states[2][2:]), parts(turns.states[0][2:])) == 0
    assert (first[0] > 0).all() and (second[0] > 0).all()
    np.testing.assert_array_equal(first[1:], 0)
    assert second[1][0] > 0
    np.testing.assert_array_equal(second[2], 0)


def test_frozen_blocks_have_no_turn(x64: None, as_batches: Callable, random_states: Callable) -> None:
    plain = lg.early_exit(mlp((4, 4, 4)), SPEC, 3, tx=optax.sgd(0.1))
    model = lg.layerwise(lg.freeze(plain, 1), TURN)
    start = random_states(model)
    done = after(model, start, fed(as_batches, 0, TURN))
    moved = [largest_difference(a.params, b.params) > 0 for a, b in zip(done, start, strict=True)]
    assert moved == [False, True, False]


def test_the_last_block_goes_on(turns: Turns) -> None:
    three, four = turns.states[3:]
    for ended, still in zip(three[:2], four[:2], strict=True):
        assert largest_difference(ended, still._replace(opt_state=ended.opt_state)) == 0
    assert largest_difference(three[2].model_state, four[2].model_state) > 0


@pytest.mark.slow
def test_codes_that_are_made_first_are_made(x64: None) -> None:
    tx = {"f+b": optax.sgd(0.1, 0.9), "g+h": optax.sgd(0.1, 0.9)}
    plain = lg.al(mlp((7, 6)), SPEC, 3, tx=tx, codes="fixed", target_width=4, codes_learn_on=True)
    ours, theirs = (init(model, jax.random.key(0)) for model in (lg.layerwise(plain, 2), plain))
    assert largest_difference(parts(ours), parts(theirs)) == 0
    assert {key: int(one.step) for key, one in ours[0].opt_state.items()} == {"f+b": 0, "g+h": 0}


@pytest.mark.full
def test_the_pipeline_gives_the_same_numbers(x64: None) -> None:
    model = lg.layerwise(build(), 2)
    batches = testing.random_batches(model, 7)
    assert testing.check_engines(model, batches, stages=3, per_call=3) <= 1e-12
    assert testing.check_engines(lg.trials(model, 2), stages=2) <= 1e-12
    plain = lg.layerwise(lg.early_exit(mlp((5, 4)), SPEC, 3, tx=optax.sgd(0.1)), 2)
    assert testing.check_engines(plain, stages=2, data_parallel=2) <= 1e-12


def test_who_tries_a_pass_sees_that_of_the_blocks_turn(x64: None) -> None:
    """So norms of blocks that have not begun are known before any batch is split."""
    network = [*mlp((7,)), *mlp((6,), norm=True)]
    assert couples(lg.layerwise(lg.early_exit(network, SPEC, 3, tx=optax.sgd(0.1)), TURN))
    assert not couples(lg.layerwise(lg.early_exit(mlp((7, 6)), SPEC, 3, tx=optax.sgd(0.1)), TURN))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: lg.layerwise(build(), 0), "a block's turn is at least one batch; got 0"),
        (lambda: lg.layerwise(lg.bp(mlp((4,)), SPEC, 3, tx=optax.sgd(0.1)), 2), "method 'bp' is not so here"),
        (lambda: lg.layerwise(lg.trials(build(), 2), 2), "before they are run in several trials"),
    ],
)
def test_what_is_refused(make: Callable, says: str, x64: None) -> None:
    with pytest.raises(ValueError, match=says):
        make()


NAMES = {"method": "dgl", "net": "mlp", "widths": (8, 6), "limit": 320, "greedy_epochs": 1, "epochs": 2}


@pytest.mark.slow
def test_a_command_trains_one_block_after_another(tmp_path: Any) -> None:
    config = training.Config(**NAMES, workdir=str(tmp_path), schedule="cosine")
    training.run(config, training.prepare_all(config), lambda line: None)
    train = [record for record in read_records(tmp_path / "metrics.jsonl") if record["split"] == "train"]
    assert [[loss > 0 for loss in record["block_loss"]] for record in train] == [[True, False], [True, True]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epochs": 3}, "--greedy_epochs=1 of 2 blocks that learn is a run of --epochs=2; got 3"),
        ({"stop_after": 2}, "--stop_after looks at the last exit, which begins to learn last with --greedy_epochs"),
        ({"greedy_epochs": 0}, "--greedy_epochs must be at least 1; got 0"),
        ({"method": "dfa"}, "method 'dfa' is not so here"),
    ],
)
def test_a_command_that_cannot_be(change: dict, says: str, tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=says):
        training.prepare_all(training.Config(**{**NAMES, **change}, workdir=str(tmp_path)))
