"""What predictions show, of sets whose classes have names, or have not."""

import numpy as np

from localgrad.data import Dataset
from localgrad.results.seen import seen

SCORES = np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 5.0], [0.0, 1.0, 0.0]])


def test_a_class_without_a_name_is_called_by_its_number():
    named = Dataset("rows", np.ones((3, 1)), np.array([0, 1, 1]), 2, label_names=("no", "yes"))
    found = seen(SCORES, named)
    assert found.classes == ("no", "yes", "class 2") and found.confusion.shape == (3, 3)
    assert [(each.label, each.predicted) for each in found.worst] == [("yes", "class 2")]
    bare = seen(SCORES, named._replace(label_names=None))
    assert bare.classes == ("0", "1", "2")
