"""Values from outside against annotations."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest

from localgrad.training.kinds import shown, wrong


@pytest.mark.parametrize(
    ("annotation", "fits", "unfit"),
    [
        (int, [0, -3, np.int64(7), 2**32], [True, 1.0, "1", None, (1,), 2**63, float("nan")]),
        (float, [0, 0.5, 1e-400, np.float32(1)], [True, "x", None, float("nan"), float("inf"), 1e300, 10**400, 1j]),
        (bool, [True, False], [0, 1, "True", None]),
        (str, ["", "x"], [1, b"x", None, ("x",)]),
        (int | None, [None, 4], ["few", 1.5, ()]),
        (Sequence[int], [(), (1, 2), [3]], [1, "12", (1, "2"), ((1,),), {1}]),
        (tuple[str, ...], [("a",), []], ["a", (1,)]),
        (int | Sequence[int] | None, [1, (1, 2), None], ["1", (1.5,)]),
        (Literal["a", "b"], ["a", "c"], [1, None]),
        (object, [1, "x", None], []),
    ],
)
def test_what_fits(annotation, fits, unfit):
    for value in fits:
        assert wrong(annotation, value) is None, value
    for value in unfit:
        assert wrong(annotation, value), value


def test_values_are_shown_on_a_short_line():
    assert shown("x" * 1000) == "'" + "x" * 79 + " ..."
    assert shown(10**5000) == "a number of thousands of digits"
