"""A run by names knows its data again, whatever stands behind the name by now."""

import json
import re
import shutil

import numpy as np
import pytest
from etils import epath

from localgrad.data import DATASETS, Dataset
from localgrad.data.registry import Reader
from localgrad.results import open_run
from localgrad.training import Config, InUseError, manifest, prepare, prepare_all, read_config, run
from localgrad.training.checkpoint_reader import CheckpointReader
from localgrad.training.inputs import known_by, read_inputs
from localgrad.training.job import check_still


def quiet(line: str) -> None:
    """Takes what a run says."""


def a_set(seeds: dict[str, int]):
    """A set whose splits are drawn of the seeds that the dict has by then."""

    def read(name: str, split: str, folder: object) -> Dataset:
        x = np.random.default_rng(seeds[split]).normal(size=(32, 4)).astype(np.float32)
        return Dataset(name, x, (x[:, 0] > 0).astype(np.int32), 2)

    return Reader(read)


@pytest.fixture
def seeds(monkeypatch):
    found = {"train": 0, "validation": 1, "test": 2}
    monkeypatch.setitem(DATASETS, "mine", a_set(found))
    return found


def config(folder, **more) -> Config:
    return Config(**{"method": "bp", "widths": (4,), "dataset": "mine", "batch_size": 16, "epochs": 1,
                     "workdir": str(folder), **more})  # fmt: skip


def go(folder, **more):
    made = config(folder, **more)
    return run(made, prepare_all(made), quiet)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of one epoch."""
    folder = tmp_path_factory.mktemp("same") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(DATASETS, "mine", a_set({"train": 0, "validation": 1, "test": 2}))
        go(folder)
    return folder


def copied(trained, folder):
    """Makes the folder that of a copy of the finished run."""
    shutil.copytree(trained, folder, dirs_exist_ok=True)


@pytest.mark.parametrize(("split", "trials_by"), [("train", None), ("validation", "loop"), ("test", None)])
def test_other_data_of_the_same_name_are_another_run(split, trials_by, seeds, tmp_path, trained):
    trials = {} if trials_by is None else {"trials": 2, "trials_by": trials_by}
    go(tmp_path, **trials) if trials else copied(trained, tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    seeds[split] = 7
    for epochs in (1, 2):
        with pytest.raises(
            ValueError, match=rf"holds a run on other data: data\.{split}\.[a-z]+ is .* there and .* he"
        ):
            go(tmp_path, epochs=epochs, **trials)
    assert files == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    seeds[split] = {"train": 0, "validation": 1, "test": 2}[split]
    assert go(tmp_path, epochs=2, **trials)["steps"] == 4


def test_other_data_are_not_evaluated(seeds, tmp_path, trained):
    copied(trained, tmp_path)
    seeds["test"] = 7
    with pytest.raises(ValueError, match=r"holds a run on other data: data\.test\."):
        open_run(prepare(read_config(tmp_path), resume=False), quiet)


def test_a_run_of_other_data_that_came_first_is_noticed(seeds, tmp_path):
    jobs = prepare_all(config(tmp_path))
    seeds["train"] = 7
    go(tmp_path)
    with pytest.raises(InUseError, match=r"another run was begun in .* meanwhile: .* other data"):
        check_still(jobs[0].config, jobs)


def test_a_run_of_a_version_without_fingerprints_goes_on(seeds, tmp_path, trained):
    copied(trained, tmp_path)
    (last,) = CheckpointReader(tmp_path / "checkpoints").steps()
    step = epath.Path(tmp_path / "checkpoints" / str(last))
    found = manifest.read(step)
    found.pop("data")
    (step / manifest.NAME).unlink()
    manifest.write(step, found.pop("step"), **{key: value for key, value in found.items() if key != "files"})
    seeds["train"] = 7
    assert go(tmp_path, epochs=2)["steps"] == 4
    with pytest.raises(ValueError, match=re.escape("data.train.labels is")):
        seeds["train"] = 0
        go(tmp_path, epochs=3)


def test_word_vectors_are_known_by_what_is_in_their_file(seeds, tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("fine 1 2\n")
    made = config(tmp_path, word_vectors=str(path))
    before = known_by(made, read_inputs(made))
    path.write_text("fine 1 3\n")
    after = known_by(made, read_inputs(made))
    assert before.pop("word_vectors") != after.pop("word_vectors")
    assert json.dumps(before) == json.dumps(after)
