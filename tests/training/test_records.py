"""What is read from the records of epochs."""

import pytest

from localgrad.training.records import past_its_best

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "best", "over"),
    [
        ((0.9, NAN, 0.5, 0.4), "min", False),
        ((0.9, 0.8, NAN, NAN), "min", True),
        ((NAN, 50.0, 60.0), "max", False),
        ((50.0, NAN, NAN), "max", True),
        ((NAN, NAN, NAN), "max", True),
    ],
)
def test_a_score_that_is_no_number_is_not_the_best(values, best, over):
    records = [{"split": "validation", "odd": value, "exit_odd": [value], "best": best} for value in values]
    assert past_its_best(records, 2) is over
