"""What every schedule over a mesh shares: the mesh, the stages' common layout, and how a call runs on all devices."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from localgrad.base import LEARNT, Batches, BlockState, Engine, Key, Metrics, Model, Plan, PyTree, Spec
from localgrad.keys import block_key
from localgrad.pipeline import feeding
from localgrad.pipeline.finite import finite, with_parameters_checked
from localgrad.pipeline.packing import Slots
from localgrad.pipeline.specs import no_metrics

STAGE, BOTH, SAME = P("stage"), P("data", "stage"), P()  # a row a stage; a row a device; the same on every device
_LEADING = {STAGE: 1, BOTH: 2, SAME: 0}  # axes of length one that a device sees in front


class StateSlots(Protocol):
    """Lays the block states of each stage into slots, as `Slots` does."""

    specs: list[jax.ShapeDtypeStruct]

    def pack(self, which: int, tree: tuple[BlockState, ...], xp: Any = jnp) -> list[jax.Array]: ...

    def unpack(self, which: int, slots: Sequence[jax.Array]) -> tuple[BlockState, ...]: ...


class Layout(NamedTuple):
    """How a model lies on a mesh.

    Attributes:
      model, plan, mesh: what, where, on which devices.
      blocks: the block indices of each stage.
      data_parallel: number of data shards D.
      state_specs, message_specs: the model's `specs` for one shard.
      states: the stages' block states in slots.
      messages: the messages at the stages' boundaries in slots; `messages.unpack(s, ...)` is what stage s receives.
    """

    model: Model
    plan: Plan
    mesh: Mesh
    blocks: tuple[range, ...]
    data_parallel: int
    state_specs: list[Spec]
    message_specs: list[Spec]
    states: StateSlots
    messages: Slots

    @property
    def stages(self) -> int:
        return len(self.blocks)

    @property
    def split(self) -> bool:
        return self.data_parallel > 1

    @property
    def shard_size(self) -> int:
        return self.model.batch_size // self.data_parallel

    def by_block(self, each: Sequence[jax.Array], fill: Any = 0) -> jax.Array:
        """One number of each block of a stage as an array `(N,)`, N being the most blocks that a stage has."""
        longest = max(map(len, self.blocks))
        return jnp.stack([*each, *[jnp.full_like(each[0], fill)] * (longest - len(each))])

    def idle(self) -> jax.Array:
        """What a stage says in place of `by_block` of its blocks' `stopped` when it has nothing to do."""
        return jnp.full((max(map(len, self.blocks)),), LEARNT, jnp.int32)

    def stage_slots(self, trees: Sequence[Spec]) -> Slots:
        """Slots of one tree a block, gathered by stage."""
        return Slots([tuple(trees[i] for i in span) for span in self.blocks])

    def keys(self, stage: int, first: jax.Array | int, key: Key, batch_id: jax.Array) -> list[Key]:
        """The keys of a stage's blocks for a batch; `first` is the index of its first block."""
        shard = jax.lax.axis_index("data") if self.split else None
        return [block_key(key, batch_id, first + j, shard) for j in range(len(self.blocks[stage]))]

    def start(self) -> jax.Array | int:
        """Number of the first example of this device's shard in a batch."""
        return jax.lax.axis_index("data") * self.shard_size if self.split else 0

    def choose(self, valid: jax.Array, branch: Callable[[int], Callable[[PyTree], PyTree]], idle: PyTree) -> PyTree:
        """`branch(s)(idle)` for this device's stage s, or `idle` as it is where there is nothing to do.

        Each stage is a loop of one turn or none, not a branch of a conditional: a loop works in place, and what a
        conditional gives XLA copies into the carry of the loop over batches.
        """
        stage, found = jax.lax.axis_index("stage"), idle
        for s in range(self.stages):
            found = _once(valid & (stage == s), branch(s), found)
        return found

    def silence(self, bubble: float) -> tuple[list[jax.Array], jax.Array]:
        """What a stage sends on when it has nothing: a bubble, of batch -1.  Else it is its messages and their batch.

        Both come out of the stages' loops.  A number that needed none of them could travel at any time, and where the
        compiler lets it travel between two, the second stage waits for the work of the first.
        """
        return self.messages.fill(bubble), jnp.int32(-1)


def _once(due: jax.Array, function: Callable[[PyTree], PyTree], carry: PyTree) -> PyTree:
    """`function(carry)` where it is due, else `carry`."""
    turn = lambda loop: (jnp.array(False), function(loop[1]))
    return jax.lax.while_loop(lambda loop: loop[0], turn, (due, carry))[1]


Examples = Callable[..., tuple[jax.Array, jax.Array]]  # `(part=0, parts=1) -> (x, y)` of a device's shard of a batch


class Report(NamedTuple):
    """What a stage of at most N blocks says of a tick.

    Attributes:
      values: slots of its blocks' metrics.
      stopped: of each block, see `Metrics.stopped`, `(N,)`.
      batch_id: the batch that this is of, by block `(N,)` or of all; -1 where there is none.
    """

    values: list[jax.Array]
    stopped: jax.Array
    batch_id: jax.Array


class Reader(Protocol):
    """Gives the metrics of a stage's blocks back from their slots, in order, as `Slots` does."""

    def unpack(self, which: int, slots: Sequence[jax.Array]) -> Sequence[dict[str, jax.Array]]: ...


