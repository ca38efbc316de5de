"""How a call of a pipeline's engine runs: ticks of a schedule on all devices of a mesh."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from localgrad import target
from localgrad.base import LEARNT, Batches, BlockState, Engine, Key, Metrics, Plan, PyTree
from localgrad.pipeline import feeding
from localgrad.pipeline.finite import finite, with_parameters_checked
from localgrad.pipeline.loading import check_context, checked
from localgrad.pipeline.mesh import BOTH, LEADING, SAME, STAGE, Examples, Layout, Report, StateSlots, place
from localgrad.pipeline.specs import no_metrics


class Reader(Protocol):
    """Unpacks the metrics of a stage's blocks from their slots, in order, as `Slots` does."""

    def unpack(self, which: int, slots: Sequence[jax.Array]) -> Sequence[dict[str, jax.Array]]: ...


class Pipeline(Protocol):
    """A schedule on a mesh: what each device does on a tick.  `Local`, `Stream` and `Chain` are frozen objects.

    Attributes:
      layout: of the model.
      plan: the layout's, with what the schedule keeps.
      specs: a NamedTuple of partition specs, one for each field of the state; the first field is the slots of the block
        states, and one is `next_id`.
      states, values: slots of the stages' block states and of their metrics.
      turns: ticks from one batch to the next; on the second and later of them nothing enters.
      drain: ticks that empty the pipeline.
    """

    @property
    def layout(self) -> Layout: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def specs(self) -> Any: ...
    @property
    def states(self) -> StateSlots: ...
    @property
    def values(self) -> Reader: ...
    @property
    def turns(self) -> int: ...
    @property
    def drain(self) -> int: ...

    def initial(self, key: Key, first: np.int32) -> tuple:
        """All fields of the state but the first, as one device sees them; `first` numbers the next batch."""
        ...

    def tick(self, state: Any, fresh_id: jax.Array, examples: Examples | None) -> tuple[Any, Report]:
        """All devices on one tick, on which batch `fresh_id` enters, if it is not -1."""
        ...


def bubbles(pipeline: Pipeline, state: Any, ticks: int) -> tuple[Any, Report]:
    """Ticks on which nothing enters: `(state, Report)` of arrays `(ticks, ...)`."""
    nothing = jnp.full((ticks,), -1, jnp.int32)
    return jax.lax.scan(lambda state, batch_id: pipeline.tick(state, batch_id, None), state, nothing)


def feed(pipeline: Pipeline, state: Any, batches: Batches) -> tuple[Any, Report]:
    """All ticks of the batches of a call: `(state, Report)` of arrays `(ticks, ...)`."""
    layout = pipeline.layout

    def one(state: Any, xs: tuple[jax.Array, PyTree]):
        batch_id, item = xs
        batch_id, next_id = feeding.number(batch_id, state.next_id)

        def examples(part: jax.Array | int = 0, parts: int = 1) -> tuple[jax.Array, jax.Array]:
            size = layout.shard_size // parts
            return batches.fetch(item, layout.start() + part * size, size)

        state, report = pipeline.tick(state._replace(next_id=next_id), batch_id, examples)
        if pipeline.turns == 1:
            return state, report
        state, rest = bubbles(pipeline, state, pipeline.turns - 1)
        return state, jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), report, rest)

    state, report = jax.lax.scan(one, state, (batches.batch_id, batches.items))
    return state, report if pipeline.turns == 1 else jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), report)


