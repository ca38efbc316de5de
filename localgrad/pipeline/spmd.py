"""The pipeline engine: every stage of the network on a device of its own, all of them training at once.

On tick t stage s trains its blocks on batch t - s; then one `ppermute` hands every message to the next stage.  Messages
in flight are part of the state, so nothing drains between calls: the bubble is S - 1 ticks once a run.  Stage s sees
batch k through the same parameters of stage s - 1 as in sequential training, hence the same numbers.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from localgrad.base import Batches, BlockState, Engine, Key, Metrics, Model, PyTree
from localgrad.pipeline import step
from localgrad.pipeline.packing import Slots
from localgrad.pipeline.partition import make_plan


class PipelineState(NamedTuple):
    """The state of a pipeline of S stages over D data shards.

    Attributes:
      slots: the stages' block states, `(S, size)` each, one row on each device.
      inbox: the messages that the next tick works on, `(D, S, size)` each.
      batch_id: which batch each message is of, int32 `(D, S)`; -1 is a bubble.
      sound: whether every loss of that batch was finite on the stages below, bool `(D, S)`.
      ok: whether every loss of the stage was finite so far, bool `(D, S)`; the stage learns no more once it is not.
      key: the key of dropout and the like, the same everywhere.
    """

    slots: list[jax.Array]
    inbox: list[jax.Array]
    batch_id: jax.Array
    sound: jax.Array
    ok: jax.Array
    key: Key


_SPECS = PipelineState(P("stage"), P("data", "stage"), P("data", "stage"), P("data", "stage"), P("data", "stage"), P())  # type: ignore[arg-type]
_LEADING = (1, 2, 2, 2, 2, 0)  # axes of length one that each part of the state has on a device


def spmd(
    model: Model,
    *,
    stages: int,
    data_parallel: int = 1,
    cuts: Sequence[int] | None = None,
    devices: Sequence[jax.Device] | None = None,
    bubble: float = 0.0,
    uniform: bool | None = None,
) -> Engine:
    """Trains all stages of a model at once, as a `shard_map` pipeline over a mesh `('data', 'stage')`.

    With `data_parallel` above one each batch is split over that many pipelines, and gradients are averaged before the
    update.  Batch statistics, dropout and losses that couple the examples of a batch are then per shard; the running
    averages are those of the shards' mean.

    Args:
      model: a model whose blocks have local losses (`signal='none'`).
      stages: number of stages S, at most the number of blocks.
      data_parallel: number of data shards D; it divides the batch.
      cuts: block indices at which stages begin and end, to choose them by hand; see `make_plan`.
      devices: `D * S` devices; by default the first ones of all processes.
      bubble: what fills the messages of stages that have nothing to do; NaN proves that they leave no trace.
      uniform: False to choose stages by a switch even where all are the same program; the default, None, does without
        where it can.

    Returns:
      An `Engine`.

    Raises:
      ValueError: if a block needs a signal from outside, if there are too few devices or too few blocks, or if the
        batch does not divide by `data_parallel`.
    """
    foreign = sorted({block.signal for block in model.blocks} - {"none"})
    if foreign:
        raise ValueError(
            f"method {model.method!r} needs a signal from other blocks ({', '.join(foreign)}): the local pipeline "
            "trains blocks with a loss of their own. Use the sequential engine (--stages=1 --data_parallel=1)."
        )
    plan = make_plan(model, stages, cuts)
    plan = plan._replace(uniform=plan.uniform and uniform is not False)
    mesh = _mesh(stages, data_parallel, devices)
    blocks = [range(a, b) for a, b in zip(plan.cuts, plan.cuts[1:], strict=False)]
    state_specs, message_specs = step.specs(model, data_parallel)
    shard_size = model.batch_size // data_parallel
    split = data_parallel > 1

    def stage_slots(tree_of: Callable[[range], PyTree]) -> Slots:
        return Slots([tree_of(span) for span in blocks])

    def halves(i: int) -> PyTree:
        run = lambda state, message, key: step.work(model.blocks[i], state, message, key)
        return jax.eval_shape(run, state_specs[i], message_specs[i], step.key_spec(model))

    worked = [halves(i) for i in range(len(model.blocks))]  # (message, model_state, grads, metrics) of each block
    states = stage_slots(lambda span: tuple(state_specs[i] for i in span))
    effects = stage_slots(lambda span: tuple(worked[i][1:3] for i in span))
    values = stage_slots(lambda span: tuple(worked[i][3] for i in span))
    messages = Slots([message_specs[cut] for cut in plan.cuts])

    def keys(stage: int, first: jax.Array | int, key: Key, batch_id: jax.Array) -> list[Key]:
        shard = jax.lax.axis_index("data") if split else None
        return [step.block_key(key, batch_id, first + j, shard) for j in range(len(blocks[stage]))]

    def receive(stage: int, inbox: list[jax.Array], examples: Callable | None) -> PyTree:
        return step.enter(model, examples()) if examples and stage == 0 else messages.unpack(stage, inbox)

    # --- one stage on one batch; `first` is the index of its first block ------------------------------------------

    def train(stage: int, first, slots, message, key, batch_id, ok):
        """The whole step: `(slots, outbox, values, ok)`."""
        done, metrics = [], []
        for i, state, block_key in zip(
            blocks[stage], states.unpack(stage, slots), keys(stage, first, key, batch_id), strict=True
        ):
            state, message, value, ok = step.train(model.blocks[i], state, message, block_key, ok)
            done.append(state)
            metrics.append(value)
        outbox = messages.pack(stage + 1, message)
        return states.pack(stage, tuple(done)), outbox, values.pack(stage, tuple(metrics)), ok

    def work(stage: int, first, slots, message, key, batch_id):
        """The first half, before gradients are averaged: `(effects, outbox, values)`."""
        moved, metrics = [], []
        for i, state, block_key in zip(
            blocks[stage], states.unpack(stage, slots), keys(stage, first, key, batch_id), strict=True
        ):
            message, model_state, grads, value = step.work(model.blocks[i], state, message, block_key)
            moved.append((model_state, grads))
            metrics.append(value)
        return effects.pack(stage, tuple(moved)), messages.pack(stage + 1, message), values.pack(stage, tuple(metrics))

    def learn(stage: int, slots, moved, metrics, ok):
        """The second half, after it: `(slots, ok)`."""
        done = []
        for i, state, (model_state, grads), value in zip(
            blocks[stage],
            states.unpack(stage, slots),
            effects.unpack(stage, moved),
            values.unpack(stage, metrics),
            strict=True,
        ):
            state, ok = step.learn(model.blocks[i], state, model_state, grads, value, ok)
            done.append(state)
        return states.pack(stage, tuple(done)), ok

    # --- all stages on one tick ------------------------------------------------------------------------------------

    def choose(valid: jax.Array, branch: Callable[[int], Callable], idle: Callable, *operands):
        """Runs this device's stage, or `idle` in a bubble."""
        stage = jax.lax.axis_index("stage")
        branches = [lambda *args, s=s: branch(s)(*args) for s in range(stages)]
        if stages == 1:
            return jax.lax.cond(valid, branches[0], idle, *operands)
        return jax.lax.switch(jnp.where(valid, stage, stages), [*branches, idle], *operands)

    def tick_by_switch(state: PipelineState, batch_id, valid, ok, examples):
        def whole(stage):
            def run(slots, inbox, ok):
                message = receive(stage, inbox, examples)
                return train(stage, blocks[stage][0], slots, message, state.key, batch_id, ok)

            return run

        idle = lambda slots, inbox, ok: (slots, messages.fill(bubble), values.fill(), ok)
        return choose(valid, whole, idle, state.slots, state.inbox, ok)

    def tick_of_shards(state: PipelineState, batch_id, valid, ok, examples):
        def first_half(stage):
            def run(slots, inbox):
                message = receive(stage, inbox, examples)
                return work(stage, blocks[stage][0], slots, message, state.key, batch_id)

            return run

        idle = lambda slots, inbox: (effects.fill(), messages.fill(bubble), values.fill())
        moved, outbox, metrics = choose(valid, first_half, idle, state.slots, state.inbox)
        moved, metrics = _mean_over_data((moved, metrics))
        second_half = lambda stage: lambda *args: learn(stage, *args)
        idle_learn = lambda slots, moved, metrics, ok: (slots, ok)
        slots, ok = choose(valid, second_half, idle_learn, state.slots, moved, metrics, ok)
        return slots, outbox, metrics, ok

    def tick_uniform(state: PipelineState, batch_id, valid, ok, examples):
        stage = jax.lax.axis_index("stage")
        message = messages.unpack(0, state.inbox)
        if examples:
            message = jax.tree.map(lambda new, old: jnp.where(stage == 0, new, old), receive(0, [], examples), message)
        first = stage * len(blocks[0])
        if split:
            moved, outbox, metrics = work(0, first, state.slots, message, state.key, batch_id)
            moved, metrics = _mean_over_data((moved, metrics))
            slots, new_ok = learn(0, state.slots, moved, metrics, ok & valid)
        else:
            # A bubble learns nothing: `ok` is what already decides whether new state replaces old.
            slots, outbox, metrics, new_ok = train(0, first, state.slots, message, state.key, batch_id, ok & valid)
        return slots, outbox, metrics, jnp.where(valid, new_ok, ok)

    tick = tick_uniform if plan.uniform else tick_of_shards if split else tick_by_switch

    def advance(state: PipelineState, fresh_id: jax.Array, examples: Callable | None):
        stage = jax.lax.axis_index("stage")
        batch_id = jnp.where(stage == 0, fresh_id, state.batch_id)
        valid = batch_id >= 0
        ok = state.ok & (state.sound | (stage == 0) | ~valid)
        slots, outbox, metrics, ok = tick(state, batch_id, valid, ok, examples)
        up = [(s, s + 1) for s in range(stages - 1)]
        inbox, arrived, sound = jax.lax.ppermute((outbox, batch_id, ok), "stage", up)
        arrived = jnp.where(stage == 0, -1, arrived)  # nothing arrives there, and ppermute says 0, which is a batch
        return PipelineState(slots, inbox, arrived, sound, ok, state.key), (metrics, batch_id)

    # --- calls -----------------------------------------------------------------------------------------------------

    def over_mesh(function: Callable, batches_spec: PyTree) -> Callable:
        """Runs `function(state, batches) -> (state, (metrics, batch_id))` on every device's part of the state."""

        def run(state: PipelineState, batches: PyTree):
            state = PipelineState(*(_strip(part, axes) for part, axes in zip(state, _LEADING, strict=True)))
            state, (metrics, batch_id) = function(state, batches)
            tail = [m[:, None] for m in (*metrics, batch_id)]
            parts = (_unstrip(part, axes) for part, axes in zip(state, _LEADING, strict=True))
            return PipelineState(*parts), tail

        # check_vma=False: a user's module may scan over a carry that does not vary over the mesh, and every output
        # here varies over 'stage' (the state over 'data' too, or it is the same there by pmean).
        mapped = jax.shard_map(
            run, mesh=mesh, in_specs=(_SPECS, batches_spec), out_specs=(_SPECS, P(None, "stage")), check_vma=False
        )

        def call(state: PipelineState, batches: PyTree) -> tuple[PipelineState, Metrics]:
            state, tail = mapped(state, batches)
            *metrics, batch_id = jax.lax.with_sharding_constraint(tail, NamedSharding(mesh, P()))
            by_stage = [values.unpack(s, [m[:, s] for m in metrics]) for s in range(stages)]
            by_block = tuple(value for stage in by_stage for value in stage)
            return state, Metrics(by_block, tuple(batch_id[:, s] for s in range(stages) for _ in blocks[s]))

        return call

    def feed(state: PipelineState, batches: Batches):
        def one(state: PipelineState, xs: tuple[jax.Array, PyTree]):
            batch_id, item = xs
            start = jax.lax.axis_index("data") * shard_size if split else 0
            return advance(state, batch_id, lambda: batches.fetch(item, start, shard_size))

        return jax.lax.scan(one, state, (batches.batch_id, batches.items))

    def flush(state: PipelineState, _: PyTree):
        nothing = jnp.full((stages - 1,), -1, jnp.int32)
        return jax.lax.scan(lambda state, batch_id: advance(state, batch_id, None), state, nothing)

    run = jax.jit(over_mesh(feed, P()), donate_argnums=0)
    flush_alone = jax.jit(over_mesh(flush, P()))

    def finish(state: PipelineState, compiled_for: Batches | None) -> tuple[PipelineState, Metrics]:
        """A copy in which the batches in flight have gone through."""
        if compiled_for is None:
            return flush_alone(state, ())
        bubbles = compiled_for._replace(batch_id=compiled_for.batch_id * 0 - 1)
        state, calls = jax.tree.map(jnp.copy, state), []
        for _ in range(0, stages - 1, len(bubbles.batch_id)):
            state, metrics = run(state, bubbles)
            calls.append(metrics)
        return state, jax.tree.map(lambda *parts: jnp.concatenate(parts), *calls) if calls else step.no_metrics(model)

    @jax.jit
    def unpack(slots: list[jax.Array]) -> tuple[BlockState, ...]:
        slots = jax.lax.with_sharding_constraint(slots, NamedSharding(mesh, P()))
        by_stage = [states.unpack(s, [slot[s] for slot in slots]) for s in range(stages)]
        return tuple(block for stage in by_stage for block in stage)

    def drain(state: PipelineState, compiled_for: Batches | None = None) -> tuple[tuple[BlockState, ...], Metrics]:
        state, metrics = finish(state, compiled_for)
        return jax.tree.map(lambda x: x.addressable_data(0), unpack(state.slots)), metrics

    place = lambda x, spec: _place(x, NamedSharding(mesh, spec))

    def load(block_states: tuple[BlockState, ...], key: Key) -> PipelineState:
        block_states = jax.device_get(block_states)
        packed = [states.pack(s, tuple(block_states[i] for i in span), np) for s, span in enumerate(blocks)]
        lead = (data_parallel, stages)
        inbox = [np.broadcast_to(np.asarray(x), (*lead, *x.shape)) for x in messages.fill(bubble)]
        return PipelineState(
            slots=[place(np.stack(rows), P("stage")) for rows in zip(*packed, strict=True)],
            inbox=[place(x, P("data", "stage")) for x in inbox],
            batch_id=place(np.full(lead, -1, np.int32), P("data", "stage")),
            sound=place(np.ones(lead, bool), P("data", "stage")),
            ok=place(np.ones(lead, bool), P("data", "stage")),
            key=place(key, P()),
        )

    return Engine(
        load=load,
        run=run,
        states=lambda state, compiled_for=None: drain(state, compiled_for)[0],
        drain=drain,
        put=lambda tree: jax.tree.map(lambda x: place(x, P()), tree),
        plan=plan,
        mesh=mesh,
    )


