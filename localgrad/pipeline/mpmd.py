"""The second engine: every stage is programs of its own on a device of its own, started by the host.

The host walks through the ticks of the schedule's value and gives each device its work without waiting for any of it:
a device begins once what it needs has been handed to it.  A stage's programs have the shapes of its own blocks, so
nothing is padded and no stage is chosen.  After a call every stage has taken all batches forward, and has learnt from
all but the last `delay`: in flight is what blocks of the sequential engine with these delays have not learnt from.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from localgrad import target
from localgrad.base import LEARNT, Batches, BlockState, Engine, Key, Message, Metrics, Model, PyTree, Schedule
from localgrad.keys import fold_in
from localgrad.pipeline import feeding
from localgrad.pipeline.finite import metrics_of
from localgrad.pipeline.loading import check_context, checked
from localgrad.pipeline.mesh import enough_devices
from localgrad.pipeline.partition import block_programs, unpadded
from localgrad.pipeline.phases import Phases, Report
from localgrad.pipeline.specs import late_and_prompt, no_metrics, signal_of
from localgrad.pipeline.spmd import pipeline_of
from localgrad.pipeline.stage import Effects, advance, answer_part, handed_down, learn_at_once, learn_then, pass_part

At = tuple[int, int]  # a batch, counted from the start, and a part of it
_add = jax.jit(lambda total, one: jax.tree.map(jnp.add, total, one), donate_argnums=0)


class StageState(NamedTuple):
    """What a device holds: its blocks' states, whether each block's numbers were finite so far, and the key."""

    blocks: tuple[BlockState, ...]
    ok: jax.Array
    key: Key


class MpmdState(NamedTuple):
    """The state of training.

    Attributes:
      stages: one a stage, on its device.
      counted: how many batches were fed, and the number of the next, for batches that bring none: int32 `(2,)`.
      entries: by stage, batch and part, for blocks that will learn from it: what is kept, the batch's number, reports.
      signals: by the same, what such blocks wait for, where it is there.
    """

    stages: tuple[StageState, ...]
    counted: jax.Array
    entries: dict[tuple[int, At], tuple[list[jax.Array], Any, Sequence[Report]]]
    signals: dict[tuple[int, At], PyTree]


def mpmd(
    model: Model,
    *,
    stages: int,
    cuts: Sequence[int] | None = None,
    devices: Sequence[jax.Device] | None = None,
    staleness: str = "delayed",
    micro_batches: int | None = None,
    asynchronous: str | None = None,
) -> Engine:
    """Trains all stages of a model at once, each by programs of its own that the host starts.

    The numbers of `spmd`.  No device holds padding or another stage's code, and equal stages are traced once; but the
    host has work with every message, and all devices are of this process.

    Args:
      model, stages, cuts, devices, staleness, micro_batches, asynchronous: see `spmd`.

    Raises:
      ValueError: as `spmd`, and where there are several processes.
    """
    if (count := jax.process_count()) > 1:
        raise ValueError(f"mpmd drives the devices of one process, and there are {count}: use spmd, which spans them.")
    with target.traced_for(target.platform_of(devices)):  # what blocks keep of a batch is not the same on all
        pipeline = pipeline_of(model, stages, 1, cuts, staleness, micro_batches, asynchronous)
        used, plan = enough_devices(jax.devices() if devices is None else devices, stages), pipeline.plan
        schedule, spans, most = plan.schedule, pipeline.layout.blocks, max(map(len, pipeline.layout.blocks))
        moments = late_and_prompt(model, spans, schedule.wait)
        phases = Phases(pipeline.layout, *moments, borrow=asynchronous == "current" or not any(schedule.delays))
        laid = _Laid(phases, schedule, used)
    put = lambda tree, device: jax.device_put(tree, device, may_alias=False)  # programs donate; callers keep theirs

    def load(block_states: tuple[BlockState, ...], key: Key, first: int = 0) -> MpmdState:
        check_context("mpmd")
        given, own_key = checked(model, pipeline.layout.state_specs, block_states, key)
        own = [StageState(given[a.start : a.stop], jnp.ones(most, bool), own_key) for a in spans]
        return MpmdState(tuple(map(put, own, used)), put(np.array((0, first), np.int32), used[0]), {}, {})

    def run(state: MpmdState, batches: Batches) -> tuple[MpmdState, Metrics]:
        check_context("mpmd")
        feeding.check_batches(model, batches)
        ids, next_id = feeding.numbers(np.asarray(batches.batch_id).tolist(), int(np.asarray(state.counted)[1]))
        return _Call(laid, state, ids).play(jax.device_put(batches, used[0]), next_id, schedule.delays)

    def drain(state: MpmdState, compiled_for: Batches | None = None) -> tuple[tuple[BlockState, ...], Metrics]:
        metrics = no_metrics(model)
        if any(schedule.delays):
            copy = state._replace(stages=jax.tree.map(jnp.copy, state.stages))
            state, metrics = _Call(laid, copy, []).play(None, 0, [0] * stages)
        return put(tuple(block for stage in state.stages for block in stage.blocks), used[0]), metrics

    return Engine(
        load=load,
        run=run,
        states=lambda state, compiled_for=None: drain(state)[0],
        drain=drain,
        put=lambda tree: jax.device_put(tree, used[0]),
        plan=unpadded(plan),
    )


class _Stage:
    """The programs of a stage, and of all like it; `where` is its first block, the number of a batch, and a part."""

    def __init__(self, phases: Phases, stage: int, parts: int, platform: str):
        self._of, self._span, self._keys = (phases, stage), phases.layout.blocks[stage], phases.layout.keys
        self._mean = lambda sums: sums if parts == 1 else jax.tree.map(lambda x: x / parts, sums)
        compiled = lambda each, *donated: jax.jit(target.traced(each, platform), donate_argnums=donated)
        self.forward = compiled(self._forward if parts == 1 else self._forward_part, 0)
        self.settle, self.learn = compiled(self._settle, 0), compiled(self._learn, 0)
        self.meet = compiled(lambda state, stash, signal: answer_part(*self._of, state.blocks, stash, signal))

    def _forward(self, state: StageState, arrived: tuple[Message, Any], where: jax.Array):
        """A batch goes through, and learns what can at once: `(state, sent, stash, reports, down)`."""
        keys = self._keys(self._of[1], where[0], state.key, where[1])
        found = advance(*self._of, state.blocks, arrived[0], keys, state.ok, arrived[1])
        new, reports = self._after(state, found.states, found.ok, found.reports)
        down = handed_down(*self._of, found.downs, found.made)
        return new, (found.sent, found.sound), self._of[0].leaves(self._of[1], found.stashes), reports, down

    def _forward_part(self, state: StageState, arrived: tuple[Message, Any], where: jax.Array):
        """The pass over a part, from which nothing learns yet: the same with effects in place of reports."""
        keys = [fold_in(key, where[2]) for key in self._keys(self._of[1], where[0], state.key, where[1])]
        blocks, sent, stash, effects = pass_part(*self._of, state.blocks, arrived[0], keys, state.ok)
        return state._replace(blocks=tuple(blocks)), (sent, None), stash, effects, None

    def _settle(self, state: StageState, sums: list[Effects]) -> tuple[StageState, list[Report]]:
        """What waits for nothing learns from the mean over parts: `(state, reports)`."""
        return self._after(state, *learn_at_once(*self._of, state.blocks, self._mean(sums), state.ok))

    def _learn(self, state: StageState, sums: dict[int, Effects], reports: list[Report]):
        """What has met its signal learns, from the mean over parts: `(state, reports)`."""
        given = dict(zip(self._span, reports, strict=True))
        return self._after(state, *learn_then(*self._of, state.blocks, self._mean(sums), given, state.ok))

    def _after(self, state: StageState, blocks: Sequence[BlockState], ok: jax.Array, reports: Mapping[int, Report]):
        return StageState(tuple(blocks), ok, state.key), [reports[i] for i in self._span]


class _Laid:
    """A model on its devices: what all calls share."""

    def __init__(self, phases: Phases, schedule: Schedule, devices: Sequence[jax.Device]):
        self.phases, self.schedule, self.devices, platform = phases, schedule, devices, devices[0].platform
        self.model, self.spans, known = phases.layout.model, phases.layout.blocks, dict[Any, _Stage]()
        self.signal, self.programs, texts = signal_of(self.model), list[_Stage](), block_programs(self.model)
        self.enter = jax.jit(target.traced(self._enter, platform))
        for s, span in enumerate(self.spans):  # stages that are alike have one
            like = tuple((texts[i], i in phases.late[s], i in phases.prompt[s]) for i in span)
            self.programs.append(known.setdefault(like, _Stage(phases, s, schedule.parts, platform)))

    def _enter(self, batches: Batches, k: jax.Array, part: jax.Array) -> tuple[Message, jax.Array | None]:
        """What the first stage is given of batch k of a call, or of a part of it."""
        item = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, k, keepdims=False), batches.items)
        size = self.model.batch_size // self.schedule.parts
        message = feeding.enter(self.model, batches.fetch(item, part * size, size))
        return message, jnp.array(True) if self.signal == "none" else None


class _Call:
    """The books of one call: what has been handed to which stage, and what was told of which batch."""

    def __init__(self, laid: _Laid, state: MpmdState, ids: Sequence[int]):
        self.laid, self.ids, self.begin, self.live = laid, ids, int(np.asarray(state.counted)[0]), list(state.stages)
        self.end, self.sums, self.messages = self.begin + len(ids), dict[int, Any](), dict[tuple[int, At], Any]()
        self.entries, self.signals = dict(state.entries), dict(state.signals)
        self.told: list[tuple[int, bool, Any, Sequence[Report]]] = []  # stage, if of late blocks, batch, by block

    def play(self, batches: Batches | None, next_id: int, hold: Sequence[int]) -> tuple[MpmdState, Metrics]:
        """All work on the batches, tick by tick; stage s does not learn from the last `hold[s]` of them yet."""
        schedule = self.laid.schedule
        for tick in range(self.begin * schedule.period, schedule.ticks(self.end)):
            for s in range(schedule.stages):
                due, now = schedule.answers(tick, s), schedule.forward(tick, s)
                if due and (s, due) in self.entries and due[0] < self.end - hold[s]:
                    self.learn(s, due)
                if now and self.begin <= now[0] < self.end:
                    self.forward(s, now, batches)
        counted = jax.device_put(np.array((self.end, next_id), np.int32), self.laid.devices[0])
        return MpmdState(tuple(self.live), counted, self.entries, self.signals), self.metrics()

    def forward(self, s: int, at: At, batches: Batches | None) -> None:
        """Stage s takes a batch, or a part of it, forward."""
        laid, program, k = self.laid, self.laid.programs[s], at[0] - self.begin
        arrived = self.messages.pop((s, at)) if s else laid.enter(batches, np.int32(k), np.int32(at[1]))
        given = self.live[s], arrived, np.array((laid.spans[s][0], self.ids[k], at[1]), np.int32)
        self.live[s], sent, stash, found, down = program.forward(*given)
        if laid.schedule.parts > 1:
            sums = self.summed(s, at, found)
            self.live[s], found = (self.live[s], ()) if sums is None else program.settle(self.live[s], sums)
        if laid.phases.late[s]:
            self.entries[s, at] = stash, np.int32(self.ids[k]), found
        if s + 1 < len(laid.spans):
            self.messages[s + 1, at] = jax.device_put(sent, laid.devices[s + 1])
        self.hand_down(s, at, down)
        self.told.append((s, False, np.int32(self.ids[k]), found))

    def learn(self, s: int, at: At) -> None:
        """Stage s meets the signal of a batch, or of a part of it, and learns once it has met all parts."""
        stash, batch_id, reports = self.entries.pop((s, at))
        made, down = self.laid.programs[s].meet(self.live[s], stash, self.signals.pop((s, at), None))
        if (sums := self.summed(s, at, made)) is not None:
            self.live[s], reports = self.laid.programs[s].learn(self.live[s], sums, reports)
            self.told.append((s, True, batch_id, reports))
        self.hand_down(s, at, down)

    def summed(self, s: int, at: At, made: PyTree) -> PyTree:
        """Adds up what the parts of a batch make: the sum with the last of them, and before it None."""
        self.sums[s] = _add(self.sums[s], made) if at[1] else made
        return self.sums.pop(s) if at[1] == self.laid.schedule.parts - 1 else None

    def hand_down(self, s: int, at: At, down: PyTree) -> None:
        """A signal goes to all stages, if it is the error at the output, and else to the one below."""
        for below in range(len(self.live)) if self.laid.signal == "top" else [s - 1]:
            if down is not None and self.laid.phases.late[below]:
                self.signals[below, at] = jax.device_put(down, self.laid.devices[below])

    def metrics(self) -> Metrics:
        """All that was told; a block that learnt from fewer batches than came begins with rows of batch -1."""
        rows: list[list[Any]] = [[] for _ in self.laid.model.blocks]
        for s, late, batch_id, reports in self.told:
            for i, report in zip(self.laid.spans[s], reports, strict=False):  # none of a part that is not the last
                if (i in self.laid.phases.late[s]) == late:
                    rows[i].append((batch_id, report))
        for spec, own in zip(self.laid.phases.metrics, rows, strict=True):
            nothing = np.int32(-1), ({name: np.zeros(x.shape, x.dtype) for name, x in spec.items()}, np.int32(LEARNT))
            own[:0] = [nothing] * ((len(self.ids) or max(self.laid.schedule.delays)) - len(own))
        found = [
            metrics_of(own.blocks, rows[a.start : a.stop]) for own, a in zip(self.live, self.laid.spans, strict=True)
        ]
        return jax.device_put(Metrics(*(sum(parts, ()) for parts in zip(*found, strict=True))), self.laid.devices[0])
