"""A page shows the numbers that it was given, asks nobody for anything, and stays readable with many blocks."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from localgrad.report.facts import Epochs, Example, Run, Seen
from localgrad.report.page import differing, render
from localgrad.report.tables import Table

EPOCHS = 5


class Reader(HTMLParser):
    """What a test asks of a page: its elements, its charts by title, and the rows of its tables."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.charts, self.rows, self.texts = [], {}, [], []
        self._chart, self._cell = None, False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        if tag == "svg":
            self._chart = self.charts.setdefault(found["aria-label"], {"axes": found, "lines": {}})
        if tag == "g" and found.get("class") == "line":
            self._line = self._chart["lines"].setdefault(found["data-name"], [])
        if tag == "polyline":
            self._line += [tuple(map(float, pair.split(","))) for pair in found["points"].split()]
        if tag == "tr":
            self.rows.append([])
        self._cell = tag == "td"

    def handle_data(self, data):
        self.texts.append(data)
        if self._cell:
            self.rows[-1].append(data)
            self._cell = False

    def numbers(self, title: str, name: str) -> np.ndarray:
        """The points of a line, `(points, 2)`, read back through the ranges of the axes."""
        chart = self.charts[title]
        points, found = np.array(chart["lines"][name]), []
        for axis, places in (("y", points[:, 1]), ("x", points[:, 0])):
            low, high, first, last = map(float, chart["axes"][f"data-{axis}"].split())
            log = axis == chart["axes"].get("data-log")
            low, high = (np.log10([low, high])) if log else (low, high)
            values = low + (places - first) / (last - first) * (high - low)
            found.insert(0, 10**values if log else values)
        return np.stack(found, axis=1)


def run(name: str, blocks: int = 3, trials: int = 1, **more) -> Run:
    rng = np.random.default_rng(len(name))
    epoch = np.arange(1, EPOCHS + 1)
    accuracy = {split: 90 + rng.random((EPOCHS, blocks, trials)) for split in ("validation", "test")}
    evaluated = dict.fromkeys(accuracy, epoch)
    loss = rng.random((EPOCHS, blocks, trials)) + 0.01
    epochs = Epochs(epoch, loss, {"norm": loss + 1}, 1000 + rng.random(EPOCHS), evaluated, accuracy)
    config = {"method": name, "net": "mlp", "dataset": "digits", "epochs": EPOCHS, "workdir": f"runs/{name}"}
    return Run(name, f"runs/{name}", config, f"localgrad train --method={name}", {"jax": "1"}, epochs, {}, **more)


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return [run("al"), run("early_exit", trials=3)]


@pytest.fixture(scope="module")
def page(runs) -> Reader:
    return Reader(render(runs, defaults={"method": "al", "seed": 0}))


def test_charts_show_the_records(page):
    first = Reader(render([run("al")], defaults={}))
    epochs = run("al").epochs
    for i in range(3):
        found = first.numbers("Training loss by block", f"block {i + 1}")
        np.testing.assert_allclose(found[:, 0], epochs.epoch, atol=0.02)
        np.testing.assert_allclose(found[:, 1], epochs.loss[:, i, 0], rtol=2e-3)
        found = first.numbers("Accuracy by exit", f"exit {i + 1}, test")
        np.testing.assert_allclose(found[:, 1], epochs.scores["test"][:, i, 0], atol=2e-3)
    found = first.numbers("Test accuracy by exit, last epoch", "al")
    np.testing.assert_allclose(found[:, 1], epochs.scores["test"][-1, :, 0], atol=2e-3)


def test_several_runs_stand_in_one_chart_with_the_means_of_their_trials(page, runs):
    for each in runs:
        found = page.numbers("Test accuracy at the last exit", each.name)
        np.testing.assert_allclose(found[:, 1], each.epochs.scores["test"][:, -1].mean(axis=1), atol=2e-3)
    last = runs[1].epochs.scores["test"][-1, -1]
    rows = {row[0]: row for row in page.rows if row}
    assert f"{last.mean():.2f} ± {last.std(ddof=1):.2f}" in rows["early_exit"]
    assert ["method", "al", "early_exit"] in page.rows


def test_a_page_brings_its_records_and_asks_for_nothing(page, runs):
    text = render(runs, defaults={})
    (records,) = re.findall(r'<script type="application/json" id="records">(.*?)</script>', text, re.DOTALL)
    found = json.loads(records)["early_exit"]
    np.testing.assert_array_equal(found["block_loss"], runs[1].epochs.loss)
    np.testing.assert_array_equal(found["test_accuracy"], runs[1].epochs.scores["test"])
    for tag, attributes in page.tags:
        for key in ("src", "href"):
            assert attributes.get(key, "#").startswith(("#", "data:")), (tag, attributes)
    assert "url(" not in text and "@import" not in text


def test_what_others_wrote_is_text_and_no_markup(runs):
    bad = "<script>alert(1)</script>"
    example = Example(3, bad, bad, 0.9, "", bad)
    given = runs[0]._replace(
        name=bad, workdir=bad, command=bad, notes=(bad,), seen=Seen(np.eye(2, dtype=int), (bad, "b"), (example,))
    )
    found = Reader(render([given], defaults={}, tables=[Table(bad, [bad], [[bad]])]))
    assert [attributes for tag, attributes in found.tags if tag == "script"] == [
        {"type": "application/json", "id": "records"}
    ]
    assert bad in found.texts


def test_many_blocks_have_a_scale_in_place_of_a_legend():
    text = render([run("deep", blocks=64)], defaults={})
    found = Reader(text)
    assert len(found.charts["Training loss by block"]["lines"]) == 64
    assert text.count('class="scale"') == 3  # losses, accuracies, and the norms that were written down as well
    assert all(len(legend) < 600 for legend in re.findall(r'<div class="legend">.*?</div>', text))
    assert "Training loss, block by epoch" in found.charts
    assert "<details><summary>Exits: 64 rows" in text


def test_numbers_that_are_none_leave_a_gap():
    given = run("al")
    given.epochs.loss[2, 1] = np.nan
    text = render([given], defaults={})
    assert "nan" not in text.lower().replace("nanmean", "")
    assert len(Reader(text).charts["Training loss by block"]["lines"]["block 2"]) == EPOCHS - 1


def test_one_run_is_told_from_the_defaults():
    table = differing([run("scl")], {"method": "al", "net": "mlp", "dataset": "digits", "epochs": 5})
    assert table.rows == [["method", "scl", "al"]]


def test_runs_need_names_of_their_own():
    with pytest.raises(ValueError, match="of a name of its own"):
        render([run("al"), run("al")], defaults={})
