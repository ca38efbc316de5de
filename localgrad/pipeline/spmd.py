"""The pipeline engine: every stage of the network on a device of its own, and the schedule that its method needs."""

import dataclasses
from collections.abc import Sequence

import jax

from localgrad import target
from localgrad.base import Engine, Model, Plan
from localgrad.pipeline.chain import Chain
from localgrad.pipeline.coupling import check_examples, least_examples
from localgrad.pipeline.local import Local
from localgrad.pipeline.mesh import Layout, make_mesh
from localgrad.pipeline.packing import Slots
from localgrad.pipeline.partition import make_plan
from localgrad.pipeline.schedules import STALENESS, WEIGHTS, parts_of, stream_of
from localgrad.pipeline.shards import check_shards, constants
from localgrad.pipeline.specs import signal_of, specs
from localgrad.pipeline.stream import Stream
from localgrad.pipeline.ticks import engine
from localgrad.registry import check_known


def spmd(
    model: Model,
    *,
    stages: int,
    data_parallel: int = 1,
    cuts: Sequence[int] | None = None,
    devices: Sequence[jax.Device] | None = None,
    bubble: float = 0.0,
    uniform: bool | None = None,
    staleness: str = "delayed",
    micro_batches: int | None = None,
    asynchronous: str | None = None,
) -> Engine:
    """Trains all stages of a model at once, as a `shard_map` pipeline over a mesh `('data', 'stage')`.

    What the blocks wait for chooses the schedule: nothing, `local`; the pass of the next block, `relay`; the error at
    the output, `broadcast`; the way back of the next block, `chain`.

    With `data_parallel` above one each batch is split over that many pipelines, and gradients are averaged before the
    update.  Batch statistics, dropout and losses that couple the examples of a batch are then per shard; the running
    averages are those of the shards' mean.

    Args:
      model: any model.
      stages: number of stages S, at most the number of blocks.
      data_parallel: number of data shards D; it divides the batch.
      cuts: block indices at which stages begin and end, to choose them by hand; see `make_plan`.
      devices: `D * S` devices; by default the first ones of all processes.
      bubble: what fills the messages of stages that have nothing to do; NaN proves that they leave no trace.
      uniform: `local` only: False to choose among stages even where all are the same program; the default, None,
        does without where it can.
      staleness: `broadcast` and `relay` only: `delayed` streams a batch a tick, and stage s learns S - 1 - s batches
        late, or, in `relay`, the last block of a stage one batch late; `locked` lets the next batch enter only when
        nothing will be late; or one that was registered, see `register_schedule`.
      micro_batches: `chain` only: parts of a batch that follow each other through the stages; they divide a shard's
        examples.  By default as many as do, up to 4 S, of no fewer examples than the model can learn from.
      asynchronous: `chain` only: streams a batch a tick instead, without a bubble; stage s learns 2 (S - 1 - s) - 1
        batches late, and the last at once. The way back uses the weights `stashed` in the pass, or the `current` ones.

    Returns:
      An `Engine`.

    Raises:
      ValueError: if there are too few devices or too few blocks, if the batch does not divide by `data_parallel` and
        `micro_batches`, if a part holds too few examples for the model to learn from (see `least_examples`), if a whole
        number of a block's model state or metrics would differ between data shards (see `check_shards`), or for an
        unknown `staleness`, or for what belongs to another schedule.
    """
    with target.traced_for(target.platform_of(devices)):  # what blocks keep of a batch is not the same on all
        pipeline = pipeline_of(
            model, stages, data_parallel, cuts, staleness, micro_batches, asynchronous, bubble, uniform
        )
        mesh = make_mesh(stages, data_parallel, devices)
        return engine(dataclasses.replace(pipeline, layout=pipeline.layout._replace(mesh=mesh)))


