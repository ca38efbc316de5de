"""The timeline draws what the schedule says, and its waits are those that the ledger predicts with."""

import re

import pytest

from localgrad.pipeline import schedules
from localgrad.report.ledger import _bubble
from localgrad.report.timeline import timeline, waited

SCHEDULES = [
    schedules.local(1),
    schedules.local(4),
    schedules.relay(3),
    schedules.relay(3, "locked"),
    schedules.broadcast(4),
    schedules.broadcast(3, "locked"),
    schedules.chain(3, 4),
    schedules.streamed_chain(3),
]
by_name = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s.name}{s.stages}-{s.period}")


def idle(schedule, batches, stage):
    """Counted tick by tick."""

    def busy(tick):
        both = (schedule.forward(tick, stage), schedule.answers(tick, stage))
        return any(work is not None and work[0] < batches for work in both)

    return sum(not busy(tick) for tick in range(schedule.ticks(batches)))


@by_name
def test_waits_are_those_counted_tick_by_tick(schedule):
    for batches in (1, 3, 40):
        assert waited(schedule, batches) == max(idle(schedule, batches, s) for s in range(schedule.stages))


@pytest.mark.parametrize("schedule", [schedules.local(4), schedules.chain(3, 4), schedules.streamed_chain(3)])
def test_waits_are_the_bubble_of_the_ledger(schedule):
    assert waited(schedule, 50) == pytest.approx(_bubble(schedule, 50) * schedule.ticks(50))


@by_name
def test_every_piece_of_work_is_drawn_once(schedule):
    drawn, batches, columns = timeline(schedule, range(schedule.stages + 1), 1000)
    assert columns == schedule.ticks(batches)
    found = set(re.findall(r"<title>tick (\d+), stage (\d+): batch (\d+)(?:, part (\d+))? ([\w ]+)</title>", drawn))
    assert len(found) == drawn.count("<title>")
    passed = {(int(s) - 1, int(b) - 1, int(p or 1) - 1) for _, s, b, p, does in found if "passes" in does}
    learnt = {(int(s) - 1, int(b) - 1, int(p or 1) - 1) for _, s, b, p, does in found if "learns" in does}
    of_all = {(s, b, p) for s in range(schedule.stages) for b in range(batches) for p in range(schedule.parts)}
    assert passed == learnt == of_all
    for tick, stage, batch, part, does in found:
        when = schedule.forward if "passes" in does else schedule.answers
        assert when(int(tick), int(stage) - 1) == (int(batch) - 1, int(part or 1) - 1)


def test_a_long_one_is_cut_short():
    drawn, _, columns = timeline(schedules.chain(64, 256), range(65), 10)
    assert columns == 160 < schedules.chain(64, 256).ticks(2)
    assert drawn.count("64: block 64") == 1
