"""Loaders of somebody else's: the same examples, whatever their elements are."""

import jax
import numpy as np
import pytest

from localgrad import classification, data, regression
from localgrad.data import streams
from localgrad.data.stream_source import stream_batches, stream_source
from localgrad.data.streams import Stream, check_again

SHAPE = (2, 2, 1)
RNG = np.random.default_rng(0)
X, Y = RNG.integers(0, 256, (25, *SHAPE)).astype(np.uint8), RNG.integers(0, 3, 25)
CUTS = [(X[i : i + 4], Y[i : i + 4]) for i in range(0, 25, 4)]


def torch_loader():
    torch = pytest.importorskip("torch")
    pair = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    return torch.utils.data.DataLoader(pair, batch_size=6)


LOADERS = {
    "pairs": lambda: CUTS,
    "dicts": lambda: [{"id": 0, "image": x, "label": y} for x, y in CUTS],
    "examples": lambda: [{"img": x, "label": int(y)} for x, y in zip(X, Y, strict=True)],
    "one batch": lambda: [(X, Y)],
    "torch": torch_loader,
}


def stream(loader, **more):
    return Stream(**{"name": "train", "loader": loader, "shape": SHAPE, "task": classification(3), **more})


@pytest.mark.parametrize("form", LOADERS)
def test_chunks_are_the_examples_in_order(form):
    chunks = list(stream(LOADERS[form]()).chunks(10))
    assert [len(x) for x, _ in chunks] == [10, 10, 5]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in chunks]), X)
    np.testing.assert_array_equal(np.concatenate([y for _, y in chunks]), Y)


@pytest.mark.parametrize("size", [1, 3, 4, 7])
def test_a_loader_may_fill_one_array_again_and_again(size):
    class Reused:
        def __iter__(self):
            x, y = np.zeros_like(X[:5]), np.zeros_like(Y[:5])
            for i in range(0, 25, 5):
                x[:], y[:] = X[i : i + 5], Y[i : i + 5]
                yield x, y
                x[:], y[:] = 0, 0

    chunks = list(stream(Reused()).chunks(size))
    np.testing.assert_array_equal(np.concatenate([x for x, _ in chunks]), X)
    np.testing.assert_array_equal(np.concatenate([y for _, y in chunks]), Y)


def test_a_look_counts_and_takes_the_statistics_of_all():
    look = stream(CUTS).look(10)
    mean, std = data.pixel_stats(data.Dataset("x", X, Y.astype(np.int32), 3))
    assert look.examples == 25 and look.dtype == np.uint8
    np.testing.assert_allclose([look.mean, look.std], [mean, std], rtol=1e-12)
    still = stream([(np.full((4, *SHAPE), 7, np.uint8), np.zeros(4, int))]).look(2)
    assert still.std.tolist() == [1.0]


def test_batches_can_be_asked_for_at_any_time():
    own = stream(CUTS)
    source = stream_source(own, own.look(8), batch_size=8)
    assert source.steps_per_epoch == 3

    def of(first, count):
        batches = source.batches(first, count)
        fetched = [batches.fetch(jax.tree.map(lambda a, k=k: a[k], batches.items), 0, 8) for k in range(count)]
        return batches.batch_id.tolist(), [np.asarray(x) for x, _ in fetched], [np.asarray(y) for _, y in fetched]

    ids, xs, ys = of(0, 5)
    assert ids == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(np.concatenate(xs[:3]), X[:24].astype(np.float32))
    np.testing.assert_array_equal(xs[3], xs[0])
    again = of(4, 1)
    assert again[0] == [4]
    np.testing.assert_array_equal(again[1][0], xs[4])
    np.testing.assert_array_equal(again[2][0], ys[4])


def test_evaluation_masks_what_fills_the_last_batch():
    seen = list(stream_batches(stream(CUTS), 10))
    assert [int(mask.sum()) for *_, mask in seen] == [10, 10, 5]
    np.testing.assert_array_equal(np.concatenate([np.asarray(y)[np.asarray(mask)] for _, y, mask in seen]), Y)


