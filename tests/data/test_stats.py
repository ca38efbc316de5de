"""Statistics by which inputs are brought into a range."""

import numpy as np
import pytest

from localgrad.data import Dataset, get, range_stats, source


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0)])
def test_bytes_lie_between_nothing_and_the_brightest(low: float, high: float) -> None:
    digits = get("digits", "train")
    mean, std = range_stats(digits, low, high)
    made = source(digits, batch_size=len(digits.labels), seed=0, mean=mean, std=std).batches(0, 1)
    x, _ = made.fetch(made.items[0], 0, len(digits.labels))
    assert (float(x.min()), float(x.max())) == (low, high)
    np.testing.assert_allclose(np.unique(np.asarray(x)), np.linspace(low, high, 17), atol=1e-6)


def test_each_column_of_a_table_has_its_own_ends() -> None:
    rows = np.array([[1.0, -4.0, 7.0], [3.0, 4.0, 7.0], [2.0, 0.0, 7.0]], np.float32)
    mean, std = range_stats(Dataset("rows", rows, np.zeros(3, np.int32), 1))
    np.testing.assert_allclose((rows - mean) / std, [[-1, -1, 0], [1, 1, 0], [0, 0, 0]])


def test_texts_have_no_range() -> None:
    texts = Dataset("words", np.zeros((2, 3), np.int32), np.zeros(2, np.int32), 1, ("a", "b"))
    with pytest.raises(ValueError, match="words holds texts, whose numbers stand for words: they have no range"):
        range_stats(texts)
