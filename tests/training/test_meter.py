"""Metrics are aligned by batch, however late a stage reports them."""

import json

import numpy as np
import pytest

from localgrad.base import LEARNT, LOSS, DivergedError, Metrics
from localgrad.training.meter import Meter


def call(*blocks):
    """Metrics of one call: for each block a list of (batch id, loss)."""
    ids = tuple(np.array([k for k, _ in block], np.int32) for block in blocks)
    losses = [np.array([loss for _, loss in block], np.float32) for block in blocks]
    stopped = tuple(np.where(np.isfinite(loss), LEARNT, LOSS) for loss in losses)
    return Metrics(tuple({"loss": loss} for loss in losses), ids, stopped)


def test_late_reports_are_counted_once():
    meter = Meter(["a", "b"], first=0)
    meter.add(call([(0, 1.0), (1, 3.0)], [(-1, 99.0), (0, 10.0)]))
    meter.add(call([], [(1, 30.0)]))  # a copy of the pipeline was drained
    assert [block["loss"] for block in meter.means(2)] == [2.0, 20.0]
    meter.reset()
    meter.add(call([(2, 5.0)], [(1, 30.0)]))  # the pipeline itself reports batch 1 only now
    meter.add(call([], [(2, 7.0)]))
    assert [block["loss"] for block in meter.means(1)] == [5.0, 7.0]


def test_sums_survive_a_checkpoint_bit_for_bit():
    whole, first = Meter(["a"], 0), Meter(["a"], 0)
    values = np.random.default_rng(0).normal(size=20).astype(np.float32)
    whole.add(call(list(enumerate(values))))
    first.add(call(list(enumerate(values))[:9]))
    second = Meter(["a"], 9, json.loads(json.dumps(first.to_json())))
    second.add(call(list(enumerate(values))[9:]))
    assert second.to_json() == whole.to_json()


def test_the_first_loss_that_is_not_finite_is_named():
    meter = Meter(["a", "b", "c"], 0)
    with pytest.raises(DivergedError, match=r"block 2 \(b\) is not finite on batch 4") as caught:
        meter.add(call([(4, 1.0), (5, np.nan)], [(4, np.inf), (5, 1.0)], [(4, np.nan), (5, 1.0)]))
    assert (caught.value.batch, caught.value.block) == (4, 1)


def test_trials_are_kept_apart():
    meter = Meter(["a"], 0)
    metrics = Metrics(({"loss": np.array([[1.0, 2.0], [3.0, 6.0]], np.float32)},), (np.arange(2),), (np.zeros(2),))
    meter.add(metrics)
    np.testing.assert_array_equal(meter.means(2)[0]["loss"], [2.0, 4.0])