def test_grey_pictures_need_no_last_axis():
    x, y = next(stream([(X[..., 0], Y)]).chunks(25))
    assert x.shape == X.shape and len(y) == 25
    x, y = next(stream([(grey[None], label) for grey, label in zip(X[..., 0], Y, strict=True)]).chunks(25))
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


class Shrinking:
    """Fewer examples at each pass."""

    def __init__(self):
        self.left = 3

    def __iter__(self):
        self.left -= 1
        return iter([(X[:8], Y[:8])] * self.left)


def test_a_loader_that_shrinks_is_named():
    own = stream(Shrinking())
    source = stream_source(own, own.look(8), batch_size=8)
    with pytest.raises(ValueError, match="train gave fewer than 16 examples in epoch 1"):
        source.batches(0, 2)


@pytest.mark.parametrize(
    ("elements", "more", "says"),
    [
        ([], {}, "gives no examples"),
        ([(X[:, :1], Y)], {}, r"its inputs are \(25, 1, 2, 1\); the model takes \(batch, 2, 2, 1\)"),
        ([(X, Y[:3])], {}, r"found labels \(3,\) for 25 inputs"),
        ([(X, 1)], {}, r"found labels \(\) for 25 inputs"),
        ([(X, Y + 1)], {}, "run from 1 to 3; expected 0 to 2"),
        ([(X * np.nan, Y)], {}, "nan at"),
        ([(X[:4] / 255.0, Y[:4]), (X, Y)], {}, "are float.. and uint8 within one batch"),
        ([(X, Y.astype(str))], {}, "not real numbers"),
        ([(X, np.ma.masked_equal(Y, 1))], {}, "labels have masked entries"),
        ([(X[:5], Y[:5]), (X[5:], Y[5:, None])], {}, r"labels are \(3, 1\) and \(5,\) within one batch"),
        ([(X, np.zeros((25, 2)))], {"task": regression(1)}, r"labels are \(8, 2\) for inputs .* wants \(8, 1\)"),
        ([{"image": X, "img": X, "label": Y}], {}, r'which columns of train are the inputs.*fields=\("inputs"'),
    ],
)
def test_what_a_loader_cannot_give(elements, more, says):
    with pytest.raises(ValueError, match=says):
        stream(elements, **more).look(8)


def test_a_loader_that_does_not_end_is_warned_of(monkeypatch):
    monkeypatch.setattr(streams, "_LONG", -1.0)
    with pytest.warns(UserWarning, match="train has given 0 examples and goes on: it is counted before training"):
        assert stream(CUTS).look(10).examples == 25


@pytest.mark.parametrize(
    ("loader", "says"),
    [([], "train gives no examples: .* drops its last batch"), (0.1, "train=0.1, which cannot be gone through")],
)
def test_what_gives_nothing_is_refused_at_once(loader, says):
    with pytest.raises(ValueError, match=says):
        check_again(loader, "train")


def test_what_can_be_gone_through_once_is_refused():
    check_again([1], "train")
    with pytest.raises(ValueError, match="train is a generator, which can be gone through only once"):
        check_again((x for x in CUTS), "train")


@pytest.mark.parametrize("far", [0.0, 1e6, -3e7])
def test_statistics_of_a_loader_are_those_of_its_arrays(far):
    """Of columns that lie far from zero too, and of one that never varies."""
    rows = np.random.default_rng(0).normal(far, [1.0, 1e-1, 0.0], (64, 3))
    labels = np.zeros(64, np.int32)
    given = Stream("train", [(rows[:40], labels[:40]), (rows[40:], labels[40:])], (3,), classification(3))
    mean, std = data.pixel_stats(data.Dataset("train", rows, labels, 3))
    look = given.look(16)
    np.testing.assert_allclose(look.mean, mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(look.std, std, rtol=1e-6)
