"""What a run of several processes compares, and how a process hears of a stop."""

import json
import os
import signal

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from localgrad.processes import run as place
from localgrad.training import Config, prepare, stopping


class Listener:
    """A process's place in a run that only writes down what would be compared."""

    def __init__(self):
        self.told = []

    def agree(self, facts):
        self.told.append(json.loads(json.dumps(facts)))


@pytest.fixture
def listener(monkeypatch):
    found = Listener()
    monkeypatch.setattr(place, "_guest", [found])
    return found


def test_a_run_tells_what_it_reads_before_it_makes_a_mesh(listener, tmp_path, monkeypatch):
    def no_engine(*arguments):
        raise RuntimeError("the engine is made")

    monkeypatch.setattr("localgrad.training.job.build_engine", no_engine)
    config = Config(widths=(8, 8), dataset="digits", workdir=str(tmp_path))
    (tmp_path / "checkpoints" / "30").mkdir(parents=True)
    (tmp_path / "checkpoints" / "45.orbax-checkpoint-tmp").mkdir()
    with pytest.raises(RuntimeError, match="the engine is made"):
        prepare(config)
    (facts,) = listener.told
    for split in ("train", "validation", "test"):
        assert {f"{name} of the {split} split" for name in ("labels", "inputs", "shape")} <= set(facts)
    assert facts[f"the checkpoints in {tmp_path}"] == [30], "one that is not whole is none"
    assert facts[f"the summary in {tmp_path}"] is False


def test_one_process_compares_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("localgrad.data.fingerprint", lambda dataset: pytest.fail("looked at for nobody"))
    prepare(Config(widths=(8, 8), workdir=str(tmp_path)))


@pytest.mark.parametrize("asks", ["this process", "another process"])
def test_a_signal_that_comes_after_the_stop_belongs_to_it(asks, monkeypatch):
    """Another process heard of the stop first: this one's own signal may come when both have stopped."""
    heard = []
    before = {number: signal.signal(number, lambda *_, n=number: heard.append(n)) for number in (2, 15)}
    if asks == "another process":
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(multihost_utils, "process_allgather", lambda own: np.array([own, signal.SIGTERM]))
    try:
        with stopping.stop_signals() as stopped:
            if asks == "this process":
                os.kill(os.getpid(), signal.SIGTERM)
            assert stopped() == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == []
        monkeypatch.setattr(stopping, "_ONE_STOP", -1.0)
        for _ in range(2):  # whatever was there before is back
            os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM] * 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_signals_of_one_stop_are_one_and_a_later_one_stops_at_once(monkeypatch):
    heard = []
    before = {number: signal.signal(number, lambda *_, n=number: heard.append(n)) for number in (2, 15)}
    try:
        with stopping.stop_signals() as stopped:
            assert stopped() == 0
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
                os.kill(os.getpid(), number)
            assert (stopped(), heard) == (signal.SIGINT, [])
            monkeypatch.setattr(stopping, "_ONE_STOP", -1.0)
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == [signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_where_nobody_asked_for_a_stop_everything_is_as_before():
    before = signal.getsignal(signal.SIGTERM)
    with stopping.stop_signals() as stopped:
        assert stopped() == 0 and signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
