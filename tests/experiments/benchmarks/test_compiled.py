"""The table of compiled programs: what a row says, and what a later run keeps."""

from experiments.benchmarks.compiled_rows import HEADER, cells, kept, markdown

ROW = {
    "seconds": 12.6,
    "held": 3 * 2**20,
    "code": 2**19,
    "program": {
        "in_loop": {
            "collective-permute-start": 4,
            "collective-permute": 2,
            "all-gather": 1,
            "all-reduce": 8,
            "copy": 9,
        },
        "copied": 2**20 + 2**19,
        "host": 5,
    },
}
SETTING = {"target": "tpu:v5e:2x4", "stages": 4, "data_parallel": 1, "batch_size": 128, "jax": "0.12.0"}


def test_a_row_says_what_goes_on_beside_work_and_what_is_waited_for() -> None:
    assert cells("al, mlp", ROW) == ["al, mlp", "13", "3.0", "0.5", "4", "3", "1.5", "5"]
    alone = {**ROW, "program": {**ROW["program"], "in_loop": {}}}  # type: ignore[dict-item]
    assert cells("al, mlp", alone)[4:6] == ["0", "0"]


def test_a_row_that_was_refused_says_why() -> None:
    found = cells("bp_fc, mlp", {"refused": "ValueError: it has no convolutions"})
    assert found[:2] == ["bp_fc, mlp", "ValueError: it has no convolutions"] and len(found) == len(HEADER)


def test_the_table_has_a_line_a_row() -> None:
    rows = {"al, mlp": ROW, "bp_fc, mlp": {"refused": "ValueError: none"}}
    text = markdown({**SETTING, "command": "python -m some", "rows": rows})
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 4 and {line.count("|") for line in table} == {len(HEADER) + 1}
    assert "tpu:v5e:2x4, 4 stages" in text and "`python -m some`, jax 0.12.0" in text


def test_rows_are_kept_where_they_are_of_the_same_setting() -> None:
    before = {**SETTING, "command": "python -m some", "rows": {"al, mlp": ROW}}
    assert kept(before, SETTING) == {"al, mlp": ROW}
    assert kept(before, {**SETTING, "stages": 8}) == kept(None, SETTING) == {}
    del before["jax"]
    assert kept(before, SETTING) == {}
