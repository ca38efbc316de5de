"""The files of a run outlive a kill at any moment."""

import json

from localgrad.training import workdir


def test_records_are_cut_back_to_a_step_and_torn_lines_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    workdir.append_records(path, [{"step": step, "loss": 0.1} for step in (1, 2, 3)])
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [record["step"] for record in workdir.rewind_records(path, 2)] == [1, 2]
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_run_that_never_wrote_has_no_records(tmp_path):
    assert workdir.rewind_records(tmp_path / "metrics.jsonl", 5) == []


def test_json_is_replaced_whole(tmp_path):
    path = tmp_path / "summary.json"
    workdir.write_json(path, {"a": 1})
    workdir.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]
