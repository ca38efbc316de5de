"""What the studies share: which rows run, and what becomes of those that are in the result file already."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.rows import about_kept, chosen_rows, kept_rows

ROWS = [
    "movies bilstm bp",
    "movies transformer bp",
    "movies transformer bp_matched",
    "neco, one-layer bridge",
    "one-layer",
]
MACHINE = {"cores": 3, "backend": "cpu", "device": "cpu"}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (None, ROWS),
        (["bp"], ROWS[:2]),  # a word is a whole word: bp_matched is another method
        (["transformer bp", "bridge"], [ROWS[1], ROWS[3]]),  # in the table's order
        (["bridge", "bp transformer"], [ROWS[1], ROWS[3]]),
        (["one-layer"], [ROWS[4]]),  # a whole name is that row alone
    ],
)
def test_rows_are_chosen_by_words_of_their_names(entries: list[str] | None, expected: list[str]) -> None:
    assert chosen_rows(ROWS, entries) == expected


@pytest.mark.parametrize("entry", ["lstm", "", "bilstm transformer"])
def test_an_entry_that_names_no_row_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=f"--rows={entry}: no row has these words .* the rows are movies bilstm bp"):
        chosen_rows(ROWS, ["bp", entry])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A result file of an earlier run."""
    about = {"command": "python -m before", "machine": MACHINE, "versions": {"jax": "0"}, "commit": "abc"}
    rows: dict[str, Any] = {"a": {"test_accuracy": 1.0, "params_sha256": "x"}, "b": {"params_sha256": ["y", "z"]}}
    (tmp_path / "table.json").write_text(json.dumps({**about, "title": "a table", "rows": rows, "more": 1}))
    return tmp_path / "table.json"


def test_rows_that_are_kept_say_which_run_made_them(file: Path) -> None:
    kept = kept_rows(file, "a table", ["a", "b", "new"])
    assert list(kept) == ["a", "b"] and kept["a"]["test_accuracy"] == 1.0
    assert kept["a"]["provenance"] == {
        "command": "python -m before", "machine": MACHINE, "versions": {"jax": "0"}, "commit": "abc",
    }  # fmt: skip
    assert about_kept(kept) == [
        "- a: `python -m before --rows=...`, 1 trial each, on 3 CPU cores",
        "- b: `python -m before --rows=...`, 2 trials each, on 3 CPU cores",
    ]
    other = kept["a"] | {
        "provenance": kept["a"]["provenance"] | {"command": "python -m before '--rows=c d' --trials=1"}
    }
    assert about_kept({"a": kept["a"], "c d": other}) == [
        "- a; c d: `python -m before --rows=...`, 1 trial each, on 3 CPU cores"
    ]
    # kept a second time, a row keeps the run that made it, not the one that kept it
    content = json.loads(file.read_text()) | {"command": "python -m after", "rows": kept}
    file.write_text(json.dumps(content))
    assert kept_rows(file, "a table", ["a"])["a"]["provenance"]["command"] == "python -m before"


def test_another_table_is_not_mixed_in(file: Path) -> None:
    with pytest.raises(ValueError, match="is another one, 'a table' where this run's is 'of 12 epochs'"):
        kept_rows(file, "of 12 epochs", ["a"])
    assert kept_rows(file, "of 12 epochs", []) == {}  # all rows run: nothing is kept, the file is replaced
    assert kept_rows(file.with_name("not_there.json"), "of 12 epochs", ["a"]) == {}
