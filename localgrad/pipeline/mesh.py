"""What every schedule over a mesh shares: the mesh, the stages' common layout, and how a call runs on all devices."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from localgrad.base import LEARNT, BlockState, Key, Model, Plan, PyTree, Spec
from localgrad.keys import block_key, is_key
from localgrad.pipeline.packing import Slots

STAGE, BOTH, SAME = P("stage"), P("data", "stage"), P()  # a row a stage; a row a device; the same on every device
LEADING = {STAGE: 1, BOTH: 2, SAME: 0}  # axes of length one that a device sees in front


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
      constant: of each block, which leaves of its model state never move; () where batches are whole.
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
    constant: tuple[tuple[bool, ...], ...] = ()

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


def make_mesh(stages: int, data_parallel: int, devices: Sequence[jax.Device] | None) -> Mesh:
    """The mesh `('data', 'stage')`.

    Raises:
      ValueError: if there are too few devices.
    """
    used = enough_devices(jax.devices() if devices is None else devices, stages, data_parallel)
    axes = (AxisType.Auto, AxisType.Auto)
    shape, names = (data_parallel, stages), ("data", "stage")
    try:
        mesh = jax.make_mesh(shape, names, axis_types=axes, devices=used)
    except AssertionError:  # on TPUs it arranges boxes of chips only; three of eight are none
        mesh = Mesh(np.array(used).reshape(shape), names, axis_types=axes)
    if mesh.is_multi_process and not only_compiled(mesh):
        _meet(mesh)
    return mesh


def enough_devices(devices: Sequence[jax.Device], stages: int, data_parallel: int = 1) -> Sequence[jax.Device]:
    """The first devices, as many as a pipeline needs.

    Raises:
      ValueError: if there are too few.
    """
    need = stages * data_parallel
    if len(devices) < need:
        raise ValueError(
            f"stages={stages} times data_parallel={data_parallel} needs {need} devices; there are {len(devices)}. On a "
            f'CPU, make virtual ones before the first use of jax: jax.config.update("jax_num_cpu_devices", {need}).'
        )
    return devices[:need]


def only_compiled(mesh: Mesh | AbstractMesh) -> bool:
    """Whether the devices are those of a topology, for which programs can be compiled and none can run."""
    device = mesh.devices.flat[0]
    try:
        return device not in jax.devices(device.platform)
    except RuntimeError:  # this machine has none of the kind
        return True


def _meet(mesh: Mesh) -> None:
    """Connects the processes of a mesh now, while all of them are here.

    Otherwise their first collective does, and on a CPU it waits no longer than 30 s for the other processes: one that
    compiles for longer than another would end the run.  Once connected, they wait for each other as long as it takes.
    """

    def sums(x: jax.Array) -> jax.Array:
        return sum(jax.lax.psum(x, axis) for axis in ("stage", "data", ("data", "stage")))

    meet = jax.jit(jax.shard_map(sums, mesh=mesh, in_specs=BOTH, out_specs=BOTH, check_vma=False))
    jax.block_until_ready(meet(place(np.zeros(mesh.devices.shape, np.float32), NamedSharding(mesh, BOTH))))


def mean_over_data(tree: PyTree) -> PyTree:
    """The mean of a tree over data shards; whole numbers are the same on all, see `check_shards`."""
    inexact = lambda x: jnp.issubdtype(x.dtype, jnp.inexact)
    return jax.tree.map(lambda x: jax.lax.pmean(x, "data") if inexact(x) else x, tree)


def place(x: Any, sharding: NamedSharding) -> jax.Array:
    """Puts a host array, or a key, on a mesh that may span processes; each process passes the same value.

    On devices of a topology there is nowhere to put it: its shape and its sharding stand for it.
    """
    if is_key(x):
        if only_compiled(sharding.mesh):
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)  # type: ignore[return-value]
        data = place(jax.random.key_data(x), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    host = np.asarray(x)
    if only_compiled(sharding.mesh):
        return jax.ShapeDtypeStruct(host.shape, host.dtype, sharding=sharding)  # type: ignore[return-value]
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
