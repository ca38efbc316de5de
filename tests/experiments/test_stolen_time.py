"""Measurements that the host disturbs are made again, and told by what it took, never by their time."""

import itertools

import pytest

from experiments import stolen_time


@pytest.mark.parametrize(
    ("takes", "kept", "counts"),
    [
        ([0.0], 0, (1, 0, 0)),
        ([1.0, 1.0, 0.0, 0.0], 2, (1, 1, 0)),
        ([1e9] * 3 + [1e3] + [1e9] * (stolen_time.TRIES - 4), 3, (1, 1, 1)),
    ],
)
def test_the_first_measurement_that_the_host_leaves_alone_counts(takes, kept, counts, monkeypatch):
    made = itertools.count()
    total = itertools.accumulate([0.0, *itertools.chain.from_iterable((take, 0.0) for take in takes)])
    monkeypatch.setattr(stolen_time, "taken", lambda: next(total))
    monkeypatch.setattr(stolen_time, "counts", dict.fromkeys(stolen_time.counts, 0))
    assert stolen_time.undisturbed(lambda: next(made)) == kept
    assert tuple(stolen_time.counts.values()) == counts
