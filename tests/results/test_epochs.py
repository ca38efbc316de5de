"""Records of trials as arrays: what each came to, also where they ended at different epochs."""

from types import SimpleNamespace

import numpy as np

from localgrad.report.facts import Run
from localgrad.report.page import _exits, _facts
from localgrad.results.epochs import epochs_of
from localgrad.results.gather import _with
from localgrad.training.summary import merge


def trial(*accuracies: float) -> list[dict]:
    """The records of a trial with two exits, two batches an epoch."""
    where = lambda epoch, split: {"step": 2 * epoch, "epoch": epoch, "split": split}
    return [
        record
        for epoch, value in enumerate(accuracies, 1)
        for record in (
            {**where(epoch, "train"), "block_loss": [1.0, 2.0], "examples_per_sec": 5.0},
            {**where(epoch, "test"), "accuracy": value, "exit_accuracy": [value - 10, value]},
        )
    ]


def test_each_trial_has_a_last_epoch_of_its_own():
    found = epochs_of([trial(50.0, 60.0), trial(40.0, 70.0, 80.0, 90.0)])
    assert found.epoch.tolist() == [1, 2] and found.shown[-1].tolist() == [[50, 60], [60, 70]]
    assert found.ended.tolist() == [[50, 80], [60, 90]]
    assert (found.done, found.steps, found.epochs_done) == ((2, 4), (4, 8), "2, 4")
    run = Run("two", "two", {"epochs": 9}, "", {}, found, {})
    facts = dict(_facts(run))
    assert facts["epochs"] == "2, 4 of 9" and facts["test accuracy, %, last epoch"].startswith("75.00")
    assert [row[1].split()[0] for row in _exits(run).rows] == ["65.00", "75.00"]


def test_trials_in_one_file_end_together():
    whole = [
        {**record, "accuracy": [50.0, 60.0], "exit_accuracy": [[40.0, 50.0], [50.0, 60.0]]}
        if record["split"] == "test"
        else {**record, "block_loss": [[1.0, 1.0], [2.0, 2.0]]}
        for record in trial(0.0, 0.0)
    ]
    found = epochs_of([whole])
    np.testing.assert_array_equal(found.ended, found.shown[-1])
    assert (found.epochs_done, found.steps) == ("2", (4,))


def test_a_run_that_ended_early_has_the_batches_that_it_had():
    run = Run("two", "two", {"epochs": 9}, "", {}, epochs_of([trial(50.0), trial(40.0, 70.0)]), {})
    known = SimpleNamespace(percent={}, blocks=(), exits=(), plan=None, ledger=None, batches=18)
    assert _with(run, known).batches == 18  # not finished: those of the whole plan
    assert _with(run._replace(summary={"steps": {}}), known).batches == 4


def test_steps_of_trials_that_differ_are_all_told():
    assert merge([{"steps": 4}, {"steps": 4}])["steps"] == 4
    assert merge([{"steps": 4}, {"steps": 8}])["steps"]["values"] == [4, 8]
