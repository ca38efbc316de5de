"""Pages that a program writes of its own models."""

from functools import cache

import numpy as np
import pytest

import localgrad as lg
from localgrad.results import Given, gather
from localgrad.results.page_file import checked_out

from ..training import own

NAMES = ("dark", "grey", "light")


@cache
def model():
    """The model of the run, made again: one for all tests."""
    return own.model()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of an own model on own pictures."""
    folder = tmp_path_factory.mktemp("own") / "run"
    lg.fit(own.model(), own.pictures(96), 0.25, epochs=2, workdir=folder, label_names=NAMES, log=lambda line: None)
    return folder


@pytest.fixture(scope="module")
def test_set():
    x, y = own.pictures(40, seed=1)
    return x, np.where(np.arange(40) < 3, (y + 1) % own.CLASSES, y)  # three are told wrong


def test_where_no_file_can_be_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no folder .*absent; make it, or give another file"):
        checked_out(f"{tmp_path}/absent/report.html")
    with pytest.raises(ValueError, match="is a folder, and a page is one file: give one, such as"):
        checked_out(str(tmp_path))
    assert checked_out(f"{tmp_path}/report.html") == tmp_path / "report.html"


def test_an_own_model_shows_what_it_predicts(workdir, test_set, tmp_path):
    said = []
    page = tmp_path / "page.html"
    lg.write_report(
        workdir, page, model=model(), test=test_set, validation=own.pictures(40, seed=2), alignment=True,
        log=said.append,
    )  # fmt: skip
    assert said == [f"wrote {page}"]
    text = page.read_text()
    for words in ("Confusion of classes", "Timeline of the pipeline", "dark", "light", "data:image/png"):
        assert words in text

    found = gather(str(workdir), "own", given=Given(model(), test_set, own.pictures(40, seed=2)), alignment=True)
    network, (x, y) = lg.load(workdir, best=False, model=model()), test_set
    predicted = network(x).values
    assert found.notes == () and found.seen.classes == NAMES
    assert found.seen.confusion.tolist() == [
        [int(np.sum((y == label) & (predicted == value))) for value in range(3)] for label in range(3)
    ]
    assert [row["accuracy"] for row in found.measured["exits"]] == [
        pytest.approx(100 * np.mean(network(x, exit).values == y)) for exit in (1, 2)
    ]
    wrong, worst = set(np.flatnonzero(predicted != y).tolist()), {example.number for example in found.seen.worst}
    assert worst <= wrong and len(worst) == min(12, len(wrong))
    assert len(found.measured["anytime"]) == 10 and len(found.measured["cosine"]) == 2


def test_without_validation_there_is_no_curve_of_leaving_early(workdir, test_set):
    found = gather(str(workdir), "own", given=Given(model(), test_set))
    assert found.seen is not None and "anytime" not in found.measured


def test_a_loader_is_gone_through(workdir, test_set):
    x, y = test_set
    batches = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 40, 8)]
    found = gather(str(workdir), "own", given=Given(model(), batches))
    assert found.seen is None  # of examples in no array
    arrays = gather(str(workdir), "own", given=Given(model(), test_set))
    assert [row["accuracy"] for row in found.measured["exits"]] == [row["accuracy"] for row in arrays.measured["exits"]]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"model": model()}, "give model= and test=, or neither"),
        ({"test": own.pictures(8)}, "give model= and test=, or neither"),
        ({"model": [model()] * 2, "test": own.pictures(8)}, "1 runs, and 2 models: give one for each"),
        ({"out": "."}, r"is a folder, and a page is one file: give one, such as"),
    ],
)
def test_what_cannot_be_looked_at(workdir, given, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        lg.write_report(workdir, **{"out": tmp_path / "page.html", **given})
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("another", "test", "says"),
    [
        (lambda: own.model(blocks=[lg.from_linen(own.Layer())] * 2), own.pictures(8), "another"),
        (model, (np.zeros((4, 5, 4, 1), np.uint8), np.zeros(4, int)), "the model takes"),
        (model, (own.pictures(4)[0], np.full(4, 7)), "labels"),
        (model, (np.zeros((4, 4, 4, 1), np.float32), np.zeros(4, int)), "trained on uint8 and scales them itself"),
    ],
)
def test_another_model_or_other_examples_are_refused(another, test, says, workdir, tmp_path):
    with pytest.raises(ValueError, match=says):
        lg.write_report(workdir, tmp_path / "page.html", model=another(), test=test)
    assert not (tmp_path / "page.html").exists()
