"""Plays a schedule tick by tick, and checks all that it says of itself."""

from localgrad.base import Schedule

Done = dict[tuple[str, int, int, int], int]  # forward or answer, stage, batch, part -> tick


def check_schedule(schedule: Schedule, batches: int = 5) -> None:
    """Played tick by tick, all work is done once, in order, when what it needs is there, and as late as it says.

    Args:
      schedule: any schedule.
      batches: how many enter.

    Raises:
      AssertionError: naming the schedule, the stage, and what is done twice, too early, or not at all.

    Examples:
      >>> from localgrad.pipeline import schedules
      >>> check_schedule(schedules.relay(3))
    """
    name = f"schedule {schedule.name!r}"
    done = _play(schedule, batches, name)
    every = [(batch, part) for batch in range(batches) for part in range(schedule.parts)]
    stages = range(schedule.stages)
    answering = [s for s in stages if schedule.wait[s] is not None]
    wanted = {(k, s, *one) for k, of in (("forward", stages), ("answer", answering)) for s in of for one in every}
    missing = sorted(wanted - set(done))
    assert not missing, f"{name}: {_say(missing[0])} is not done within {schedule.ticks(batches)} ticks: raise `drain`."
    last = max(done.values())
    assert last == schedule.ticks(batches) - 1, (
        f"{name}: all is done after {last + 1} ticks, and `ticks` says {schedule.ticks(batches)}."
    )
    for one in every:
        for s in stages[1:]:
            up = done["forward", s, *one] > done["forward", s - 1, *one]
            assert up, f"{name}: {_say(('forward', s, *one))} comes before the message of the stage below is there."
        for s in answering:
            _check_answer(schedule, done, s, one, name)
    for s in answering:
        _check_lateness(schedule, done, s, batches, name)


def _play(schedule: Schedule, batches: int, name: str) -> Done:
    done: Done = {}
    for tick in range(schedule.ticks(batches)):
        for s in range(schedule.stages):
            for kind, found in (("forward", schedule.forward(tick, s)), ("answer", schedule.answers(tick, s))):
                if found is not None and found[0] < batches:
                    assert (kind, s, *found) not in done, f"{name}: {_say((kind, s, *found))} is done twice."
                    done[kind, s, *found] = tick
    return done


def _check_answer(schedule: Schedule, done: Done, s: int, one: tuple[int, int], name: str) -> None:
    """A stage learns once its signal has been made, and a tick later if that was sent."""
    top = schedule.stages - 1
    made = done["forward", top if schedule.name != "relay" else min(s + 1, top), *one]
    soonest = made + (1 if schedule.wait[s] else 0)  # what is sent arrives a tick later
    tick = done["answer", s, *one]
    assert tick >= soonest, (
        f"{name}: {_say(('answer', s, *one))} is on tick {tick}, and its signal is there on {soonest}."
    )
    if schedule.name == "chain" and s < top:
        above = done["answer", s + 1, *one]
        assert tick > above, f"{name}: {_say(('answer', s, *one))} is on tick {tick}, and the stage above's on {above}."


def _check_lateness(schedule: Schedule, done: Done, s: int, batches: int, name: str) -> None:
    """`delays` says how many batches a stage learns late, and `places` is enough for what it keeps."""
    late, kept = 0, 0
    every = [(batch, part) for batch in range(batches) for part in range(schedule.parts)]
    for batch in range(batches):
        before = done["forward", s, batch, 0]
        # answers come before the forward pass of their tick, unless they wait for none
        in_time = before - (not schedule.wait[s])
        learnt = [b for b in range(batches) if done["answer", s, b, schedule.parts - 1] <= in_time]
        late = max(late, batch - len(learnt))
        flying = [one for one in every if done["forward", s, *one] <= before < done["answer", s, *one]]
        kept = max(kept, len(flying))
    assert schedule.delays[s] == late, (
        f"{name}: stage {s} learns {late} batches late, and `delays` says {schedule.delays[s]}."
    )
    assert schedule.places[s] >= kept, (
        f"{name}: stage {s} keeps {kept} batches or parts between two ticks, and `places` says {schedule.places[s]}."
    )


def _say(work: tuple[str, int, int, int]) -> str:
    kind, stage, batch, part = work
    moment = "the pass" if kind == "forward" else "learning"
    return f"{moment} of stage {stage} on batch {batch}, part {part},"