def _mesh(stages: int, data_parallel: int, devices: Sequence[jax.Device] | None) -> Mesh:
    need = stages * data_parallel
    devices = jax.devices() if devices is None else devices
    if len(devices) < need:
        raise ValueError(
            f"stages={stages} times data_parallel={data_parallel} needs {need} devices; there are {len(devices)}. On a "
            f'CPU, make virtual ones before the first use of jax: jax.config.update("jax_num_cpu_devices", {need}).'
        )
    axes = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((data_parallel, stages), ("data", "stage"), axis_types=axes, devices=devices[:need])


def _place(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    """Puts a host array, or a key, on a mesh that may span processes; each process passes the same value."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = _place(jax.random.key_data(x), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _mean_over_data(tree: PyTree) -> PyTree:
    inexact = lambda x: jnp.issubdtype(x.dtype, jnp.inexact)
    return jax.tree.map(lambda x: jax.lax.pmean(x, "data") if inexact(x) else x, tree)


def _strip(tree: PyTree, axes: int) -> PyTree:
    return jax.tree.map(lambda x: x.reshape(x.shape[axes:]), tree)


def _unstrip(tree: PyTree, axes: int) -> PyTree:
    return jax.tree.map(lambda x: x.reshape((1,) * axes + x.shape), tree)
