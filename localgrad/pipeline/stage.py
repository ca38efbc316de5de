"""What a stage does with a batch, or with a part of one, whichever engine runs it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from localgrad.base import LEARNT, Backward, BlockState, Forward, Key, Message, PyTree
from localgrad.pipeline import step
from localgrad.pipeline.phases import Phases, Report
from localgrad.pipeline.specs import signal_of

Effects = tuple[Mapping[str, PyTree], Mapping[str, jax.Array]]  # a block's gradients and metrics


class Advanced(NamedTuple):
    """What a pass over a batch leaves of a stage.

    Attributes:
      states: of its blocks, those updated that learn in the tick of their pass.
      ok: of each block, whether every number so far was finite, `(N,)`, N being the most blocks that a stage has.
      sent: the message for the stage above.
      sound: whether all blocks have learnt from the batch, where that was asked.
      stashes, reports, downs: of each block, what it keeps, its report of what it has learnt, and what it hands down.
      made: what blocks have made of signals from this stage.
    """

    states: list[BlockState]
    ok: jax.Array
    sent: Message
    sound: jax.Array | None
    stashes: dict[int, PyTree]
    reports: dict[int, Report]
    downs: dict[int, PyTree]
    made: dict[int, Backward]


def advance(
    phases: Phases,
    stage: int,
    states: Sequence[BlockState],
    message: Message,
    keys: Sequence[Key],
    ok: jax.Array,
    sound: jax.Array | None = None,
) -> Advanced:
    """A stage takes a batch forward, and learns what can be learnt at once; see `Phases.forward`."""
    passed = phases.forward(stage, states, message, keys, ok, sound)
    each = dict(zip(phases.layout.blocks[stage], passed, strict=True))
    stashes, downs = {i: one.stash for i, one in each.items()}, {i: one.down for i, one in each.items()}
    first: dict[int, Report] = {i: (dict(one.metrics), one.stopped) for i, one in each.items()}
    moved, ok = [one.state for one in passed], phases.layout.by_block([one.ok for one in passed], True)
    made = phases.answer_prompt(stage, moved, stashes, downs)
    after, ok, reports = phases.update(stage, moved, made, first, ok)
    sound = None if sound is None else passed[-1].ok
    return Advanced(after, ok, passed[-1].message, sound, stashes, reports, downs, made)


def handed_down(phases: Phases, stage: int, downs: Mapping[int, PyTree], made: Mapping[int, Backward]) -> PyTree:
    """What a stage hands down of its pass: to the stage below, or, of the last one's error, to all; None where nothing.

    Args:
      phases, stage: the stage.
      downs: what each of its blocks handed down in its pass; None where nobody waits for it.
      made: what each of its prompt blocks made of its signal.
    """
    span, kind = phases.layout.blocks[stage], signal_of(phases.layout.model)
    if kind == "above":
        return made[span[0]].down if span[0] in made else None
    return downs[span[-1] if kind == "top" else span[0]]


def pass_part(
    phases: Phases, stage: int, states: Sequence[BlockState], message: Message, keys: Sequence[Key], ok: jax.Array
) -> tuple[list[BlockState], Message, list[jax.Array], list[Effects]]:
    """A stage takes a part of a batch forward, from which nothing learns yet; `states`, `keys`, `ok` are one a block.

    Returns:
      `(states, message, stash, effects)`: batch statistics move; the stash is what is kept for `answer_part`.
    """
    passed: list[Forward] = []
    for j, i in enumerate(phases.layout.blocks[stage]):
        passed.append(step.pass_part(phases.blocks[i], states[j], message, keys[j], ok[j]))
        message = passed[-1].message
    moved = [old._replace(model_state=new.model_state) for old, new in zip(states, passed, strict=True)]
    each = zip(phases.layout.blocks[stage], passed, strict=True)
    return moved, message, phases.leaves(stage, {i: one.stash for i, one in each}), [effects_of(one) for one in passed]


def learn_at_once(
    phases: Phases, stage: int, states: Sequence[BlockState], told: Sequence[Effects], ok: jax.Array
) -> tuple[list[BlockState], jax.Array, dict[int, Report]]:
    """The update of a stage's groups that wait for nothing, from the means over parts: `(states, ok, reports)`."""
    states, reports = list(states), {}
    for j, (i, (grads, metrics)) in enumerate(zip(phases.layout.blocks[stage], told, strict=True)):
        reports[i] = (metrics, jnp.int32(LEARNT))
        if grads:
            states[j], sound, stopped = step.take(phases.blocks[i], states[j], grads, metrics, ok[j])
            ok, reports[i] = ok.at[j].set(sound), (metrics, stopped)
    return states, ok, reports


def answer_part(
    phases: Phases, stage: int, states: Sequence[BlockState], kept: Sequence[jax.Array], signal: PyTree
) -> tuple[dict[int, Effects], PyTree]:
    """What a stage's late blocks make of a signal, and what the lowest hands down; see `Phases.answer`."""
    made, down = phases.answer(stage, states, kept, signal)
    return {i: effects_of(each) for i, each in made.items()}, down


def learn_then(
    phases: Phases,
    stage: int,
    states: Sequence[BlockState],
    effects: Mapping[int, Effects],
    reports: Mapping[int, Report],
    ok: jax.Array,
) -> tuple[list[BlockState], jax.Array, dict[int, Report]]:
    """The update of a stage's late blocks from the means over parts; see `Phases.update`."""
    return phases.update(stage, states, {i: Backward(*each) for i, each in effects.items()}, reports, ok)


def effects_of(found: Forward | Backward) -> Effects:
    """What a pass, or the way back, gives for the update."""
    return dict(found.grads), dict(found.metrics)
