"""The files of a run outlive a kill at any moment, and stay in their folder."""

import json
import os

import pytest
from etils import epath
from etils.epath import backend, gpath

from localgrad.training import config_file, workdir


def records(*steps):
    return [{"step": step, "split": "train", "loss": 0.1} for step in steps]


def test_records_are_cut_back_to_a_step_and_torn_lines_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    workdir.append_records(path, records(1, 2, 3))
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [record["step"] for record in workdir.rewind_records(path, 2)] == [1, 2]
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


DEEP = b'{"a":' * 100_000  # json raises RecursionError
WRONG = [DEEP, b'{"step": "2", "split": "train"}', b'{"step": null, "split": "train"}', b'{"step": 2, "split": [1]}']


@pytest.mark.parametrize("damage", [b'{"step": 2', b"\xff\xfe", b"[]", b'"text"', b'{"step": 2}', b"", *WRONG])
def test_a_damaged_line_loses_itself_alone(damage, tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps(record).encode() for record in records(1, 2, 3)]
    path.write_bytes(b"\n".join([lines[0], damage, lines[2]]) + b"\n")
    assert [record["step"] for record in workdir.read_records(path)] == [1, 3]


def test_records_that_stand_twice_go(tmp_path):
    path = tmp_path / "metrics.jsonl"
    workdir.append_records(path, records(1, 3, 2, 2, 1))
    assert [record["step"] for record in workdir.rewind_records(path, 3)] == [1, 2, 3]


def test_a_run_that_never_wrote_has_no_records(tmp_path):
    assert workdir.rewind_records(tmp_path / "metrics.jsonl", 5) == []


def test_json_is_replaced_whole(tmp_path):
    path = epath.Path(tmp_path) / "summary.json"
    workdir.write_json(path, {"a": 1})
    workdir.write_json(path, {"a": 2})
    assert workdir.read_json(path) == {"a": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


def test_damaged_json_is_none(tmp_path):
    path = epath.Path(tmp_path) / "config.json"
    assert workdir.read_json(path) is None
    for content in (b"", b"{", b"\xff", DEEP):
        path.write_bytes(content)
        assert workdir.read_json(path) is None


@pytest.mark.parametrize(
    ("before", "says"),
    [
        (None, "is missing"),
        (b"", "is not as the run left it"),
        (b'{"step": 1}\n', "is not as the run left it"),
        (workdir.as_lines(records(1, 2)), None),
        (workdir.as_lines(records(1, 2, 3)), "records that are of no checkpoint"),
        (workdir.as_lines(records(1, 2)).replace(b"0.1", b"0.3"), "is not as the run left it"),
    ],
)
def test_records_are_those_of_the_checkpoint_and_others_are_told_of(before, says, tmp_path):
    said, path = [], epath.Path(tmp_path) / "metrics.jsonl"
    if before is not None:
        path.write_bytes(before)
    workdir.restore_records(path, records(1, 2), said.append)
    assert path.read_bytes() == workdir.as_lines(records(1, 2))
    assert len(said) == (says is not None) and (not said or says in said[0])


@pytest.mark.parametrize(
    ("before", "says"),
    [
        (b"{", "is damaged"),
        (b"[1]", "is damaged"),
        (b'{"seed": 0, "stages": 2}', "stages was 2 and is 1"),
        (b'{"reed": 0, "stages": 1}', "made anew: reed was 0 and is None"),
        (b'{"stages": 1}', ""),  # of a version without seeds
        (b'{"seed": 0, "stages": 1}', "it is not as the run left it"),
        (workdir.as_json({"seed": 0, "stages": 1}), ""),
        (None, ""),
    ],
)
def test_a_config_that_was_another_is_told_of(before, says, tmp_path):
    path = epath.Path(tmp_path) / "config.json"
    if before is not None:
        path.write_bytes(before)
    told = config_file.replace(path.parent, {"seed": 0, "stages": 1})
    assert says in told and bool(told) == bool(says)
    assert workdir.read_json(path) == {"seed": 0, "stages": 1}


def test_a_config_that_is_missing_where_a_run_was_is_told_of(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    assert "is missing" in config_file.replace(epath.Path(tmp_path), {"seed": 0})


def test_a_home_that_is_not_there():
    with pytest.raises(ValueError, match="~nobody_here/x: there is no home folder of that name"):
        workdir.folder_of("~nobody_here/x")
    assert workdir.folder_of("~/x").is_absolute()


# --- links -----------------------------------------------------------------------------------------------------------


def test_a_link_that_leads_out_is_refused(tmp_path):
    outside, run = tmp_path / "outside", tmp_path / "run"
    outside.mkdir()
    run.mkdir()
    (outside / "precious").write_text("mine")
    for name, target in (
        ("checkpoints", outside), ("metrics.jsonl", outside / "precious"), ("summary.json", outside / "nothing"),
    ):  # fmt: skip
        (run / name).symlink_to(target)
        with pytest.raises(ValueError, match=f"{name} is a link that leads out of it, to"):
            workdir.check_folder(epath.Path(run))
        (run / name).unlink()
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "36").symlink_to(outside)
    with pytest.raises(ValueError, match="36 is a link that leads out"):
        workdir.check_folder(epath.Path(run))


def test_a_trial_that_leads_out_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trial0").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="trial0 is a link that leads out"):
        workdir.check_folder(epath.Path(tmp_path / "run"))


def test_a_pipe_in_place_of_a_file_is_refused(tmp_path):
    """Reading it would wait for ever."""
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match=r"metrics\.jsonl is no file, where a run keeps a file"):
        workdir.check_folder(epath.Path(tmp_path))


