"""The vocabulary: every protocol and state tuple of the library, and nothing else.

A *network* is a sequence of `Block`s.  A *method* turns each into a `LocalBlock`, which has a loss and an optimizer of
its own, and gathers them in a `Model`.  An *engine* trains a model on `Batches`, one block after another or all blocks
at once on a mesh, with the same numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import jax
import numpy as np
import optax

PyTree = Any
Key = jax.Array
Spec = Any  # a pytree of jax.ShapeDtypeStruct
Message = Mapping[str, jax.Array]  # what a block hands to the next: fixed shapes at each boundary, all of it detached
Signal = Literal["none", "next", "top", "above"]
Transforms: TypeAlias = Mapping[str, optax.GradientTransformation]  # by the groups that each updates, joined by `+`

NEXT = -2  # the `batch_id` of a batch that the engine numbers itself: one more than the last
# What `Metrics.stopped` says of a block on a batch.
LEARNT, LOSS, GRADIENT, PARAMETERS, EARLIER, MODEL_STATE = range(6)


class Block(NamedTuple):
    """A piece of a network, as pure functions.

    Attributes:
      init: `(key, x_spec) -> (params, model_state)`; `x_spec` is the shape and dtype of a batch `(B, ...)`.
      apply: `(params, model_state, x, *, key, train) -> (y, model_state)`; batch statistics are `model_state`.
      name: what tables and messages call it.
      summary: `y -> features`, what a method's heads read of an output: all of it by default; of a sequence `(B, D)`.
    """

    init: Callable[[Key, jax.ShapeDtypeStruct], tuple[PyTree, PyTree]]
    apply: "BlockApply"
    name: str = "block"
    summary: Callable[[jax.Array], jax.Array] = lambda y: y


class BlockApply(Protocol):
    """`Block.apply`."""

    def __call__(
        self, params: PyTree, model_state: PyTree, x: jax.Array, *, key: Key | None, train: bool
    ) -> tuple[jax.Array, PyTree]: ...


class BlockState(NamedTuple):
    """All that changes while a block trains; `params` is a dict of named groups (Associated Learning: f, b, g, h)."""

    params: dict[str, PyTree]
    model_state: PyTree
    opt_state: PyTree


class Forward(NamedTuple):
    """What a block's pass over a batch gives.

    Attributes:
      message: for the block above, detached.
      model_state: batch statistics, which advance here and only here.
      grads: gradients of the groups that learn at once, by group; {} where none do.
      metrics: a dict of scalars; with at least `loss` where groups learn at once.
      stash: arrays that `LocalBlock.backward` needs, made with the parameters of this pass; () where nothing waits.
      down: the signal that this pass makes: for the block below, where that waits for `next`; of the last block, for
        all that wait for `top`.
    """

    message: Message
    model_state: PyTree
    grads: Mapping[str, PyTree] = {}
    metrics: Mapping[str, jax.Array] = {}
    stash: PyTree = ()
    down: PyTree = None


class Backward(NamedTuple):
    """What a block makes of the signal that it has waited for.

    Attributes:
      grads: gradients of the groups that learn then, by group.
      metrics: a dict of scalars with at least `loss`.
      down: the signal for the block below, where that waits for `above`.
    """

    grads: Mapping[str, PyTree]
    metrics: Mapping[str, jax.Array]
    down: PyTree = None


class LocalBlock(NamedTuple):
    """A block made trainable by a method; all functions are pure.

    A block learns at two moments: at once, in its pass over a batch, and when a signal has arrived that it waits for.
    Most blocks have one of the two moments.  The engine applies the gradients of each moment as soon as they are there:
    `backward` is given the parameters of its own, later time, and the stash of the pass.

    Attributes:
      name: what tables and messages call it.
      signal: what `backward` waits for.  `none`: nothing, there is no such moment; `next`: `Forward.down` of the next
        block; `top`: `Forward.down` of the last block; `above`: `Backward.down` of the next block, and None for the
        last.
      init: `(key, message_spec) -> BlockState`.
      forward: `(state, message, key) -> Forward`.
      tx: the block's own optax transforms, applied by the engine and nowhere else: each key names groups, joined by
        `+`, that one transform updates together at one moment, and `BlockState.opt_state` has a state for each key.
        Groups that no key names are fixed.  A transform may use the block's loss, optax's extra argument `value`.
      backward: `(state, stash, signal) -> Backward`; None where nothing is waited for.
      made_of: what `local_block` made it of, for transforms that make another block of the same parts; None where none
        can.
    """

    name: str
    signal: Signal
    init: Callable[[Key, Spec], BlockState]
    forward: Callable[[BlockState, Message, Key], Forward]
    tx: Transforms
    backward: Callable[[BlockState, PyTree, PyTree], Backward] | None = None
    made_of: Any = None


class Predict(Protocol):
    """`Model.predict`."""

    def __call__(self, states: tuple[BlockState, ...], x: jax.Array, exit: int | None = None) -> jax.Array: ...


class Features(Protocol):
    """`Model.features`."""

    def __call__(
        self, states: tuple[BlockState, ...], x: jax.Array, keys: Sequence[Key] | None = None
    ) -> list[jax.Array]: ...


class Model(NamedTuple):
    """A network under a method: what an engine trains.

    Attributes:
      method: the method's name, for tables and messages.
      blocks: the local blocks, from the input up.
      x_spec, y_spec: shape and dtype of a batch of inputs `(B, ...)` and of targets.
      task: what is learnt, see `localgrad.tasks`.
      enter: `(x, y) -> message` of the first block.
      predict: `(states, x, exit=None) -> scores (B, outputs)`; `exit` counts blocks from 1, None is the last.
      features: `(states, x, keys=None) -> [output of f of block 1, of block 2, ..., scores of the last exit]`: all that
        prediction makes on its way, of sequences their summaries.  With `keys`, one a block, it is what the training
        step with those keys makes of a batch x (as `enter` takes it), by the batch's own statistics and with the same
        dropout.  Gradients flow through all of it, and states stay as they are.
      exits: the exits that `predict` accepts.
      effective: for each block, the parameter groups that prediction at the last exit uses; the rest is affiliated.
      trials: None, or the number of independent trials that every array carries as its first axis.
      path: the names of what `features` returns, in order.
      least_examples: the fewest examples that its losses can learn from at once; norms may need more, see
        `localgrad.pipeline.least_examples`.
      complete: what initialisation does once every block has its first state, or a trained one: `(key, states) ->
        states`; complete states stay as they are.  None where each block's own `init` is all.
      turn: where blocks learn one after another, the batches of each one's turn, see `localgrad.layerwise`; None where
        all learn at once.
    """

    method: str
    blocks: tuple[LocalBlock, ...]
    x_spec: jax.ShapeDtypeStruct
    y_spec: jax.ShapeDtypeStruct
    task: Any
    enter: Callable[[jax.Array, jax.Array], Message]
    predict: Predict
    features: Features
    exits: tuple[int, ...]
    effective: tuple[frozenset[str], ...]
    trials: int | None = None
    path: tuple[str, ...] = ()
    least_examples: int = 1
    complete: Callable[[Key, tuple[BlockState, ...]], tuple[BlockState, ...]] | None = None
    turn: int | None = None

    @property
    def batch_axis(self) -> int:
        return 0 if self.trials is None else 1

    @property
    def batch_size(self) -> int:
        return self.x_spec.shape[self.batch_axis]


class Batches(NamedTuple):
    """K batches for one call of an engine.

    Attributes:
      batch_id: int32 `(K,)`, the number of each batch since the start of training; seeds all randomness of its step.
        `NEXT` lets the engine count.
      items: pytree with leading axis K: what differs from batch to batch.
      fetch: a `jax.tree_util.Partial` of `(item, start, count) -> (x, y)`, the examples `start .. start + count - 1`
        of a batch, traced inside the step.  Arrays bound to it (a dataset kept on the device) are not donated.  Where
        its function has an attribute `batch_size`, an engine refuses batches of another size than its model's.
    """

    batch_id: jax.Array
    items: PyTree
    fetch: jax.tree_util.Partial


class DivergedError(ArithmeticError):
    """A block met a number that is not finite; `batch` and `block` (both from 0) say where that was first so."""

    def __init__(self, batch: int, block: int, what: str, name: str = ""):
        named = f"block {block + 1} ({name})" if name else f"block {block + 1}"
        super().__init__(f"{what} of {named} is not finite on batch {batch}")
        self.batch, self.block = batch, block


class Metrics(NamedTuple):
    """What a call of an engine reports of each block, as arrays `(K,)`, one entry a batch.

    Attributes:
      values: a dict of metrics, with at least `loss`.
      batch_id: int32, the batch that each entry is of; -1 where a pipeline stage had nothing to do.
      stopped: int32, `LEARNT` where the block learnt from the batch; otherwise it did not, nor from any later one,
        because its `LOSS`, its `GRADIENT`, its new `PARAMETERS` or its new `MODEL_STATE` were not finite, or because
        that had happened `EARLIER`, here or in a block below.  What a pass hands on of the model state as it is, such
        as a mask of -inf, may be anything.
    """

    values: tuple[dict[str, jax.Array], ...]
    batch_id: tuple[jax.Array, ...]
    stopped: tuple[jax.Array, ...]

    def check(self, names: Sequence[str] = ()) -> None:
        """Raises if a block did not learn; waits for the arrays.

        Args:
          names: of the blocks, for the message.

        Raises:
          DivergedError: for the earliest batch whose loss, gradient or new parameters are not finite, and its lowest
            block.
        """
        found = []
        for block, (ids, stopped) in enumerate(zip(self.batch_id, self.stopped, strict=True)):
            rows = zip(np.asarray(ids).tolist(), np.asarray(stopped).tolist(), strict=True)
            found += [(batch, why == EARLIER, block, why) for batch, why in rows if batch >= 0 and why != LEARNT]
        if not found:
            return
        batch, _, block, why = min(found)
        raise DivergedError(batch, block, _NOT_FINITE[why], names[block] if names else "")


_NOT_FINITE = {
    LOSS: "the loss",
    GRADIENT: "the gradient",
    PARAMETERS: "what the optimizer makes of the parameters",
    MODEL_STATE: "the model state (batch statistics and the like)",
    EARLIER: "something on an earlier batch",
}


class Schedule(NamedTuple):
    """Which batch a stage works on when; ticks, batches, parts and stages count from 0.

    Stage s takes part p of batch n forward on tick `n * period + p + s`, and learns from its signal `wait[s]` ticks
    later: before it takes a batch forward on that tick, or after it where `wait[s]` is 0.

    Attributes:
      name: `local`, `relay`, `broadcast` or `chain`.
      wait: of each stage, ticks between forward and signal; None where it waits for no signal.
      period: ticks from one batch to the next.
      parts: micro-batches of a batch, one a tick.

    Examples:
      >>> broadcast = Schedule("broadcast", wait=(3, 2, 1))
      >>> [broadcast.forward(5, stage) for stage in range(3)], [broadcast.answers(5, stage) for stage in range(3)]
      ([(5, 0), (4, 0), (3, 0)], [(2, 0), (2, 0), (2, 0)])
      >>> broadcast.delays, broadcast.places, broadcast.ticks(10)
      ((2, 1, 0), (3, 2, 1), 13)
    """

    name: str
    wait: tuple[int | None, ...]
    period: int = 1
    parts: int = 1

    @property
    def stages(self) -> int:
        return len(self.wait)

    @property
    def delays(self) -> tuple[int, ...]:
        """By how many batches each stage learns late: batch k meets what was learnt up to k - 1 - delay."""
        return tuple(0 if not wait else -(-wait // self.period) - 1 for wait in self.wait)

    @property
    def places(self) -> tuple[int, ...]:
        """How many batches, or parts of one, each stage keeps between two ticks."""
        one = lambda wait, delay: 0 if not wait else self.parts if self.parts > 1 else delay + 1
        return tuple(map(one, self.wait, self.delays))

    @property
    def drain(self) -> int:
        """Ticks that the last batch needs after its period."""
        return max(0, max(s + self.parts + (wait or 0) for s, wait in enumerate(self.wait)) - self.period)

    def ticks(self, batches: int) -> int:
        """Ticks that a run of so many batches takes."""
        return batches * self.period + self.drain if batches else 0

    def forward(self, tick: int, stage: int) -> tuple[int, int] | None:
        """The `(batch, part)` that a stage takes forward on a tick."""
        batch, part = divmod(tick - stage, self.period)
        return (batch, part) if batch >= 0 and part < self.parts else None

    def answers(self, tick: int, stage: int) -> tuple[int, int] | None:
        """The `(batch, part)` whose signal a stage learns from on a tick."""
        wait = self.wait[stage]
        return None if wait is None else self.forward(tick - wait, stage)


class Plan(NamedTuple):
    """How a model is laid over stages.

    Attributes:
      cuts: stage s runs blocks `cuts[s] .. cuts[s + 1] - 1`.
      costs: predicted cost of a training step of each block, in equivalent FLOPs.
      flops: FLOPs of a training step of each block.
      message_bytes: bytes of the message that each block hands on, for a whole batch.
      stage_bytes: bytes of state that each stage needs.
      slot_bytes: bytes of state that each device holds: the stages' common layout.
      uniform: whether all stages run one program, so that no device has to choose that of its stage.
      schedule: which batch a stage works on when.
      data_parallel: shards of a batch.
      stash_bytes: bytes that each stage keeps between forward and update: a ring of batches, or a batch's parts.
      stash_slot_bytes: bytes that each device holds for the stash, as many as the largest one needs.
      signal_bytes: bytes of the signal that each block waits for, for a whole batch; 0 where it waits for none.
    """

    cuts: tuple[int, ...]
    costs: tuple[float, ...]
    flops: tuple[float, ...]
    message_bytes: tuple[int, ...]
    stage_bytes: tuple[int, ...]
    slot_bytes: int
    uniform: bool
    schedule: Schedule = Schedule("local", (None,))
    data_parallel: int = 1
    stash_bytes: tuple[int, ...] = ()
    stash_slot_bytes: int = 0
    signal_bytes: tuple[int, ...] = ()

    @property
    def stage_costs(self) -> tuple[float, ...]:
        return tuple(sum(self.costs[a:b]) for a, b in zip(self.cuts, self.cuts[1:], strict=False))


class States(Protocol):
    """`Engine.states`."""

    def __call__(self, state: Any, compiled_for: Batches | None = None) -> tuple[BlockState, ...]: ...


class Drain(Protocol):
    """`Engine.drain`."""

    def __call__(self, state: Any, compiled_for: Batches | None = None) -> tuple[tuple[BlockState, ...], Metrics]: ...


class Load(Protocol):
    """`Engine.load`."""

    def __call__(self, block_states: tuple[BlockState, ...], key: Key, first: int = 0) -> Any: ...


class Engine(NamedTuple):
    """Trains a model; all engines give the same numbers.

    Attributes:
      load: `(states, key, first=0) -> engine_state`, from one `BlockState` a block; `key` seeds dropout and the like,
        and `first` is the number of the next batch, for batches that bring none of their own.
      run: `(engine_state, batches) -> (engine_state, Metrics)`, compiled, the state donated.
      drain: `(engine_state, compiled_for=None) -> (states, Metrics)`: one `BlockState` a block after all fed batches,
        and the metrics of those that were in flight; leaves `engine_state` as it is.  Where `compiled_for` is any
        batches that `run` was called with, their program is used and no other is compiled.
      states: the first of the two that `drain` returns.
      put: places a pytree of host arrays where `run` wants its batches, on every device alike; for arrays that are
        passed again and again, and for runs of several processes.
      plan: how the model is laid over stages.
      mesh: the mesh, or None.
    """

    load: Load
    run: Callable[[PyTree, Batches], tuple[PyTree, Metrics]]
    states: States
    drain: Drain
    put: Callable[[PyTree], PyTree]
    plan: Plan
    mesh: jax.sharding.Mesh | None = None


class Source(NamedTuple):
    """Training batches of one dataset, in an order fixed by its seed.

    Attributes:
      batches: `(first, count) -> Batches`, the batches `first .. first + count - 1` since the start of training.
      steps_per_epoch: full batches in an epoch; a partial last batch is dropped.
    """

    batches: Callable[[int, int], Batches]
    steps_per_epoch: int