def plan_of(
    model: Model,
    *,
    stages: int,
    data_parallel: int = 1,
    cuts: Sequence[int] | None = None,
    staleness: str = "delayed",
    micro_batches: int | None = None,
    asynchronous: str | None = None,
) -> Plan:
    """The plan of the engine that `spmd` makes of the same arguments; it needs no devices.

    Raises:
      ValueError: as `spmd`, but for too few devices.
    """
    return pipeline_of(model, stages, data_parallel, cuts, staleness, micro_batches, asynchronous).plan


def pipeline_of(
    model: Model,
    stages: int,
    data_parallel: int = 1,
    cuts: Sequence[int] | None = None,
    staleness: str = "delayed",
    micro_batches: int | None = None,
    asynchronous: str | None = None,
    bubble: float = 0.0,
    uniform: bool | None = None,
) -> Local | Chain | Stream:
    """The schedule of a model on its stages, on no mesh as yet; refuses what cannot be, see `spmd`."""
    check_known("staleness", staleness, STALENESS)
    signal = signal_of(model)
    check_asynchronous(model, asynchronous, micro_batches)
    plan = make_plan(model, stages, cuts)  # refuses blocks that wait for what nobody hands down
    plan = plan._replace(uniform=plan.uniform and uniform is not False, data_parallel=data_parallel)
    parts = 1 if asynchronous else micro_batches_of(model, stages, data_parallel, micro_batches)
    shard = model.batch_size // data_parallel
    layout = layout_of(model, plan, data_parallel, parts)
    if data_parallel > 1:
        check_shards(model, layout.state_specs, layout.message_specs, data_parallel)
    check_examples(model, model.batch_size, f"batch_size={model.batch_size}")
    check_examples(model, shard, f"data_parallel={data_parallel} of batch_size={model.batch_size}")
    check_examples(model, shard // parts, f"micro_batches={parts} of {shard} examples")
    if signal == "none":
        return Local(layout, bubble)
    if signal == "above" and asynchronous is None:
        return Chain(layout, parts, bubble)
    return Stream(layout, stream_of(signal, stages, staleness), signal, bubble, asynchronous == "current")


def check_asynchronous(model: Model, asynchronous: str | None, micro_batches: int | None) -> None:
    """Refuses to stream what is not backpropagation, or micro-batches.

    Raises:
      ValueError: see `spmd`.
    """
    if asynchronous is None:
        return
    if asynchronous not in WEIGHTS:
        raise ValueError(f"unknown asynchronous={asynchronous!r}; there are {', '.join(WEIGHTS)}.")
    if signal_of(model) != "above":
        raise ValueError(
            f"asynchronous={asynchronous!r} is for methods whose gradients come down block by block, such as bp; the "
            f"blocks of {model.method!r} do not wait for those: leave it out."
        )
    if micro_batches not in (None, 1):
        raise ValueError(
            f"asynchronous={asynchronous!r} streams whole batches: leave out micro_batches={micro_batches}."
        )


def layout_of(model: Model, plan: Plan, data_parallel: int = 1, parts: int = 1) -> Layout:
    """How a model lies on its stages, without a mesh as yet."""
    state_specs, message_specs = specs(model, data_parallel, parts)
    spans = list(zip(plan.cuts, plan.cuts[1:], strict=False))
    return Layout(
        model=model,
        plan=plan,
        mesh=None,  # type: ignore[arg-type]
        blocks=tuple(range(a, b) for a, b in spans),
        data_parallel=data_parallel,
        state_specs=state_specs,
        message_specs=message_specs,
        states=Slots([tuple(state_specs[a:b]) for a, b in spans]),
        messages=Slots([message_specs[cut] for cut in plan.cuts]),
        constant=constants(model, state_specs, message_specs) if data_parallel > 1 else (),
    )


def micro_batches_of(model: Model, stages: int, data_parallel: int, micro_batches: int | None) -> int:
    """The number of parts in which the stages are given a shard's examples; 1 but for the schedule `chain`.

    Raises:
      ValueError: if the number asked for does not divide them.
    """
    if signal_of(model) != "above":
        return 1
    shard = model.batch_size // data_parallel
    return parts_of(shard, stages, micro_batches, least_examples(model, shard // (4 * stages)))