def test_links_within_and_to_a_workdir_are_fine(tmp_path):
    (tmp_path / "run" / "kept").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints").symlink_to("kept")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    workdir.check_folder(epath.Path(tmp_path / "link"))


def test_the_temporary_file_is_not_written_through_a_link(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.tmp").symlink_to(tmp_path / "precious")
    workdir.write_json(epath.Path(tmp_path / "run" / "config.json"), {"a": 1})
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.write_text(""), "is a file; give a folder"),
        (lambda path: path.symlink_to("nowhere"), "is a link to nothing; give a folder"),
    ],
)
def test_what_is_no_folder_is_refused_wherever_it_stands(make, says, tmp_path):
    make(tmp_path / "it")
    for name in ("it", "it/run", "it/a/run"):
        with pytest.raises(ValueError, match=says):
            workdir.check_folder(epath.Path(tmp_path / name))


def test_a_file_in_place_of_a_folder_of_a_run(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(ValueError, match="checkpoints is no folder, where a run keeps one"):
        workdir.check_folder(epath.Path(tmp_path))
    (tmp_path / "checkpoints").unlink()
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ValueError, match=r"config\.json is a folder, where a run keeps a file"):
        workdir.check_folder(epath.Path(tmp_path))


# --- elsewhere -------------------------------------------------------------------------------------------------------


def test_a_tilde_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert os.fspath(workdir.folder_of("~/runs/a")) == str(tmp_path / "runs" / "a")


class Bucket(backend._OsPathBackend):
    """A cloud whose objects lie in a folder, and do not grow."""

    def __init__(self, root):
        self._root = root

    def _there(self, path):
        return os.fspath(path).replace("gs://", f"{self._root}/")

    def open(self, path, mode):
        assert "a" not in mode
        os.makedirs(os.path.dirname(self._there(path)), exist_ok=True)
        return super().open(self._there(path), mode)

    def exists(self, path):
        return super().exists(self._there(path))

    def isdir(self, path):
        return super().isdir(self._there(path))


def test_a_cloud_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", Bucket(tmp_path))
    folder = workdir.folder_of("gs://bucket/run")
    assert os.fspath(folder) == "gs://bucket/run" and not workdir.is_local(folder)
    workdir.check_folder(folder)
    path = folder / "metrics.jsonl"
    workdir.append_records(path, records(1))
    workdir.append_records(path, records(2))
    assert [record["step"] for record in workdir.rewind_records(path, 5)] == [1, 2]
    workdir.write_json(folder / "config.json", {"a": 1})
    assert workdir.read_json(folder / "config.json") == {"a": 1}
    assert sorted(os.listdir(tmp_path / "bucket" / "run")) == ["config.json", "metrics.jsonl"]