def engine(pipeline: Pipeline) -> Engine:
    """The engine that runs a schedule."""
    layout, states, values, specs = pipeline.layout, pipeline.states, pipeline.values, pipeline.specs
    model, mesh = layout.model, layout.mesh
    axes = [LEADING[spec] for spec in specs]

    def over_mesh(function: Callable, batches_spec: PyTree) -> Callable:
        """Runs `function(state, batches) -> (state, Report)` on every device's part of the state."""

        def sound(slots: list[jax.Array]) -> jax.Array:
            """Of each block of this device's stage, whether its parameters are finite."""
            of = lambda stage: lambda _: layout.by_block([finite(b.params) for b in states.unpack(stage, slots)])
            return layout.choose(jnp.array(True), of, layout.idle() == LEARNT)

        def run(state, batches: PyTree):
            state = specs._make(_strip(part, n) for part, n in zip(state, axes, strict=True))
            with target.traced_for(mesh.devices.flat[0].platform):
                state, report = function(state, batches)
            tail = jax.tree.map(lambda x: x[:, None], (report, sound(state[0])))
            return specs._make(_unstrip(part, n) for part, n in zip(state, axes, strict=True)), tail

        # check_vma=False: a user's module may scan over a carry that does not vary over the mesh, and every output
        # here varies over 'stage' (the state over 'data' too, or it is the same there by pmean).
        mapped = jax.shard_map(
            run, mesh=mesh, in_specs=(specs, batches_spec), out_specs=(specs, P(None, "stage")), check_vma=False
        )

        def call(state, batches: PyTree):
            state, tail = mapped(state, batches)
            report, sound = jax.lax.with_sharding_constraint(tail, NamedSharding(mesh, SAME))
            by_stage = [values.unpack(s, [m[:, s] for m in report.values]) for s in range(layout.stages)]
            by_block = tuple(value for stage in by_stage for value in stage)
            places = [(s, j) for s, span in enumerate(layout.blocks) for j in range(len(span))]
            by_stage_alone = report.batch_id.ndim == 2  # `(ticks, S)`: all blocks of a stage report the same batch
            ids = tuple(report.batch_id[:, s] if by_stage_alone else report.batch_id[:, s, j] for s, j in places)
            metrics = Metrics(by_block, ids, tuple(report.stopped[:, s, j] for s, j in places))
            return state, with_parameters_checked(metrics, [sound[j, s] for s, j in places])

        return call

    def call(state, batches: Batches):
        check_context("spmd", mesh)
        feeding.check_batches(model, batches)
        return over_mesh(partial(feed, pipeline), SAME)(state, batches)

    run = jax.jit(call, donate_argnums=0)
    flush_alone = jax.jit(over_mesh(lambda state, _: bubbles(pipeline, state, pipeline.drain), SAME))

    def finish(state, compiled_for: Batches | None):
        """A copy in which the batches in flight have gone through."""
        if not pipeline.drain:
            return state, no_metrics(model)
        if compiled_for is None:
            return flush_alone(state, ())
        empty = compiled_for._replace(batch_id=compiled_for.batch_id * 0 - 1)
        state, calls = jax.tree.map(jnp.copy, state), []
        for _ in range(0, -(-pipeline.drain // pipeline.turns), len(empty.batch_id)):
            state, metrics = run(state, empty)
            calls.append(metrics)
        return state, jax.tree.map(lambda *parts: jnp.concatenate(parts), *calls)

    @jax.jit
    def unpack(slots: list[jax.Array]) -> tuple[BlockState, ...]:
        slots = jax.lax.with_sharding_constraint(slots, NamedSharding(mesh, SAME))
        by_stage = [states.unpack(s, [slot[s] for slot in slots]) for s in range(layout.stages)]
        return tuple(block for stage in by_stage for block in stage)

    def drain(state, compiled_for: Batches | None = None) -> tuple[tuple[BlockState, ...], Metrics]:
        state, metrics = finish(state, compiled_for)
        return jax.tree.map(lambda x: x.addressable_data(0), unpack(state[0])), metrics

    def load(block_states: tuple[BlockState, ...], key: Key, first: int = 0):
        check_context("spmd", mesh)
        given, own_key = checked(model, layout.state_specs, block_states, key)
        given = jax.device_get(given)
        packed = [states.pack(s, given[a.start : a.stop], np) for s, a in enumerate(layout.blocks)]
        rows = {STAGE: (layout.stages,), BOTH: (layout.data_parallel, layout.stages)}
        slots = [place(np.stack(row), NamedSharding(mesh, STAGE)) for row in zip(*packed, strict=True)]
        rest = [
            jax.tree.map(
                lambda x, spec=spec: place(
                    x if spec == SAME else np.broadcast_to(x, (*rows[spec], *np.shape(x))), NamedSharding(mesh, spec)
                ),
                part,
            )
            for part, spec in zip(pipeline.initial(own_key, np.int32(first)), specs[1:], strict=True)
        ]
        return specs._make([slots, *rest])

    return Engine(
        load=load,
        run=run,
        states=lambda state, compiled_for=None: drain(state, compiled_for)[0],
        drain=drain,
        put=lambda tree: jax.tree.map(lambda x: place(x, NamedSharding(mesh, SAME)), tree),
        plan=pipeline.plan,
        mesh=mesh,
    )


def _strip(tree: PyTree, axes: int) -> PyTree:
    """Arrays as a device works on them: without the mesh's axes in front, which have length 1 on it."""
    return jax.tree.map(lambda x: x.reshape(x.shape[axes:]), tree)


def _unstrip(tree: PyTree, axes: int) -> PyTree:
    """Arrays with the mesh's axes in front again; see `_strip`."""
    return jax.tree.map(lambda x: x.reshape((1,) * axes + x.shape), tree)
