"""`localgrad compare`: what it refuses before anything is trained."""

import pytest

from localgrad.cli.compare import check_rows
from localgrad.results.grid import rows_of
from localgrad.training import Config


@pytest.mark.parametrize(
    ("methods", "sweep", "says"),
    [
        (["bp"], "batch_size=32,5000", "runs/all/bp/batch_size=5000: --batch_size=5000 is more than the"),
        (["early_exit", "dfa"], "frozen=0,2", "frozen=2: .*frozen=2 of 2 blocks"),
        (["early_exit"], "staleness=delayed,locked", "staleness=locked: --staleness=locked is of methods that wait"),
    ],
)
def test_every_value_of_a_sweep_is_checked_first(methods, sweep, says):
    base = Config(widths=(8, 8), workdir="runs/all")
    with pytest.raises(ValueError, match=says):
        check_rows(rows_of(base, methods, [sweep]))


def test_the_parts_of_a_batch_are_one_methods():
    """They are of backpropagation alone, and the others of a comparison refuse them."""
    rows = rows_of(Config(widths=(8, 8), stages=2, workdir="runs/all"), ["bp:micro_batches=4", "early_exit"])
    assert [row.points[0].config.micro_batches for row in rows] == [4, None]
