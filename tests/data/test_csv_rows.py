"""The reader of CSV files: cells as they were meant, and nothing lost without a word."""

import gzip
from pathlib import Path

import pytest

from localgrad import data
from localgrad.data.csv_rows import csv_rows, is_csv


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a,b\n\n1,2\n  \n3,4", [(1, ["a", "b"]), (3, ["1", "2"]), (5, ["3", "4"])]),
        ('a,"Ann\nn"\n1,2\n', [(1, ["a", "Ann\nn"]), (3, ["1", "2"])]),
        ('a,"Ann\r\n\r\nn"\r\n1,2\r\n', [(1, ["a", "Ann\n\nn"]), (4, ["1", "2"])]),
        ('a, "b, c"\n', [(1, ["a", "b, c"])]),  # a quote behind a space opens a cell
        ('5" pipe,"say ""no"""\n', [(1, ['5" pipe', 'say "no"'])]),
        ('a\n""\nb\n', [(1, ["a"]), (2, [""]), (3, ["b"])]),  # an empty cell is no empty line
        ("", []),
    ],
)
def test_cells_are_as_they_were_meant(text, rows, tmp_path):
    assert list(csv_rows(written(tmp_path, text))) == rows


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('a,b,label\n1,2,u\n3,4,"v\n5,6,u\n', 3),  # the quote would take all rows below into its cell
        ('a,b\n"1,2\n', 2),
        ('a,b\n1,"2"3\n', 2),
        ("a,b\r1,2\r", 1),
        ('a,b\n1,2\n3,"' + "x" * 200_000 + '"\n', 3),
    ],
)
def test_a_row_that_is_none_is_named_with_its_line(text, line, tmp_path):
    path = written(tmp_path, text)
    for read in (lambda: list(csv_rows(path)), lambda: data.csv_file(path)):
        with pytest.raises(ValueError, match=f"table.csv, line {line}: the row that begins here is none of a CSV file"):
            read()


def test_endings_of_either_case(tmp_path):
    assert is_csv("DATA.CSV") and is_csv("a.csv.gz") and is_csv("/b/A.CSV.GZ")
    assert not is_csv("a.csv.txt") and not is_csv("csv")
    (tmp_path / "A.CSV.GZ").write_bytes(gzip.compress(b"a,b\n1,0\n2,1\n"))
    assert data.csv_file(tmp_path / "A.CSV.GZ").inputs.tolist() == [[1], [2]]
