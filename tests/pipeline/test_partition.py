import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

from localgrad.base import Block, Model
from localgrad.blocks import from_linen, mlp
from localgrad.methods import al, early_exit
from localgrad.pipeline import balance, init, make_plan, specs
from localgrad.pipeline.partition import FLOPS_PER_BYTE, block_programs, state_bytes

WIDTH = 64
ADAMS = {"f+b": optax.adam(1e-3), "g+h": optax.adam(2e-3)}


def model_of(network: Sequence[Block], profile: str = "neco", features: int = WIDTH) -> Model:
    """As many classes as the target is wide, so that the first block has the shapes of the others."""
    x_spec = jax.ShapeDtypeStruct((8, features), jnp.float32)
    return al(network, x_spec, WIDTH, tx=ADAMS, profile=profile, target_width=WIDTH)


# --- balance ------------------------------------------------------------------------------------------------------


def best_by_force(costs: Sequence[float], stages: int) -> tuple[float, float]:
    """The least (dearest stage, sum of squares) over all cuts."""
    found = []
    for inner in itertools.combinations(range(1, len(costs)), stages - 1):
        cuts = (0, *inner, len(costs))
        sums = [sum(costs[a:b]) for a, b in itertools.pairwise(cuts)]
        found.append((max(sums), sum(x * x for x in sums)))
    return min(found)


@pytest.mark.parametrize("seed", range(20))
def test_balance_against_all_cuts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    blocks = int(rng.integers(1, 9))
    costs = rng.integers(0, 12, blocks).tolist()  # whole numbers: many ties, and sums are exact
    for stages in range(1, blocks + 1):
        cuts = balance(costs, stages)
        assert len(cuts) == stages + 1 and cuts[0] == 0 and cuts[-1] == blocks
        assert all(a < b for a, b in itertools.pairwise(cuts))
        sums = [sum(costs[a:b]) for a, b in itertools.pairwise(cuts)]
        assert (max(sums), sum(x * x for x in sums)) == best_by_force(costs, stages)


def test_balance_of_real_costs() -> None:
    costs = np.random.default_rng(0).lognormal(15, 2, 9).tolist()
    for stages in range(1, 10):
        cuts = balance(costs, stages)
        dearest = max(sum(costs[a:b]) for a, b in itertools.pairwise(cuts))
        assert dearest == pytest.approx(best_by_force(costs, stages)[0], rel=1e-12)


# --- plans --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unequal() -> Model:
    return model_of(mlp((128, 64, 32)), features=20)


@pytest.mark.parametrize("stages", [0, 4, -1])
def test_stages_that_do_not_fit_the_blocks(unequal: Model, stages: int) -> None:
    with pytest.raises(ValueError, match=f"{stages} stages for a network of 3 blocks: .* stages between 1 and 3"):
        make_plan(unequal, stages)


@pytest.mark.parametrize("cuts", [(0, 3), (0, 1, 2, 3), (1, 2, 3), (0, 1, 2), (0, 0, 3), (0, 3, 3), (0, 4, 3)])
def test_bad_cuts(unequal: Model, cuts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cuts must be 3 ascending block indices from 0 to 3; got"):
        make_plan(unequal, 2, cuts)


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_a_plan(unequal: Model, stages: int) -> None:
    plan = make_plan(unequal, stages)
    states, _ = specs(unequal)
    assert plan.cuts == balance(plan.costs, stages)
    sizes = [sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) for state in states]
    assert plan.stage_bytes == tuple(sum(sizes[a:b]) for a, b in itertools.pairwise(plan.cuts))
    assert plan.slot_bytes >= max(plan.stage_bytes) and sum(plan.stage_bytes) == sum(sizes)
    assert plan.costs == pytest.approx([f + 2 * FLOPS_PER_BYTE * n for f, n in zip(plan.flops, sizes, strict=True)])
    # A block's matrix products alone, three for each of f, b (two layers), g and h, two flops a product.
    below = (20, 128, 64)
    for flops, before, width in zip(plan.flops, below, (128, 64, 32), strict=True):
        products = before * width + width * 5 * WIDTH + 5 * WIDTH * WIDTH + 2 * WIDTH * WIDTH
        assert 0.8 * 6 * 8 * products < flops < 2 * 6 * 8 * products
    assert not plan.uniform


