"""The pipeline engine: every stage of the network on a device of its own, and the schedule that its method needs."""

from collections.abc import Sequence

import jax

from localgrad.base import Engine, Model
from localgrad.pipeline import step
from localgrad.pipeline.broadcast import STALENESS, broadcast
from localgrad.pipeline.chain import chain, parts_of
from localgrad.pipeline.coupling import check_examples, least_examples
from localgrad.pipeline.local import local
from localgrad.pipeline.mesh import Layout, make_mesh
from localgrad.pipeline.packing import Slots
from localgrad.pipeline.partition import make_plan


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
) -> Engine:
    """Trains all stages of a model at once, as a `shard_map` pipeline over a mesh `('data', 'stage')`.

    What the blocks need from outside chooses the schedule: nothing, `local`; the output error, `broadcast`; the
    gradient of the block above, `chain`.

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
      staleness: `broadcast` only: `delayed` streams a batch a tick, and stage s learns S - 1 - s batches late; `locked`
        lets each batch go through before the next enters, so that nothing is late.
      micro_batches: `chain` only: parts of a batch that follow each other through the stages; they divide a shard's
        examples.  By default as many as do, up to 4 S, of no fewer examples than the model can learn from.

    Returns:
      An `Engine`.

    Raises:
      ValueError: if there are too few devices or too few blocks, if the batch does not divide by `data_parallel` and
        `micro_batches`, if a part holds too few examples for the model to learn from (see `least_examples`), or for
        an unknown `staleness`.
    """
    if staleness not in STALENESS:
        raise ValueError(f"unknown staleness {staleness!r}; there are {', '.join(STALENESS)}.")
    signal = step.signal_of(model)
    plan = make_plan(model, stages, cuts)
    plan = plan._replace(uniform=plan.uniform and uniform is not False, data_parallel=data_parallel)
    parts = 1
    shard = model.batch_size // data_parallel
    if signal == "cotangent":
        parts = parts_of(shard, stages, micro_batches, least_examples(model, shard // (4 * stages)))
    state_specs, message_specs = step.specs(model, data_parallel, parts)
    check_examples(model, model.batch_size, f"batch_size={model.batch_size}")
    check_examples(model, shard, f"data_parallel={data_parallel} of batch_size={model.batch_size}")
    check_examples(model, shard // parts, f"micro_batches={parts} of {shard} examples")
    layout = Layout(
        model=model,
        plan=plan,
        mesh=make_mesh(stages, data_parallel, devices),
        blocks=tuple(range(a, b) for a, b in zip(plan.cuts, plan.cuts[1:], strict=False)),
        data_parallel=data_parallel,
        state_specs=state_specs,
        message_specs=message_specs,
        states=Slots([tuple(state_specs[a:b]) for a, b in zip(plan.cuts, plan.cuts[1:], strict=False)]),
        messages=Slots([message_specs[cut] for cut in plan.cuts]),
    )
    if signal == "cotangent":
        return chain(layout, bubble, parts)
    if signal == "error":
        return broadcast(layout, bubble, staleness)
    return local(layout, bubble)
