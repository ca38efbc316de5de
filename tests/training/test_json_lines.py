"""`calls.jsonl`: rows go on where a run goes on, and what is lost or changed is told."""

import json

import pytest

from localgrad.training import JsonLines, Tracker


def written(path, steps=(5, 10, 12)):
    """A file of a call up to each step."""
    tracker = JsonLines(path)
    assert isinstance(tracker, Tracker)
    tracker.start({}, 0)
    for step in steps:
        tracker.call({"step": step, "epoch": step / 5, "block_loss": [0.5 / step, [0.25, 1e-9]]})
    tracker.close()
    return path


def resumed(path, step):
    """The steps that are kept of a run that goes on at `step`, and what is said."""
    said = []
    again = JsonLines(path, said.append)
    again.start({}, step)
    again.call({"step": step + 4})
    again.close()
    *kept, last = [json.loads(line) for line in path.read_text().splitlines()]
    assert (last["since"], last["step"]) == (step, step + 4)
    return [row["step"] for row in kept], said


def test_rows_go_on_where_a_run_goes_on(tmp_path):
    path = written(tmp_path / "calls.jsonl")
    with path.open("a") as file:
        file.write('{"step": 13, "torn')
    assert resumed(path, 10) == ([5, 10], [])
    assert resumed(path, 14) == ([5, 10, 14], [])


@pytest.mark.parametrize("row", [0, 1, 2])
def test_no_bit_changes_unnoticed(tmp_path, row):
    path = written(tmp_path / "calls.jsonl")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    begin, lost = sum(map(len, lines[:row])), ("1 to 5", "6 to 10", "11 to 12")[row]
    for at in range(begin, begin + len(lines[row]) - 1):
        for bit in range(8):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            said = []
            assert len(JsonLines(path, said.append).review(12)) == 2
            assert said == [f"{path} lacks its rows of batches {lost}: they are damaged or lost"]


@pytest.mark.parametrize(
    ("rows", "lost"),
    [((), "1 to 12"), ((0,), "6 to 12"), ((1,), "1 to 5, 11 to 12"), ((2, 1), "1 to 5"), ((0, 2, 2), "6 to 10")],
)
def test_rows_that_are_lost_are_told_of(tmp_path, rows, lost):
    path = written(tmp_path / "calls.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[row] for row in rows))
    assert resumed(path, 12)[1] == [f"{path} lacks its rows of batches {lost}: they are damaged or lost"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"[]\n", b"3\n", b"\xff\n", b"{}\n", b"[" * 5000])
def test_what_is_no_row_is_left_out(tmp_path, content):
    path = written(tmp_path / "calls.jsonl")
    path.write_bytes(content + path.read_bytes() if content.endswith(b"\n") else path.read_bytes() + content)
    assert resumed(path, 12) == ([5, 10, 12], [])


def test_a_deleted_file_is_told_of(tmp_path):
    assert resumed(tmp_path / "calls.jsonl", 0) == ([], [])
    (tmp_path / "calls.jsonl").unlink()
    assert resumed(tmp_path / "calls.jsonl", 3)[1]
