"""The pipeline gives the numbers of the sequential engine, and what fills its bubbles leaves no trace."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from localgrad.base import Batches, BlockState, Engine, Metrics, Model
from localgrad.methods import trial_keys
from localgrad.pipeline import delays_of, sequential, signal_of, spmd
from localgrad.testing.compare import (
    assert_finite,
    assert_learnt,
    assert_same_reports,
    assert_same_states,
    name_of,
    tolerance_of,
)
from localgrad.testing.examples import States, or_first, or_random, some_of

NAN = float("nan")
_ADVICE = (
    "A block's numbers must follow from its state, message and key alone, and gradients must be those of the mean "
    "over the examples: look for what depends on how often or where it runs (`check_traces`, `check_keys`), and, over "
    "shards or micro-batches, for losses and norms that compare examples."
)


class Pair(NamedTuple):
    """Two engines that must agree, and what messages call the schedule of the second."""

    name: str
    sequential: Engine
    pipeline: Engine


def engine_pairs(
    model: Model,
    stages: int = 2,
    *,
    cuts: Sequence[int] | None = None,
    data_parallel: int = 1,
    micro_batches: int = 1,
    streamed: bool = True,
) -> list[Pair]:
    """Every schedule that a model can run on, with the sequential engine that gives the same numbers.

    Args:
      model: any model.
      stages, cuts, data_parallel, micro_batches: see `spmd`; bubbles are full of NaN.
      streamed: also what is late: with delays, and of blocks that wait for the one above the asynchronous chain.

    Returns:
      One pair a schedule.
    """

    def pipeline(**more: Any) -> Engine:
        return spmd(model, stages=stages, cuts=cuts, data_parallel=data_parallel, bubble=NAN, **more)

    def late(name: str, engine: Engine) -> Pair:
        return Pair(name, sequential(model, delays_of(engine.plan.cuts, signal)), engine)

    signal, alone = signal_of(model), sequential(model)
    if signal == "none":
        return [Pair("local", alone, pipeline())]
    if signal == "above":
        first = Pair("chain", alone, pipeline(micro_batches=micro_batches))
        return [first, late("streamed chain", pipeline(asynchronous="stashed"))] if streamed else [first]
    first = Pair("locked", alone, pipeline(staleness="locked"))
    return [first, late("delayed", pipeline())] if streamed else [first]


def trained(
    model: Model, engine: Engine, states: States, given: Batches, per_call: int | None = None, seed: int = 7
) -> tuple[tuple[BlockState, ...], Metrics]:
    """The states after some batches, and what was reported of them.

    Args:
      model: what the engine trains.
      engine: any engine.
      states: to begin with.
      given: the batches.
      per_call: batches of each call, all of them by default.
      seed: of the key of dropout and the like.
    """
    state, reports, count = engine.load(tuple(states), trial_keys(seed, model.trials)), [], len(given.batch_id)
    fed = given
    for start in range(0, count, per_call or count):
        fed = engine.put(some_of(given, start, min(count, start + (per_call or count))))
        state, metrics = engine.run(state, fed)
        reports.append(metrics)
    found, rest = engine.drain(state, fed)
    reports += [rest] if rest.values[0] else []
    join = lambda *each: jnp.concatenate([jax.device_get(x) for x in each])
    return jax.device_get(found), jax.tree.map(join, *reports)


def check_engines(
    model: Model,
    batches: Batches | None = None,
    *,
    stages: int = 2,
    states: States | None = None,
    per_call: int | None = None,
    tolerance: float | None = None,
    **options: Any,
) -> float:
    """The pipeline equals the sequential engine, in states and in the metrics of every batch, on every schedule.

    Args:
      model: any model; made in float64 the two agree to 1e-12.
      batches: random ones by default.
      stages: of the pipeline; there must be as many devices, see jax's `jax_num_cpu_devices`.
      states: to begin with; by default those of `init`.
      per_call: batches of each call.
      tolerance: the largest absolute difference; 1e-12 in float64, and otherwise 1e-4.
      options: `cuts`, `data_parallel`, `micro_batches` and `streamed`, see `engine_pairs`.

    Returns:
      The largest difference of any state.

    Raises:
      AssertionError: naming the schedule, the block, the leaf and the difference.

    Examples:
      >>> import localgrad as lg, optax
      >>> model = lg.dgl(lg.mlp((4,)), jax.ShapeDtypeStruct((8, 5), jnp.float32), 3, tx=optax.sgd(0.1))
      >>> check_engines(model, stages=1) < 1e-4
      True
    """
    from localgrad.report import largest_difference

    given, first = or_random(model, batches), or_first(model, states)
    limit, largest = tolerance_of(model) if tolerance is None else tolerance, 0.0
    for name, alone, pipeline in engine_pairs(model, min(stages, len(model.blocks)), **options):
        where = f"on the schedule {name!r} against the sequential engine"
        theirs, ours = (trained(model, engine, first, given, per_call) for engine in (alone, pipeline))
        assert_learnt(model, theirs[1])
        assert_same_reports(model, ours[1], theirs[1], limit, where, _ADVICE)
        assert_same_states(model, ours[0], theirs[0], limit, where, _ADVICE)
        largest = max(largest, largest_difference(ours[0], theirs[0]))
    return largest


def check_bubbles(
    model: Model,
    batches: Batches | None = None,
    *,
    stages: int = 2,
    states: States | None = None,
    make: Callable[..., Engine] | None = None,
) -> None:
    """What a pipeline's stages hold while they have nothing to do leaves no trace: NaN or 0, all numbers are the same.

    Args:
      model, batches, stages, states: see `check_engines`.
      make: `(bubble=...) -> Engine`, by default `spmd` on so many stages.

    Raises:
      AssertionError: naming the block and the leaf that a bubble has reached.

    Examples:
      >>> import localgrad as lg, optax
      >>> model = lg.dgl(lg.mlp((4,)), jax.ShapeDtypeStruct((8, 5), jnp.float32), 3, tx=optax.sgd(0.1))
      >>> check_bubbles(model, stages=1)
    """
    given, first = or_random(model, batches), or_first(model, states)
    whole = {"micro_batches": 1} if signal_of(model) == "above" else {}
    make = make or (lambda bubble: spmd(model, stages=min(stages, len(model.blocks)), bubble=bubble, **whole))  # type: ignore[arg-type]
    advice = "Something that is computed where there is no batch is used: choose by `jnp.where`, and do not multiply."
    poisoned, clean = (trained(model, make(bubble=bubble), first, given)[0] for bubble in (NAN, 0.0))
    for i, state in enumerate(poisoned):
        assert_finite(state, f"{name_of(model, i)}, with bubbles of NaN", advice)
    assert_same_states(model, poisoned, clean, tolerance_of(model), "bubbles of NaN against bubbles of 0", advice)
