"""The sequential engine with delays: what a pipeline's stages learn late, block after block on one device.

A block sees batch k before it has learnt from the signal of any batch later than k - 1 - delay.  So of each block the
stashes of its last `delay + 1` batches are kept, and the signals that it has not met yet.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from localgrad.base import LEARNT, BlockState, Key, Message, Metrics, Model, Schedule, Spec
from localgrad.pipeline import step
from localgrad.pipeline.ring import Ring
from localgrad.pipeline.specs import asked_on_way_back, passes, signal_of, signals, specs
from localgrad.pipeline.stash import stashes

_NAMES = {"top": "broadcast", "next": "relay", "above": "chain"}


class Pending(NamedTuple):
    """Batches that delayed blocks have seen and not learnt from.

    Attributes:
      fed: batches since the start.
      ids: the last batches' numbers.
      entries: of each block, what it keeps of the last `delay + 1` batches.
      signals: of each block, the last signals.
    """

    fed: jax.Array
    ids: list[jax.Array]
    entries: list[list[jax.Array]]
    signals: list[list[jax.Array]]


class Entry(NamedTuple):
    """What a block keeps of a batch: leaves of its stash, and what it reported of its pass."""

    stash: list[jax.Array]
    metrics: dict[str, jax.Array]
    stopped: jax.Array | Spec


class Delayed:
    """A model whose blocks learn from their signals late.

    Args:
      model: any model whose blocks wait for a signal.
      delays: one a block, see `check_delays`.
      weights: see `sequential`.
    """

    def __init__(self, model: Model, delays: Sequence[int], weights: str = "stashed"):
        self._model, self._delays, self._signal = model, tuple(delays), signal_of(model)
        self.schedule = Schedule(_NAMES[self._signal], (max(delays) + 1,))
        given = specs(model)
        passed = passes(model, *given)
        self._metrics = [each.metrics for each in passed]
        self.kept = stashes(model, *given, borrow=weights == "current")
        entry = lambda stash, each: Entry(stash.spec, dict(each.metrics), jax.ShapeDtypeStruct((), jnp.int32))
        waits = [block.signal != "none" for block in model.blocks]
        # Where signals come down block by block, that of a batch waits only for the block that it comes to.
        late = [
            d - (above if self._signal == "above" else 0) for d, above in zip(delays, (*delays[1:], 0), strict=True)
        ]
        self.ids = Ring(jax.ShapeDtypeStruct((), jnp.int32), max(delays) + 1)
        self.entries = [
            Ring(entry(stash, each) if wait else (), delay + 1)
            for stash, each, wait, delay in zip(self.kept, passed, waits, delays, strict=True)
        ]
        self.signals = [Ring(spec, n + 1) for spec, n in zip(signals(model, *given), late, strict=True)]

    def empty(self) -> Pending:
        """Nothing seen as yet."""
        entries, found = ([ring.empty() for ring in rings] for rings in (self.entries, self.signals))
        return Pending(jnp.int32(0), self.ids.empty(), entries, found)

    def train(
        self,
        blocks: Sequence[BlockState],
        ok: jax.Array,
        pending: Pending,
        message: Message,
        keys: Sequence[Key],
        batch_id: jax.Array,
    ) -> tuple[tuple[BlockState, ...], jax.Array, Pending, Metrics]:
        """A batch goes through all blocks, and each learns from the signal of an earlier one."""
        passed = step.forward_all(self._model, blocks, message, keys, list(ok))
        fed, entries, found = pending.fed, list(pending.entries), list(pending.signals)
        for i, (block, each) in enumerate(zip(self._model.blocks, passed, strict=True)):
            if block.signal != "none":
                entry = Entry(self.kept[i].keep([each.stash]), dict(each.metrics), each.stopped)
                entries[i] = self.entries[i].write(entries[i], fed, entry)
            if block.signal in ("top", "next"):
                down = passed[-1 if block.signal == "top" else i + 1].down
                found[i] = self.signals[i].write(found[i], fed, down)
        pending = Pending(fed + 1, self.ids.write(pending.ids, fed, batch_id), entries, found)
        due = [fed - delay for delay in self._delays]
        blocks, ok, pending, report = self._learn(
            [each.state for each in passed], [each.ok for each in passed], pending, due
        )
        own = [block.signal == "none" for block in self._model.blocks]
        choose = lambda now, later: tuple(a if mine else b for mine, a, b in zip(own, now, later, strict=True))
        metrics = choose([dict(each.metrics) for each in passed], report.values)
        stopped = choose([each.stopped for each in passed], report.stopped)
        return blocks, ok, pending, Metrics(metrics, choose([batch_id] * len(own), report.batch_id), stopped)

    def flush(
        self, blocks: Sequence[BlockState], ok: jax.Array, pending: Pending
    ) -> tuple[tuple[BlockState, ...], Metrics]:
        """Learns all that is pending, in order: `(states, Metrics)`."""
        reports = []
        for turn in range(max(self._delays)):
            due = [pending.fed - d + turn if turn < d else jnp.int32(-1) for d in self._delays]
            blocks, ok, pending, report = self._learn(list(blocks), list(ok), pending, due)
            reports.append(report)
        return tuple(blocks), jax.tree.map(lambda *each: jnp.stack(each), *reports)

    def _learn(
        self, blocks: list[BlockState], ok: list[jax.Array], pending: Pending, due: Sequence[jax.Array]
    ) -> tuple[tuple[BlockState, ...], jax.Array, Pending, Metrics]:
        """From the top down, each block learns from the batch that is due, -1 being none."""
        reports: list[tuple[dict[str, jax.Array], jax.Array, jax.Array]] = []
        found = list(pending.signals)
        for i, which in reversed(list(enumerate(due))):
            blocks[i], ok[i], stopped, metrics, down = self._learn_one(i, which, blocks[i], ok[i], pending, found[i])
            is_due = which >= 0
            if asked_on_way_back(self._model, i):
                before = self.signals[i - 1].read(found[i - 1], which)
                chosen = jax.tree.map(lambda new, old, is_due=is_due: jnp.where(is_due, new, old), down, before)
                found[i - 1] = self.signals[i - 1].write(found[i - 1], which, chosen)
            reports.append((metrics, stopped, jnp.where(is_due, self.ids.read(pending.ids, which), -1)))
        values, stopped_by, ids = zip(*reports[::-1], strict=True)
        return tuple(blocks), jnp.stack(ok), pending._replace(signals=found), Metrics(values, ids, stopped_by)

    def _learn_one(self, i: int, which: jax.Array, state: BlockState, ok: jax.Array, pending: Pending, ring: list):
        """Block i learns from a batch, if there is one: `(state, ok, stopped, metrics, down)`."""
        block, last = self._model.blocks[i], i == len(self._model.blocks) - 1
        if block.signal == "none":
            nothing = {name: jnp.zeros(x.shape, x.dtype) for name, x in self._metrics[i].items()}
            return state, ok, jnp.int32(LEARNT), nothing, None

        def learn(state: BlockState, ok: jax.Array):
            entry = self.entries[i].read(pending.entries[i], which)
            signal = None if last else self.signals[i].read(ring, which)
            stash = self.kept[i].whole(i, entry.stash, state)
            made = step.backward(block, state, stash, signal, asked_on_way_back(self._model, i))
            state, ok, stopped = step.take(block, state, made.grads, made.metrics, ok)
            metrics, stopped = step.merged((entry.metrics, entry.stopped), (made.metrics, stopped))
            return state, ok, stopped, metrics, made.down

        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(learn, state, ok)[2:])
        return jax.lax.cond(which >= 0, learn, lambda state, ok: (state, ok, *nothing), state, ok)


def check_delays(model: Model, delays: Sequence[int]) -> tuple[int, ...]:
    """Delays that can be, as a tuple.

    Raises:
      ValueError: see `sequential`.
    """
    signal = signal_of(model)
    if signal == "none":
        raise ValueError(
            f"the blocks of method {model.method!r} wait for no signal, so their updates are never late: leave out the "
            "delays."
        )
    if len(delays) != len(model.blocks) or delays[-1] != 0 or min(delays) < 0:
        raise ValueError(f"delays are one a block, none negative, the last 0; got {list(delays)}.")
    if signal == "above" and any(below < above for below, above in zip(delays, delays[1:], strict=False)):
        raise ValueError(
            f"signals of method {model.method!r} come down block by block, so no delay is less than that of the block "
            f"above; got {list(delays)}."
        )
    return tuple(delays)
