"""The sequential engine: one block after another.  It is the specification of every other engine."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from localgrad.base import Batches, BlockState, Engine, Key, Message, Metrics, Model, PyTree
from localgrad.keys import block_key
from localgrad.pipeline import delayed, feeding, step
from localgrad.pipeline.coupling import check_examples
from localgrad.pipeline.delayed import Pending
from localgrad.pipeline.finite import finite, with_parameters_checked
from localgrad.pipeline.loading import checked
from localgrad.pipeline.partition import make_plan
from localgrad.pipeline.schedules import WEIGHTS
from localgrad.pipeline.specs import asked_on_way_back, no_metrics, signal_of, specs
from localgrad.registry import check_known


class SequentialState(NamedTuple):
    """The state of sequential training.

    Attributes:
      blocks: the blocks' states.
      key: the key of dropout and the like.
      next_id: the number of the next batch, for batches that bring none.
      ok: whether every number so far was finite; where blocks wait for signals, for each of them.
      pending: what delayed blocks still have to learn from; () without delays.
    """

    blocks: tuple[BlockState, ...]
    key: Key
    next_id: jax.Array
    ok: jax.Array
    pending: Pending | tuple[()] = ()


def sequential(model: Model, delays: Sequence[int] | None = None, *, weights: str = "stashed") -> Engine:
    """Trains a model one block after another, on one device.

    A scan over batches. Of each, blocks work one after another from the input up, and what learns at once does so as
    the batch passes it; then, from the top down, blocks learn from the signals that they have waited for.

    Args:
      model: any model.
      delays: of each block, by how many batches what it learns from a signal is late, as on the stages of a pipeline
        (`delays_of`): a block sees batch k before it has learnt from the signal of any batch later than
        `k - 1 - delay`.  None are late by default.
      weights: with delays, which parameters the way back uses: `stashed`, those of the batch's pass; or `current`.

    Returns:
      An `Engine`.

    Raises:
      ValueError: for delays that are not one a block, that rise from a block to the one above where signals come down
        block by block, or of blocks that wait for nothing; for unknown `weights`; for a batch of too few examples for
        the model to learn from, see `least_examples`.
    """
    check_known("weights", weights, WEIGHTS)
    signal = signal_of(model)
    plan = make_plan(model)  # refuses blocks that wait for what nobody hands down
    check_examples(model, model.batch_size, f"batch_size={model.batch_size}")
    late = delayed.check_delays(model, delays) if delays is not None and any(delays) else ()
    waiting = delayed.Delayed(model, late, weights) if late else None
    flush = jax.jit(waiting.flush) if waiting else None
    top, state_specs = len(model.blocks) - 1, specs(model)[0]

    def load(block_states: tuple[BlockState, ...], key: Key, first: int = 0) -> SequentialState:
        given = checked(model, state_specs, block_states, key)
        # run donates its argument: the caller keeps theirs
        blocks, own_key = jax.tree.map(lambda x: jnp.array(x, copy=True), given)
        ok = jnp.array(True) if signal == "none" else jnp.ones((len(blocks),), bool)
        return SequentialState(blocks, own_key, jnp.int32(first), ok, waiting.empty() if waiting else ())

    def train_local(state: SequentialState, message: Message, keys: Sequence[Key], batch_id: jax.Array):
        """Blocks that wait for nothing: one that has stopped stops those above."""
        passed: list[step.Passed] = []
        for block, old, key in zip(model.blocks, state.blocks, keys, strict=True):
            below = passed[-1] if passed else None
            message, ok = (below.message, below.ok) if below else (message, state.ok)
            passed.append(step.forward(block, old, message, key, ok))
        new = state._replace(blocks=tuple(each.state for each in passed), ok=passed[-1].ok)
        return new, _report([(dict(each.metrics), each.stopped) for each in passed], batch_id)

    def train_waiting(state: SequentialState, message: Message, keys: Sequence[Key], batch_id: jax.Array):
        """Blocks some of which wait for signals, which come in time."""
        passed = step.forward_all(model, state.blocks, message, keys, list(state.ok))
        blocks, ok = [each.state for each in passed], [each.ok for each in passed]
        reports = [(dict(each.metrics), each.stopped) for each in passed]
        above: PyTree = None  # what the block above hands down on the way back
        for i, block in reversed(list(enumerate(model.blocks))):
            if block.signal == "none":
                continue
            given = above if signal == "above" else passed[top if signal == "top" else i + 1].down
            found = step.backward(block, blocks[i], passed[i].stash, given, asked_on_way_back(model, i))
            blocks[i], ok[i], stopped = step.take(block, blocks[i], found.grads, found.metrics, ok[i])
            reports[i] = step.merged(reports[i], (found.metrics, stopped))
            above = found.down
        return state._replace(blocks=tuple(blocks), ok=jnp.stack(ok)), _report(reports, batch_id)

    def train_delayed(state: SequentialState, message: Message, keys: Sequence[Key], batch_id: jax.Array):
        """Blocks some of which wait for signals, which come late."""
        assert waiting is not None and isinstance(state.pending, Pending)
        blocks, ok, pending, report = waiting.train(state.blocks, state.ok, state.pending, message, keys, batch_id)
        return state._replace(blocks=blocks, ok=ok, pending=pending), report

    train = train_local if signal == "none" else train_delayed if late else train_waiting

    def run(state: SequentialState, batches: Batches) -> tuple[SequentialState, Metrics]:
        feeding.check_batches(model, batches)

        def one(state: SequentialState, xs: tuple[jax.Array, PyTree]):
            batch_id, item = xs
            batch_id, next_id = feeding.number(batch_id, state.next_id)
            message = feeding.enter(model, batches.fetch(item, 0, model.batch_size))
            keys = [block_key(state.key, batch_id, i) for i in range(len(model.blocks))]
            return train(state._replace(next_id=next_id), message, keys, batch_id)

        state, metrics = jax.lax.scan(one, state, (batches.batch_id, batches.items))
        return state, with_parameters_checked(metrics, [finite(block.params) for block in state.blocks])

    def drain(state: SequentialState, compiled_for: Batches | None = None) -> tuple[tuple[BlockState, ...], Metrics]:
        if flush is not None:
            return flush(state.blocks, state.ok, state.pending)
        return jax.tree.map(jnp.copy, state.blocks), no_metrics(model)

    return Engine(
        load=load,
        run=jax.jit(run, donate_argnums=0),
        states=lambda state, compiled_for=None: drain(state, compiled_for)[0],
        drain=drain,
        put=lambda tree: jax.tree.map(jnp.asarray, tree),
        plan=plan._replace(schedule=waiting.schedule) if waiting else plan,
    )


def _report(reports: Sequence[tuple[dict[str, jax.Array], jax.Array]], batch_id: jax.Array) -> Metrics:
    metrics, stopped = zip(*reports, strict=True)
    return Metrics(metrics, (batch_id,) * len(reports), stopped)
