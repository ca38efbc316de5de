"""The trace of a pipeline is what its schedule says: how much, in which order, and who works at the same time."""

import json
import os
import shutil
from itertools import groupby, pairwise

import pytest

from ..common import command

pytestmark = pytest.mark.full  # its figures are of time, which a busy machine bends

BATCHES, STAGES = 6, 2
two_cores = pytest.mark.skipif(
    shutil.which("taskset") is None or len(os.sched_getaffinity(0)) < 2, reason="pins two processes to two cores"
)


def traced(method, tmp_path, *flags):
    """`(events of stages, events of blocks, what else the trace says)`."""
    size = ("--width=128", "--batch_size=64", f"--batches={BATCHES}", f"--stages={STAGES}", "--micro_batches=2")
    done = command(*size, *flags, f"--method={method}", f"--out={tmp_path}", program="experiments.benchmarks.timeline")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f"pipeline_timeline_{method}.png").read_bytes().startswith(b"\x89PNG")
    trace = json.loads((tmp_path / f"pipeline_timeline_{method}.json").read_text())
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    stages, blocks = ([event for event in events if event["pid"] == pid] for pid in (0, 1))
    return stages, blocks, trace["otherData"]


def end(event):
    return event["ts"] + event["dur"]


def find(events, row, kind):
    """Bars of a row and a kind: (batch, part) -> event."""
    of_row = [event for event in events if event["tid"] == row and event["cat"] == kind]
    found = {(event["args"]["batch"], event["args"]["part"]): event for event in of_row}
    assert len(found) == len(of_row)
    return found


def check(stages, blocks, kinds):
    """`kinds`: kind of work -> parts of a batch that it is done on, one by one."""
    assert {event["cat"] for event in blocks} == set(kinds)
    rows = sorted({event["tid"] for event in blocks})
    for events, count in ((stages, STAGES), (blocks, len(rows))):
        for row in range(count):
            for kind, parts in kinds.items():
                assert sorted(find(events, row, kind)) == [(k, p) for k in range(BATCHES) for p in range(parts)]
            own = sorted((event for event in events if event["tid"] == row), key=lambda event: event["ts"])
            assert all(end(before) <= after["ts"] for before, after in pairwise(own))
    up = [kind for kind in ("train", "forward") if kind in kinds]
    for kind in up:
        below, above = find(stages, 0, kind), find(stages, 1, kind)
        assert all(end(below[which]) <= above[which]["ts"] for which in below)


@pytest.mark.parametrize(
    ("depth", "where"),
    [
        pytest.param(2, (), marks=two_cores, id="processes"),
        pytest.param(4, ("--virtual",), id="virtual"),
    ],
)
def test_local_stages_work_at_the_same_time(depth, where, tmp_path):
    stages, blocks, about = traced("al", tmp_path, f"--depth={depth}", *where)
    assert about["schedule"] == "local"
    assert sorted({event["tid"] for event in blocks}) == list(range(depth))
    check(stages, blocks, {"train": 1})
    below, above = find(stages, 0, "train"), find(stages, 1, "train")
    steady = [(below[k, 0], above[k - 1, 0]) for k in range(1, BATCHES)]
    together = [a["ts"] < end(b) and b["ts"] < end(a) for a, b in steady]
    assert sum(together) > len(together) / 2  # not all: the machine may be busy elsewhere
    assert end(below[0, 0]) <= above[0, 0]["ts"]  # fill


def test_delayed_stages_learn_late(tmp_path):
    stages, blocks, about = traced("dkp", tmp_path, "--depth=3", "--virtual")
    assert about["schedule"] == "broadcast"
    check(stages, blocks, {"forward": 1, "backward": 1})
    forward, backward = find(stages, 0, "forward"), find(stages, 0, "backward")
    for k in range(BATCHES - 1):  # stage 0 is a batch late: it has run on the next by the time it learns
        assert end(forward[k + 1, 0]) <= backward[k, 0]["ts"]
    forward, backward = find(stages, 1, "forward"), find(stages, 1, "backward")
    for k in range(BATCHES - 1):
        assert end(backward[k, 0]) <= forward[k + 1, 0]["ts"]


def test_a_chain_waits_for_every_batch(tmp_path):
    stages, blocks, about = traced("bp", tmp_path, "--depth=4", "--virtual")
    assert about["schedule"] == "chain"
    check(stages, blocks, {"forward": 2, "backward": 2, "update": 1})
    below, above = find(stages, 0, "backward"), find(stages, 1, "backward")
    assert all(end(above[which]) <= below[which]["ts"] for which in below)
    for row in range(STAGES):  # forward on all parts, backward on all, one update, and only then the next batch
        own = sorted((event for event in stages if event["tid"] == row), key=lambda event: event["ts"])
        order = [(which, len(list(each))) for which, each in groupby((e["args"]["batch"], e["cat"]) for e in own)]
        assert order == [((k, kind), n) for k in range(BATCHES) for kind, n in
                         (("forward", 2), ("backward", 2), ("update", 1))]  # fmt: skip