class Pipeline(Protocol):
    """A schedule on a mesh: what each device does on a tick.  `Local`, `Stream` and `Chain` are frozen objects.

    Attributes:
      layout: of the model.
      plan: the layout's, with what the schedule keeps.
      specs: a NamedTuple of partition specs, one for each part of the state; the first part is the states' slots, and
        there is one `next_id`.
      states, values: slots of the stages' block states and of their metrics.
      turns: ticks of a batch; on the second and later of them nothing new enters.
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
        """The parts of the state but the first, as one device sees them; `first` numbers the next batch."""
        ...

    def tick(self, state: Any, fresh_id: jax.Array, examples: Examples | None) -> tuple[Any, Report]:
        """All devices on one tick, on which batch `fresh_id` enters, if it is not -1."""
        ...


def bubbles(pipeline: Pipeline, state: Any, ticks: int) -> tuple[Any, Report]:
    """Ticks on which nothing enters: `(state, Report)` of arrays `(ticks, ...)`."""
    nothing = jnp.full((ticks,), -1, jnp.int32)
    return jax.lax.scan(lambda state, batch_id: pipeline.tick(state, batch_id, None), state, nothing)


def feed(pipeline: Pipeline, state: Any, batches: Batches) -> tuple[Any, Report]:
    """A call: all ticks of some batches, as `bubbles`."""
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
    axes = [_LEADING[spec] for spec in specs]

    def over_mesh(function: Callable, batches_spec: PyTree) -> Callable:
        """Runs `function(state, batches) -> (state, Report)` on every device's part of the state."""

        def sound(slots: list[jax.Array]) -> jax.Array:
            """Of each block of this device's stage, whether its parameters are finite."""
            of = lambda stage: lambda _: layout.by_block([finite(b.params) for b in states.unpack(stage, slots)])
            return layout.choose(jnp.array(True), of, layout.idle() == LEARNT)

        def run(state, batches: PyTree):
            state = specs._make(_strip(part, n) for part, n in zip(state, axes, strict=True))
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
            of_all = report.batch_id.ndim == 2
            ids = tuple(report.batch_id[:, s] if of_all else report.batch_id[:, s, j] for s, j in places)
            metrics = Metrics(by_block, ids, tuple(report.stopped[:, s, j] for s, j in places))
            return state, with_parameters_checked(metrics, [sound[j, s] for s, j in places])

        return call

    def call(state, batches: Batches):
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
        block_states = jax.device_get(block_states)
        packed = [states.pack(s, tuple(block_states[i] for i in span), np) for s, span in enumerate(layout.blocks)]
        rows = {STAGE: (layout.stages,), BOTH: (layout.data_parallel, layout.stages)}
        slots = [_place(np.stack(row), NamedSharding(mesh, STAGE)) for row in zip(*packed, strict=True)]
        rest = [
            jax.tree.map(
                lambda x, spec=spec: _place(
                    x if spec == SAME else np.broadcast_to(x, (*rows[spec], *np.shape(x))), NamedSharding(mesh, spec)
                ),
                part,
            )
            for part, spec in zip(pipeline.initial(key, np.int32(first)), specs[1:], strict=True)
        ]
        return specs._make([slots, *rest])

    return Engine(
        load=load,
        run=run,
        states=lambda state, compiled_for=None: drain(state, compiled_for)[0],
        drain=drain,
        put=lambda tree: jax.tree.map(lambda x: _place(x, NamedSharding(mesh, SAME)), tree),
        plan=pipeline.plan,
        mesh=mesh,
    )


def make_mesh(stages: int, data_parallel: int, devices: Sequence[jax.Device] | None) -> Mesh:
    """The mesh `('data', 'stage')`.

    Raises:
      ValueError: if there are too few devices.
    """
    need = stages * data_parallel
    devices = jax.devices() if devices is None else devices
    if len(devices) < need:
        raise ValueError(
            f"stages={stages} times data_parallel={data_parallel} needs {need} devices; there are {len(devices)}. On a "
            f'CPU, make virtual ones before the first use of jax: jax.config.update("jax_num_cpu_devices", {need}).'
        )
    axes = (AxisType.Auto, AxisType.Auto)
    mesh = jax.make_mesh((data_parallel, stages), ("data", "stage"), axis_types=axes, devices=devices[:need])
    if mesh.is_multi_process:
        _meet(mesh)
    return mesh


def _meet(mesh: Mesh) -> None:
    """Connects the processes of a mesh now, while all of them are here.

    Otherwise their first collective does, and on a CPU it waits no longer than 30 s for the other processes: one that
    compiles for longer than another would end the run.  Once connected, they wait for each other as long as it takes.
    """

    def sums(x: jax.Array) -> jax.Array:
        return sum(jax.lax.psum(x, axis) for axis in ("stage", "data", ("data", "stage")))

    meet = jax.jit(jax.shard_map(sums, mesh=mesh, in_specs=BOTH, out_specs=BOTH, check_vma=False))
    jax.block_until_ready(meet(_place(np.zeros(mesh.devices.shape, np.float32), NamedSharding(mesh, BOTH))))


def mean_over_data(tree: PyTree) -> PyTree:
    """The mean of a tree over data shards; whole numbers are the same on all."""
    inexact = lambda x: jnp.issubdtype(x.dtype, jnp.inexact)
    return jax.tree.map(lambda x: jax.lax.pmean(x, "data") if inexact(x) else x, tree)


def _place(x: Any, sharding: NamedSharding) -> jax.Array:
    """Puts a host array, or a key, on a mesh that may span processes; each process passes the same value."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = _place(jax.random.key_data(x), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _strip(tree: PyTree, axes: int) -> PyTree:
    return jax.tree.map(lambda x: x.reshape(x.shape[axes:]), tree)


def _unstrip(tree: PyTree, axes: int) -> PyTree:
    return jax.tree.map(lambda x: x.reshape((1,) * axes + x.shape), tree)
