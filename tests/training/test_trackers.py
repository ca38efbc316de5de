"""Trackers: what they write, read back by the readers of those who made the formats."""

import json
import time
import types

import numpy as np
import pytest

from localgrad.training import TensorBoard, Tracker, WeightsAndBiases
from localgrad.training.trace import Trace

RUN = {"seed": 0, "blocks": ["conv", "dense"]}


def row(step, **more):
    return {"step": step, "epoch": step / 5, "block_loss": [0.5 / step, 0.25], "examples_per_sec": 100.0, **more}


def told(tracker):
    """A tracker that was told of two calls and an epoch."""
    tracker.start(RUN, 0)
    tracker.call(row(5))
    tracker.call(row(10, delay=[1, 0]))
    tracker.epoch(row(10, validation_accuracy=[90.0, 80.0], validation_exit_accuracy=[70.0, 85.0], best="max"))
    tracker.close()
    return tracker


def test_wandb_and_whatever_speaks_as_it_does():
    class Run:
        def __init__(self):
            self.rows, self.done = [], False

        def log(self, values, step):
            self.rows.append((step, values))

        def finish(self):
            self.done = True

    run = Run()
    begun = []
    module = types.SimpleNamespace(init=lambda **options: begun.append(options) or run)
    told(WeightsAndBiases(module, project="tests"))
    assert begun == [{"config": RUN, "project": "tests"}] and run.done
    assert [step for step, _ in run.rows] == [5, 10, 10]
    assert run.rows[0][1] == {
        "call/epoch": 1.0,
        "call/block_loss/1 conv": 0.1,
        "call/block_loss/2 dense": 0.25,
        "call/examples_per_sec": 100.0,
    }
    assert run.rows[2][1]["epoch/validation_exit_accuracy/2"] == 85.0
    under_way = Run()
    told(WeightsAndBiases(under_way))
    assert under_way.rows == run.rows and not under_way.done  # it is not ours to finish
    with pytest.raises(TypeError, match="give wandb, trackio, or a run"):
        WeightsAndBiases(3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_tensorboard_events_are_read_by_tensorflow(tmp_path):
    pytest.importorskip("tensorboardX")
    summaries = pytest.importorskip("tensorflow").compat.v1.train.summary_iterator
    assert isinstance(told(TensorBoard(tmp_path)), Tracker)
    (file,) = tmp_path.iterdir()
    found = {}
    for event in summaries(str(file)):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found[event.step, value.tag] = value.simple_value
    assert found[5, "call/block_loss/1_conv"] == pytest.approx(0.1)
    assert found[10, "call/delay/1_conv"] == 1.0
    assert found[10, "epoch/validation_accuracy"] == 85.0 and (10, "call/epoch") not in found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_offline_run_of_wandb_holds_its_rows(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    records = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    monkeypatch.setenv("WANDB_SILENT", "true")
    told(WeightsAndBiases(wandb, project="tests", mode="offline", dir=str(tmp_path)))
    (file,) = tmp_path.glob("wandb/offline*/*.wandb")
    found, deadline = {}, time.monotonic() + 60
    while "exit" not in found and time.monotonic() < deadline:  # its service writes the end when it comes to it
        for content in blocks(file.read_bytes()):
            record = records.Record()
            record.ParseFromString(content)
            found[record.WhichOneof("record_type")] = True
            for item in record.history.item:
                found[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        time.sleep(0.2)
    assert found["call/block_loss/1 conv"] == pytest.approx(0.05) and found["epoch/validation_accuracy"] == 85.0
    assert found["_step"] == 10


def blocks(content):
    """The records of a file in LevelDB's log format, behind wandb's header of seven bytes."""
    at, parts = 7, b""
    while at + 7 <= len(content):
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        if not size and not kind:  # the rest of a block of 32 KiB is padding
            at = (at // 32768 + 1) * 32768
            continue
        parts += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last of several
            yield parts
            parts = b""


def test_a_trace_covers_its_window_in_whole_calls(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("jax.profiler.start_trace", lambda folder: said.append("start"))
    monkeypatch.setattr("jax.profiler.stop_trace", lambda: said.append("stop"))
    trace = Trace((4, 9), tmp_path)
    for step in range(0, 18, 3):
        trace.before(step, 3)
        said.append(step)
        trace.after(step + 3, np.zeros(1))
    trace.close()
    assert said == [0, "start", 3, 6, "stop", 9, 12, 15]
    cut = Trace((4, 9), tmp_path)
    cut.before(3, 3)
    cut.close()
    assert said[-2:] == ["start", "stop"]


@pytest.mark.slow
def test_a_profile_is_written(tmp_path):
    import jax

    trace = Trace((0, 1), tmp_path)
    trace.before(0, 1)
    trace.after(1, jax.jit(lambda x: x + 1)(np.zeros(4, np.float32)))
    assert list(tmp_path.glob("plugins/profile/*/*"))
