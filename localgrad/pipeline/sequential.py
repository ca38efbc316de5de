"""The sequential engine: one block after another.  It is the specification of every other engine."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from localgrad.base import Batches, BlockState, Engine, Key, Metrics, Model, PyTree
from localgrad.pipeline import step
from localgrad.pipeline.coupling import check_examples
from localgrad.pipeline.partition import make_plan
from localgrad.pipeline.ring import Ring
from localgrad.pipeline.stash import Stash
from localgrad.pipeline.stash import stashes as stashes_of


class SequentialState(NamedTuple):
    """The state of sequential training.

    Attributes:
      blocks: the blocks' states.
      key: the key of dropout and the like.
      next_id: the number of the next batch, for batches that bring none.
      ok: whether every number so far was finite; where blocks wait for signals, for each of them.
      pending: what delayed blocks still have to learn from, see `Pending`; () without delays.
    """

    blocks: tuple[BlockState, ...]
    key: Key
    next_id: jax.Array
    ok: jax.Array
    pending: PyTree = ()


class Pending(NamedTuple):
    """Batches that delayed blocks have seen and not learnt from.

    Attributes:
      fed: batches since the start.
      ids: the last batches' numbers.
      stashes: of each block, the last `delay + 1` stashes.
      errors: the last errors.
    """

    fed: jax.Array
    ids: list[jax.Array]
    stashes: list[list[jax.Array]]
    errors: list[jax.Array]


def sequential(model: Model, delays: Sequence[int] | None = None) -> Engine:
    """Trains a model one block after another, on one device.

    A scan over batches around a Python loop over blocks.  Blocks with `signal='none'` learn as the batch passes them.
    With `error`, all blocks learn after the forward pass, from what the last block hands down; with `cotangent`, from
    what the block above hands down.

    Args:
      model: any model.
      delays: for blocks with `signal='error'`, by how many batches the updates of each are late, as on the stages of a
        pipeline (`delays_of`): a block sees batch k before it has learnt from any later than `k - 1 - delay`.  The
        last block's is 0; none are late by default.

    Returns:
      An `Engine`.

    Raises:
      ValueError: for delays of a model that learns from no error, or that are not one a block ending in 0; for a batch
        of too few examples for the model to learn from, see `least_examples`.
    """
    signal = step.signal_of(model)
    check_examples(model, model.batch_size, f"batch_size={model.batch_size}")
    top = len(model.blocks) - 1
    late = _checked(model, delays) if delays is not None and any(delays) else ()
    if late:
        kept, (ids, stashes, errors) = rings_of(model, late)

    def load(block_states: tuple[BlockState, ...], key: Key, first: int = 0) -> SequentialState:
        # run donates its argument: the caller keeps theirs
        blocks, own_key = jax.tree.map(lambda x: jnp.array(x, copy=True), (tuple(block_states), key))
        next_id = jnp.int32(first)
        if signal == "none":
            return SequentialState(blocks, own_key, next_id, jnp.array(True))
        ok = jnp.ones((len(blocks),), bool)
        if not late:
            return SequentialState(blocks, own_key, next_id, ok)
        empty = Pending(jnp.int32(0), ids.empty(), [ring.empty() for ring in stashes], errors.empty())
        return SequentialState(blocks, own_key, next_id, ok, empty)

    def keys(state: SequentialState, batch_id: jax.Array) -> list[Key]:
        return [step.block_key(state.key, batch_id, i) for i in range(len(model.blocks))]

    def train_local(state: SequentialState, message: PyTree, batch_id: jax.Array):
        blocks, metrics, why, ok = [], [], [], state.ok
        for block, old, key in zip(model.blocks, state.blocks, keys(state, batch_id), strict=True):
            new, message, values, ok, stopped = step.train(block, old, message, key, ok)
            blocks.append(new)
            metrics.append(values)
            why.append(stopped)
        return state._replace(blocks=tuple(blocks), ok=ok), (tuple(metrics), tuple(why))

    def train_waiting(state: SequentialState, message: PyTree, batch_id: jax.Array):
        blocks, metrics, why, ok = [], [], [], []
        found = step.gradients(model, state.blocks, message, keys(state, batch_id), list(state.ok))
        for i, (block, (own, grads, values)) in enumerate(zip(model.blocks, found, strict=True)):
            own, sound, stopped = step.take(block, own, grads, values, state.ok[i])
            blocks.append(own)
            metrics.append(values)
            why.append(stopped)
            ok.append(sound)
        return state._replace(blocks=tuple(blocks), ok=jnp.stack(ok)), (tuple(metrics), tuple(why))

    # --- with delays -----------------------------------------------------------------------------------------------

    def learn(i: int, which: jax.Array, block: BlockState, ok: jax.Array, pending: Pending):
        """Block i learns from the `which`-th batch, if there was one: `(state, ok, stopped, metrics, number or -1)`."""

        def late_step(block: BlockState, ok: jax.Array):
            stash = kept[i].whole(i, stashes[i].read(pending.stashes[i], which), block)
            error = errors.read(pending.errors, which)
            grads, values, _ = step.answer(model.blocks[i], block, stash, None if i == top else error)
            return *step.take(model.blocks[i], block, grads, values, ok), values

        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(late_step, block, ok)[2:])
        due = which >= 0
        block, ok, *report = jax.lax.cond(due, late_step, lambda block, ok: (block, ok, *nothing), block, ok)
        return block, ok, *report, jnp.where(due, ids.read(pending.ids, which), -1)

    def learn_all(state: SequentialState, which: Sequence[jax.Array | None]):
        """Each block learns from one of the pending batches, or None: `(state, (metrics, batch numbers, stopped))`."""
        found = [
            learn(i, jnp.int32(-1) if q is None else q, state.blocks[i], state.ok[i], state.pending)
            for i, q in enumerate(which)
        ]
        blocks, ok, stopped, values, batch_id = zip(*found, strict=True)
        return state._replace(blocks=blocks, ok=jnp.stack(ok)), Metrics(values, batch_id, stopped)

    def train_delayed(state: SequentialState, message: PyTree, batch_id: jax.Array):
        blocks, fresh = step.forward_all(model, state.blocks, message, keys(state, batch_id), list(state.ok))
        error = step.downward(model.blocks[top], blocks[top], fresh[top])
        fed, old = state.pending.fed, state.pending
        leaves = [each.keep([stash]) for each, stash in zip(kept, fresh, strict=True)]
        pending = Pending(
            fed + 1,
            ids.write(old.ids, fed, batch_id),
            [ring.write(own, fed, new) for ring, own, new in zip(stashes, old.stashes, leaves, strict=True)],
            errors.write(old.errors, fed, error),
        )
        return learn_all(state._replace(blocks=tuple(blocks), pending=pending), [fed - delay for delay in late])

    @jax.jit
    def flush(state: SequentialState):
        """All that is pending, in order: `(states, Metrics)`."""
        reports = []
        for turn in range(max(late)):
            turns = [state.pending.fed - delay + turn if turn < delay else None for delay in late]
            state, report = learn_all(state, turns)
            reports.append(report)
        return state.blocks, jax.tree.map(lambda *each: jnp.stack(each), *reports)

    # --- calls -----------------------------------------------------------------------------------------------------

    def run(state: SequentialState, batches: Batches) -> tuple[SequentialState, Metrics]:
        step.check_batches(model, batches)

        def one(state: SequentialState, xs: tuple[jax.Array, PyTree]):
            batch_id, item = xs
            batch_id, next_id = step.number(batch_id, state.next_id)
            state = state._replace(next_id=next_id)
            message = step.enter(model, batches.fetch(item, 0, model.batch_size))
            if late:
                return train_delayed(state, message, batch_id)
            state, (values, stopped) = (train_local if signal == "none" else train_waiting)(state, message, batch_id)
            return state, Metrics(values, (batch_id,) * len(values), stopped)

        state, metrics = jax.lax.scan(one, state, (batches.batch_id, batches.items))
        return state, step.with_parameters_checked(metrics, [step.finite(block.params) for block in state.blocks])

    def drain(state: SequentialState, compiled_for: Batches | None = None) -> tuple[tuple[BlockState, ...], Metrics]:
        if late:
            return flush(state)
        return jax.tree.map(jnp.copy, state.blocks), step.no_metrics(model)

    return Engine(
        load=load,
        run=jax.jit(run, donate_argnums=0),
        states=lambda state, compiled_for=None: drain(state, compiled_for)[0],
        drain=drain,
        put=lambda tree: jax.tree.map(jnp.asarray, tree),
        plan=make_plan(model)._replace(schedule="delayed" if late else "local"),
    )


def delays_of(cuts: Sequence[int]) -> tuple[int, ...]:
    """By how many batches each block's updates are late on stages with these cuts, `--staleness=delayed`.

    Examples:
      >>> delays_of((0, 1, 3, 4))
      (2, 1, 1, 0)
    """
    stages = len(cuts) - 1
    return tuple(stages - 1 - s for s in range(stages) for _ in range(cuts[s], cuts[s + 1]))


def rings_of(model: Model, late: Sequence[int]) -> tuple[list[Stash], tuple[Ring, list[Ring], Ring]]:
    """Each block's stash, and the rings: of the last batches' numbers, of the stashes, and of the errors."""
    states, messages = step.specs(model)
    kept, longest = stashes_of(model, states, messages), max(late) + 1
    return kept, (
        Ring(jax.ShapeDtypeStruct((), jnp.int32), longest),
        [Ring(stash.spec, delay + 1) for stash, delay in zip(kept, late, strict=True)],
        Ring(step.signals(model, states, messages)[0], longest),
    )


def _checked(model: Model, delays: Sequence[int]) -> tuple[int, ...]:
    if step.signal_of(model) != "error":
        raise ValueError(
            f"method {model.method!r} learns from no error at the output, so its updates are never late: leave out "
            "the delays."
        )
    if len(delays) != len(model.blocks) or delays[-1] != 0 or min(delays) < 0:
        raise ValueError(f"delays are one a block, none negative, the last 0; got {list(delays)}.")
    return tuple(delays)
