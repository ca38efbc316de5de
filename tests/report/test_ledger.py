"""The ledger counts every parameter once, and predicts what its formula says."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad import al, critic, dfa, dni, format_ledger, ledger, mlp, spmd, trials
from localgrad.pipeline import make_plan, schedules, specs


@cache
def model():
    """One for all tests: the library looks at it once."""
    spec = jax.ShapeDtypeStruct((8, 6), jnp.float32)
    return al(mlp((10, 7, 5)), spec, 3, tx=optax.adam(1e-3), target_width=4, bridge=())


def test_parameters_are_effective_or_affiliated():
    built = model()
    book = ledger(built, specs(built)[0], make_plan(built), 100)
    counted = [row.effective + row.affiliated for row in book.blocks]
    held = [sum(int(np.prod(x.shape)) for x in jax.tree.leaves(state.params)) for state in specs(built)[0]]
    assert counted == held
    # f: 6*10+10, h: 4*3+3 of the first block; b: 10*4+4 and g: 3*4+4 serve training only
    assert book.blocks[0][1:3] == (70 + 15, 44 + 16)
    # the last block's bridge is used in prediction: f 7*5+5, h 4*4+4, b 5*4+4
    assert book.blocks[2][1:3] == (40 + 20 + 24, 20)


def test_speed_up_is_that_of_the_cost_model():
    built = model()
    plan = make_plan(built, 2)._replace(costs=(3.0, 2.0, 1.0), cuts=(0, 1, 3))
    book = ledger(built, specs(built)[0], plan, 9)
    assert book.speed_up == 6 / 3 * 9 / 10
    assert book.bubble == 1 / 10
    assert [row.cost for row in book.stages] == [0.5, 0.5]
    assert max(row.waste for row in book.stages) < 1
    text = format_ledger(book)
    assert "predicted speed-up 1.80 on 2 equal devices" in text
    assert "2-3" in text


@pytest.mark.parametrize(
    ("schedule", "bubble"),
    [
        (schedules.local(2), 1 / 10),
        (schedules.relay(2), 2 / 11),
        (schedules.relay(2, "locked"), 1 / 2),
        (schedules.broadcast(2), 2 / 11),
        (schedules.broadcast(2, "locked"), 1 / 4),
        (schedules.chain(2, 4), 1 / 5),
        (schedules.streamed_chain(2), 2 / 11),
    ],
)
def test_the_bubble_of_each_schedule(schedule, bubble):
    built = model()
    plan = make_plan(built, 2)._replace(schedule=schedule)
    book = ledger(built, specs(built)[0], plan, 9)
    np.testing.assert_allclose(book.bubble, bubble)
    np.testing.assert_allclose(book.speed_up, sum(plan.costs) / max(plan.stage_costs) * (1 - bubble))


def test_what_is_kept_between_the_halves_is_shown():
    built = dfa(mlp((10, 7)), jax.ShapeDtypeStruct((8, 6), jnp.float32), 3, tx=optax.sgd(0.1))
    plan = spmd(built, stages=2).plan
    book = ledger(built, specs(built)[0], plan, 9)
    for row, used in zip(book.stages, plan.stash_bytes, strict=True):
        assert row.stash == used > 0
        assert row.stash_waste == 1 - used / plan.stash_slot_bytes
    assert "stash KiB" in format_ledger(book)
    assert "stash" not in format_ledger(ledger(built, specs(built)[0], make_plan(built), 9))


def test_what_comes_down_is_shown_where_anything_does():
    """Synthetic gradients wait for as much as they hand on, critics for a number an example, others for nothing."""
    network, spec = mlp((512, 256, 5)), jax.ShapeDtypeStruct((8, 6), jnp.float32)
    for make, expected in ((dni, [8 * 512 * 4, 8 * 256 * 4, 0]), (critic, [8 * 4, 8 * 4, 0])):
        built = make(network, spec, 3, tx=optax.sgd(0.1))
        book = ledger(built, specs(built)[0], make_plan(built), 9)
        assert [row.signal for row in book.blocks] == expected
        assert "waits for KiB" in format_ledger(book)
    assert "waits for" not in format_ledger(ledger(model(), specs(model())[0], make_plan(model()), 9))


def test_parameters_are_those_of_one_trial():
    alone, three = model(), trials(model(), 3)
    books = [ledger(m, specs(m)[0], make_plan(m), 10) for m in (alone, three)]
    assert books[0].effective == books[1].effective
    assert books[0].affiliated == books[1].affiliated