def test_cuts_by_hand(unequal: Model) -> None:
    assert make_plan(unequal, 2, [0, 1, 3]).cuts == (0, 1, 3)
    assert make_plan(unequal, 2, [0, 2, 3]).cuts == (0, 2, 3)


def test_state_bytes() -> None:
    spec = {"w": jax.ShapeDtypeStruct((3, 4), jnp.float32), "n": jax.ShapeDtypeStruct((), jnp.int32)}
    assert state_bytes(spec) == 52 and state_bytes({"x": jnp.zeros((2, 2), jnp.bfloat16)}) == 8 and state_bytes(()) == 0


# --- uniform stages -----------------------------------------------------------------------------------------------


def test_equal_blocks_are_uniform() -> None:
    model = model_of(mlp((WIDTH,) * 4))
    for stages in (1, 2, 4):
        plan = make_plan(model, stages)
        assert plan.uniform
        assert plan.cuts == tuple(range(0, 5, 4 // stages))
        assert len(set(plan.stage_bytes)) == 1 and plan.slot_bytes == plan.stage_bytes[0]
    assert not make_plan(model, 3).uniform  # one stage has two blocks
    assert not make_plan(model, 2, (0, 1, 4)).uniform


def _scaled(block: Block, constant: np.ndarray) -> Block:
    """A block whose output is multiplied by a constant that is no parameter."""

    def apply(params, model_state, x, *, key, train):
        y, model_state = block.apply(params, model_state, x, key=key, train=train)
        return y * jnp.asarray(constant), model_state

    return block._replace(apply=apply)


@pytest.mark.parametrize(
    "network",
    [
        [*mlp((WIDTH,)), *mlp((WIDTH,), activation="tanh")],
        [*mlp((WIDTH,), dropout=0.1), *mlp((WIDTH,), dropout=0.2)],
        [*mlp((WIDTH,), norm=True), *mlp((WIDTH,))],
        [_scaled(mlp((WIDTH,))[0], np.full((8, WIDTH), c, np.float32)) for c in (1.0, 2.0)],
        [_scaled(mlp((WIDTH,))[0], np.random.default_rng(c).normal(size=(8, WIDTH)).astype("f")) for c in (1, 2)],
        mlp((32, WIDTH)),
    ],
    ids=["activation", "dropout", "norm", "scale", "constant", "width"],
)
def test_unequal_blocks_are_not_uniform(network: list[Block]) -> None:
    """Same shapes are not enough: stages that share one program must be the same function."""
    assert not make_plan(model_of(network), 2).uniform


def test_another_loss_is_not_uniform() -> None:
    """In `iclr_head` the first block has a loss of its own, with the shapes of the others."""
    assert not make_plan(model_of(mlp((WIDTH,) * 2), "iclr_head"), 2).uniform
    assert make_plan(model_of(mlp((WIDTH,) * 2), "iclr"), 2).uniform


def calling(factor: float) -> Block:
    """A block whose apply and init call a function of Python, which no text of a program names."""
    dense = from_linen(linen.Dense(4))
    called = lambda x: jax.pure_callback(lambda v: factor * v, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    def init(key, spec):
        params, state = dense.init(key, spec)
        return jax.tree.map(lambda x: called(jnp.ones_like(x)), params), state

    def apply(params, state, x, *, key, train):
        return dense.apply(params, state, jax.lax.cond(x[0, 0] > 9, lambda x: x, called, x), key=key, train=train)

    return dense._replace(init=init, apply=apply)


def test_blocks_that_call_functions_of_python_are_not_one_program() -> None:
    spec = jax.ShapeDtypeStruct((2, 4), jnp.float32)
    model = early_exit([calling(1.0), calling(-3.0)], spec, 3, tx=optax.sgd(0.1))
    assert not make_plan(model, 2).uniform and len(set(block_programs(model))) == 2
    first = [float(state.params["f"]["kernel"][0, 0]) for state in init(model, jax.random.key(0))]
    assert first == [1.0, -3.0]
    plain = early_exit([from_linen(linen.Dense(4))] * 2, spec, 3, tx=optax.sgd(0.1))
    assert make_plan(plain, 2).uniform
