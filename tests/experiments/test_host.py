"""Measurements that the host disturbs are made again, and told by what it took, never by their time."""

import itertools

import pytest

from experiments import host


@pytest.mark.parametrize(
    ("takes", "kept", "counts"),
    [
        ([0.0], 0, (1, 0, 0)),
        ([1.0, 1.0, 0.0, 0.0], 2, (1, 1, 0)),
        ([1e9] * 3 + [1e3] + [1e9] * (host.TRIES - 4), 3, (1, 1, 1)),
    ],
)
def test_the_first_measurement_that_the_host_leaves_alone_counts(takes, kept, counts, monkeypatch):
    made = itertools.count()
    total = itertools.accumulate([0.0, *itertools.chain.from_iterable((take, 0.0) for take in takes)])
    monkeypatch.setattr(host, "taken", lambda: next(total))
    monkeypatch.setattr(host, "counts", dict.fromkeys(host.counts, 0))
    assert host.undisturbed(lambda: next(made)) == kept
    assert tuple(host.counts.values()) == counts
