"""`localgrad.fit`: own modules and own data in the one loop."""

import importlib
import json
import os
import re
import shutil
import signal
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from PIL import Image

import localgrad as lg
from localgrad import data
from localgrad.pipeline import specs
from localgrad.training import Interrupted, restore
from localgrad.training.beginnings import Trained, transferred
from localgrad.training.config_file import read_config

from . import own

TRAIN, VALIDATION = own.pictures(80), own.pictures(40, seed=1)


def quiet(line: str) -> None:
    pass


@cache
def usual(classes=own.CLASSES):
    """One model for all tests that need no model of their own: the library looks at it once."""
    return own.model(classes)


def small(*of, **more):
    """A model of a single block, for what does not depend on how many there are."""
    return own.model(*of, blocks=[lg.from_linen(own.Layer())], **more)


@cache
def single():
    """The same, one for all tests that need no model of their own."""
    return small()


def fit(train=TRAIN, validation=VALIDATION, model=None, **more):
    more = {"epochs": 2, "log": quiet, **more}
    return lg.fit(usual() if model is None else model, train, validation, **more)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run of three epochs that nobody disturbed."""
    return fit(epochs=3, workdir=tmp_path_factory.mktemp("own") / "run")


class Told:
    """A tracker that keeps what it is told."""

    def __init__(self):
        self.rows, self.run = [], None

    def start(self, run, step):
        self.run = run, step

    def call(self, row):
        self.rows.append(("call", row))

    def epoch(self, row):
        self.rows.append(("epoch", row))

    def close(self):
        self.rows.append(("close", {}))


@pytest.fixture(scope="module")
def tracked():
    """The same run on two stages and in no folder, and what a tracker was told of it."""
    told = Told()
    return fit(epochs=3, stages=2, batches_per_call=3, trackers=[told]), told


def test_it_learns_and_writes_what_a_run_writes(undisturbed):
    folder = undisturbed.workdir
    assert set(os.listdir(folder)) == {
        "config.json", "model.json", "plan.json", "metrics.jsonl", "calls.jsonl", "summary.json", "curves.png",
        "checkpoints",
    }  # fmt: skip
    summary = undisturbed.summary
    assert summary["steps"] == 15 and summary["net"] == "Layer-Top" and summary["method"] == "early_exit"
    assert summary["best_validation_accuracy"] > 70
    assert json.loads((Path(folder) / "summary.json").read_text()) == summary
    assert "test_accuracy" not in summary and summary["exit_accuracy"][-1] == summary["validation_accuracy"]
    assert [record["split"] for record in undisturbed.records] == ["train", "validation"] * 3
    assert lg.params_sha256(undisturbed.states) == summary["params_sha256"]


def test_stages_and_a_folder_of_its_own_change_nothing(undisturbed, tracked):
    piped, _ = tracked  # compiled quickly, a block rounds otherwise in programs of other stages
    for ours, theirs in zip(jax.tree.leaves(piped.states), jax.tree.leaves(undisturbed.states), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert piped.workdir is None and piped.summary["stages"] == 2


def test_a_stop_and_more_epochs_change_nothing(undisturbed, tmp_path):
    seen, stop = [], [True]

    def once(ended):
        seen.append(ended.epoch)
        if stop.pop() if stop else False:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        fit(workdir=tmp_path, callbacks=[once])
    fit(workdir=tmp_path, callbacks=[once])
    said = []
    again = own.model()  # as another process makes it
    done = fit(model=again, epochs=3, workdir=tmp_path, callbacks=[once], log=said.append)
    assert seen == [1, 2, 3] and any("epochs was 2 and is 3" in line for line in said)
    assert done.summary["params_sha256"] == undisturbed.summary["params_sha256"]
    assert done.records[1]["accuracy"] == undisturbed.records[1]["accuracy"]
    steps = [json.loads(line)["step"] for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert steps == [5, 10, 15]
    before = fit(epochs=3, workdir=tmp_path, callbacks=[once])  # nothing is left to do
    assert seen == [1, 2, 3] and before.summary == done.summary


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": lambda: own.model(tx=optax.sgd(0.1))}, "model is '"),
        ({"model": lambda: own.model(4)}, "task is 'classification\\(3\\)' there and 'classification\\(4\\)' here"),
        ({"train": own.pictures(80, seed=5)}, "data.labels is "),
        ({"hyperparameters": {"rate": 0.1}}, r"hyperparameters.rate is None there and 0.1 here"),
        ({"model": lambda: own.model(tx=optax.adam(1e-2))}, "program.optimizer 1 is '"),
        (
            {"model": lambda: own.model(blocks=[lg.from_linen(own.Layer(activation=nn.tanh)), lg.from_nnx(own.Top)])},
            "configuration: program.block 1 is '",
        ),
        ({"validation": own.pictures(41, seed=1)}, r"evaluated.validation.shape is '\(40, 4, 4, 1\) uint8' there"),
        ({"validation": None}, "evaluated.validation is "),
        ({"test": TRAIN}, "evaluated.test is None there"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"epochs": 1}, "epochs is 3 there and 1 here"),
        ({"normalise": False}, "preprocessing.stats is"),
        ({"label_names": ["a", "b", "c"]}, r"data.label_names is None there and \['a', 'b', 'c'\] here"),
    ],
)
def test_another_run_is_refused_in_one_line(change, says, undisturbed):
    more = {"epochs": 3, **change}
    model = more.pop("model", usual)()
    with pytest.raises(ValueError, match=says) as error:
        fit(model=model, workdir=undisturbed.workdir, **more)
    assert "\n" not in str(error.value) and "--" not in str(error.value)
    assert "of another configuration" in str(error.value)


def test_a_run_of_names_and_one_that_was_given_know_each_other(undisturbed, tmp_path):
    with pytest.raises(ValueError, match="given to localgrad.fit, and no names to make it of"):
        read_config(undisturbed.workdir)
    (tmp_path / "config.json").write_text(json.dumps(lg.training.Config().to_json()))
    with pytest.raises(ValueError, match="a run of a model made of names, and this is one of a model that was given"):
        fit(workdir=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"train": iter([TRAIN])}, "can be gone through only once"),
        ({"train": 3}, "cannot be gone through"),
        (
            {"train": (TRAIN[0][:, :2], TRAIN[1])},
            r"its inputs is \(2, 4, 1\); the model takes \(4, 4, 1\)",
        ),
        ({"train": (TRAIN[0], TRAIN[1] + 1)}, "run from 1 to 3; expected 0 to 2"),
        ({"train": (TRAIN[0], TRAIN[1][:5])}, r"found labels \(5,\) for 80 inputs"),
        ({"train": (TRAIN[0][:8], TRAIN[1][:8])}, "batch_size=16 with 8 training examples"),
        ({"train": [(TRAIN[0][:8], TRAIN[1][:8])]}, "gives 8 examples, less than one batch of 16"),
        ({"train": {"a": TRAIN[0], "b": TRAIN[1]}}, "which columns of train are the inputs"),
        ({"train": {"a": TRAIN[0], "b": TRAIN[1]}, "fields": ("a", "c")}, "no column 'c'; it has a, b"),
        ({"train": [1, 2, 3]}, "train gives a int; expected pairs"),
        ({"train": "/nowhere"}, "is not there"),
        ({"validation": (VALIDATION[0] / 255, VALIDATION[1])}, "validation: inputs are float32, .* trained on uint8"),
        (
            {"train": (TRAIN[0] / 255, TRAIN[1])},
            "validation: inputs are uint8, .* trained on float32, scaled by whoever",
        ),
        ({"validation": None, "test": (TRAIN[0] / 255, TRAIN[1])}, "test: inputs are float32, .* give them unscaled"),
        ({"validation": 1.5}, "expected a share that leaves some in both"),
        ({"epochs": 0}, "^epochs must be at least 1; got 0"),
        ({"stages": 3}, "stages"),
        ({"mean": 3.0}, "give both mean and std"),
        ({"mean": [1.0, 2.0], "std": 1.0}, r"mean is \(2,\); expected one number, or one for each of 1 channels"),
        ({"mean": 0.48, "std": 0.22}, "mean and std are those of numbers between 0 and 1.* 255 times both"),
        ({"test": 0.1}, "test=0.1, which cannot be gone through"),
        ({"validation": []}, "validation gives no examples"),
        ({"label_names": ["a"]}, "label_names has 1 names, and the model 3 classes"),
        ({"label_names": "abc"}, "label_names is a str; expected a list"),
        ({"label_names": {"a", "b", "c"}}, "label_names is a set; expected a list"),
        ({"label_names": {0: "a", 1: "b", 2: "c"}}, "label_names is a dict; expected a list"),
        ({"label_names": ["a", "b", "a"]}, "label_names has 'a' more than once"),
        ({"hyperparameters": {"rate": [1]}}, "hyperparameters are names with numbers"),
        ({"trace": (5, 2)}, "^trace is the numbers of two batches"),
        ({"begin": "/nowhere"}, "nowhere"),
        ({"workdir": __file__}, "is a file; give a folder"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_compiled(arguments, says, monkeypatch):
    monkeypatch.setattr(importlib.import_module("localgrad.training.run"), "train", None)  # what would compile
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        fit(**arguments)


def test_arguments_that_there_are_not():
    with pytest.raises(TypeError, match=r"has no argument 'batchsize'; besides .* data_parallel, cuts"):
        fit(batchsize=3)
    with pytest.raises(TypeError, match="model is what a method makes"):
        lg.fit(own.Layer(), TRAIN, epochs=1)


def test_a_loader_gives_the_batches_that_it_gives():
    x, y = TRAIN[0][:70], TRAIN[1][:70]  # a partial last batch is dropped
    loader = [(x[i : i + 9], y[i : i + 9]) for i in range(0, 70, 9)]  # of another size than the model's
    model = single()
    done = fit(loader, loader, model)
    engine = lg.sequential(model)
    key = jax.random.key(0)
    state = engine.load(lg.init(model, jax.random.fold_in(key, 0)), jax.random.fold_in(key, 1))
    mean, std = lg.data.pixel_stats(lg.data.Dataset("x", x, y.astype(np.int32), 3))
    scaled = np.asarray((x - mean) / std, np.float32)[:64].reshape(4, 16, *own.SHAPE)
    for _ in range(2):
        state, metrics = engine.run(state, lg.data.batches(scaled, y[:64].reshape(4, 16)))
    metrics.check()
    for ours, theirs in zip(done.states, engine.states(state), strict=True):
        for a, b in zip(jax.tree.leaves(ours.params), jax.tree.leaves(theirs.params), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    scores = done.predictor(best=False)(x).values
    assert done.summary["validation_accuracy"] == pytest.approx(100 * np.mean(scores == y))


@pytest.mark.parametrize(
    ("train", "validation", "says"),
    [
        ([TRAIN], [(VALIDATION[0] / 255, VALIDATION[1])], "validation: inputs are float32, .* trained on uint8"),
        ([(TRAIN[0] / 255, TRAIN[1])], [VALIDATION], "validation: inputs are uint8, .* trained on float32"),
        ([TRAIN, (TRAIN[0] / 255, TRAIN[1])], None, "train: inputs are"),
    ],
)
def test_a_loader_of_other_kinds_of_inputs_is_refused_when_it_gives_them(train, validation, says):
    with pytest.raises(ValueError, match=says):
        fit(train, validation, single())


def test_a_regression_chooses_the_least_error(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 5)).astype(np.float32)
    y = x[:, :1] - x[:, 1:2]
    model = small(lg.regression(1), optax.sgd(lambda step: jnp.where(step < 4, 0.1, -0.1)), shape=(5,))
    done = fit((x, y[:, 0]), 0.25, model, epochs=3, workdir=tmp_path)
    errors = [record["mean_squared_error"] for record in done.records if record["split"] == "validation"]
    assert done.summary["best_validation_mean_squared_error"] == min(errors) < errors[-1]
    epoch = int(np.argmin(errors)) + 1
    assert done.summary["best_epoch"] == epoch
    assert restore(specs(model)[0], tmp_path, best=True).step == 3 * epoch
    assert done.predictor()(x[:2]).values.shape == (2, 1)


def test_an_epoch_without_a_score_is_never_the_best(tmp_path):
    """The rate is 0 in the first epoch, and what the network says later is off the scale of this score."""
    x = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
    off = lambda scores, y: jnp.where(jnp.abs(scores[..., 0]) < 5, (scores[..., 0] - y[..., 0]) ** 2, jnp.nan)
    for best in ("min", "max"):
        task = lg.regression(1)._replace(scores={"odd": lg.tasks.Score(off, best)})
        model = small(task, optax.sgd(lambda step: jnp.where(step < 3, 0.0, 0.03)), shape=(5,))
        folder = tmp_path / best
        done = fit((x, np.full(64, 9.0)), 0.25, model, epochs=4, workdir=folder, stop_after=2)
        odd = [record["odd"] for record in done.records if record["split"] == "validation"]
        assert np.isfinite(odd[0]) and np.isnan(odd[1:]).all() and len(odd) == 3
        assert done.summary["best_epoch"] == 1 and done.summary["best_validation_odd"] == odd[0]
        assert restore(specs(model)[0], folder, best=True, log=pytest.fail).step == 3


def test_a_stop_after_the_best_ends_a_run_and_the_same_call_says_so(tmp_path):
    still = small(tx=optax.sgd(0.0))
    done = fit(model=still, epochs=9, stop_after=2, workdir=tmp_path)
    assert done.summary["steps"] == 15 and done.summary["best_epoch"] == 1
    said = []
    fit(model=still, epochs=9, stop_after=2, workdir=tmp_path, log=said.append)
    assert "is a finished run" in said[-1]


@pytest.mark.parametrize(
    # Python's own ends a run in `test_an_end_by_a_callback_is_remembered_and_more_epochs_go_on`.
    "true",
    [pytest.param(True, marks=pytest.mark.full), np.True_, jnp.array(True)],
)
def test_a_callback_that_says_true_ends_a_run(true):
    says = lambda ended: true if ended.epoch == 2 else None
    assert fit(model=single(), validation=None, epochs=9, callbacks=[says]).summary["steps"] == 10


@pytest.mark.parametrize(
    ("model", "arguments", "says"),
    [
        (
            single,
            {"validation": None, "stop_after": 3},
            "stop_after=3 waits for a better validation, and there is none",
        ),
        (
            lambda: lg.layerwise(usual(), 2),
            {"stop_after": 1},
            "stop_after=1 looks at the last exit, which begins to",
        ),
        (
            lambda: lg.trials(lg.layerwise(usual(), 10), 2),
            {},
            "2 blocks learn one after another, from 10 batches each, .* has 10",
        ),
        (single, {"trace": (10, 12)}, "trace=10,12 is beyond the run, whose batches are 0 to 9"),
        (single, {"staleness": "locked"}, "staleness=locked is of methods that wait"),
        (single, {"micro_batches": 2}, "micro_batches=2 is of backpropagation"),
    ],
)
def test_what_would_do_nothing_is_refused(model, arguments, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        fit(model=model(), epochs=2, workdir=tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


def test_an_end_by_a_callback_is_remembered_and_more_epochs_go_on(tmp_path):
    here = {"model": single(), "workdir": tmp_path}
    second = {"callbacks": [lambda ended: ended.epoch == 2], **here}
    done = fit(epochs=4, **second)
    assert done.summary["steps"] == 10
    said = []
    assert fit(epochs=4, log=said.append, **second).summary == done.summary and "is a finished run" in said[-1]
    assert fit(epochs=4, **here).summary == done.summary
    assert fit(epochs=5, log=said.append, trace=(2, 4), **second).summary["steps"] == 25
    assert "the batches of trace=2,4 are done already: nothing is traced" in said
    shutil.rmtree(tmp_path / "checkpoints")
    for epochs in (5, 6):
        with pytest.raises(
            ValueError, match="ended after 25 batches, and its checkpoints are gone, .* another workdir"
        ):
            fit(epochs=epochs, **here)


def test_another_augmentation_of_a_name_is_another_run(tmp_path):
    fit(model=single(), epochs=1, augment="flip", workdir=tmp_path)
    with pytest.raises(ValueError, match="preprocessing.augment is 'augmentation of flip, .* there and 'augm.* jitter"):
        fit(model=single(), epochs=2, augment="flip,jitter=1", workdir=tmp_path)


def test_another_augmentation_of_the_same_name_is_another_run(tmp_path):
    brighter = lambda by: lambda keys, x: jnp.minimum(x, 255 - by) + jnp.asarray(by, x.dtype)
    run = lambda epochs, augment: fit(model=single(), epochs=epochs, augment=augment, workdir=tmp_path)
    run(1, brighter(2))
    run(1, brighter(2))
    with pytest.raises(ValueError, match="another configuration: program.augmentation is '.*' there and '.*' here"):
        run(3, brighter(3))


class Table(np.ndarray):
    """Numbers whose columns have names, as a data frame's have."""

    columns = ("u", "v", "w")


# --- what the classes are called ------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    """Dark pictures of `cat`, light ones of `dog`."""
    for name, value in (("cat", 0), ("dog", 255)):
        (tmp_path / name).mkdir()
        for i in range(16):
            Image.new("L", (4, 4), abs(value - i)).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_a_folder_is_numbered_by_the_names_that_are_given(folders):
    names = ["dog", "cat"]
    done = fit(str(folders), None, small(2), epochs=8, label_names=names)
    predicted = done.predictor()(np.array([[[[0]] * 4] * 4, [[[255]] * 4] * 4], np.uint8))
    assert [done.predictor().about.label_names[i] for i in predicted.values] == ["cat", "dog"]


def test_a_file_is_numbered_as_the_arrays_of_training_are(tmp_path):
    """Its labels are two of the three classes: they keep their numbers, and others are no classes."""
    x = np.random.default_rng(0).normal(size=(48, 2)).astype(np.float32)
    y = np.arange(48) % 3
    x[:, 0] += 9 * y
    write = lambda names: (tmp_path / "v.csv").write_text(
        "".join([*("a,b,label\n",), *(f"{r[0]},{r[1]},{names[k]}\n" for r, k in zip(x, y, strict=True) if k)])
    )
    write("012")
    model = small(shape=(2,))
    done = fit((x, y), str(tmp_path / "v.csv"), model, test=(x[y > 0], y[y > 0]), epochs=3)
    assert done.records[-1]["accuracy"] == pytest.approx(done.summary["test_accuracy"])
    with pytest.raises(ValueError, match=r"fields=\('a', 'label'\); the inputs of a CSV file are all columns but"):
        fit(str(tmp_path / "v.csv"), None, model, fields=("a", "label"))
    write("abc")
    with pytest.raises(ValueError, match="the label 'b' is no class; there are 0, 1, 2"):
        fit((x, y), str(tmp_path / "v.csv"), model)


def test_names_of_another_order_are_refused():
    other = data.Dataset("other", *VALIDATION, 3, label_names=("c", "b", "a"))
    with pytest.raises(ValueError, match="its classes are c, b, a, and label_names are a, b, c: the same numbers mean"):
        fit(TRAIN, other, label_names=["a", "b", "c"])
    with pytest.raises(ValueError, match="its classes are c, b, a, and label_names are a, b, c"):
        fit(other, None, label_names=["a", "b", "c"])


def test_targets_whose_columns_have_another_order_are_refused():
    x, y = VALIDATION
    named = np.eye(3, dtype=np.int32)[y].view(Table)
    turned = named[:, ::-1].view(Table)
    turned.columns = ("w", "v", "u")
    with pytest.raises(ValueError, match="validation: its targets are w, v, u, and those of training u, v, w"):
        fit((x, named), (x, turned), own.model(lg.multilabel(3)))
    with pytest.raises(ValueError, match="test: its targets are w, v, u, and those of training u, v, w"):
        fit({"x": x, "y": named}, None, own.model(lg.multilabel(3)), test={"x": x, "y": turned})


class Embed(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Embed(7, 8)(x).mean(axis=1)


def test_whole_numbers_go_to_a_model_that_takes_them():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 7, (64, 6))
    model = own.model(3, shape=(6,), dtype=jnp.int32, blocks=[lg.from_linen(Embed())])
    done = fit((x, (x == 1).sum(axis=1).clip(0, 2)), None, model, epochs=1)
    assert done.predictor()(x[:5]).scores.shape == (5, 3)
    with pytest.raises(ValueError, match="its inputs are float32; the model takes int32"):
        fit((x.astype(np.float32), x[:, 0] % 3), None, model)


def test_a_trained_network_begins_another(undisturbed):
    other = own.pictures(64, seed=3, classes=2)
    model = lg.heads_alone(usual(2))
    done = fit((other[0], other[1]), None, model, begin=undisturbed.workdir, epochs=1)
    for ours, theirs in zip(done.states, undisturbed.best, strict=True):
        assert jax.tree.all(jax.tree.map(np.array_equal, ours.params["f"], theirs.params["f"]))
        assert ours.params["head"] is not None
    moved = fit((other[0], other[1]), None, usual(2), begin=undisturbed, epochs=1)
    before, after = (jax.tree.leaves(states[0].params["f"]) for states in (undisturbed.best, moved.states))
    assert not all(map(np.array_equal, before, after))
    with pytest.raises(ValueError, match="nothing of the trained network fits"):
        fit(
            (other[0][:, :2], other[1]),
            None,
            own.model(2, shape=(2, 4, 1), blocks=[lg.from_linen(own.Layer(4))]),
            begin=undisturbed,
        )


def test_what_another_network_begins_with_is_told(undisturbed):
    told = []
    x, y = TRAIN
    fit((x, y), None, begin=undisturbed, epochs=1, log=told.append)
    assert "beginning with the trained network: all its layers are taken over; all else begins anew" in told
    assert not any("scaled" in line for line in told)
    other = own.model(blocks=[lg.from_linen(own.Layer()), lg.from_linen(own.Layer(3))])
    fit((x, y), None, other, begin=undisturbed, epochs=1, mean=0.5, std=2.0, log=told.append)
    assert any("its layers, but for those of block 2, which differ, are taken over" in line for line in told)
    assert any("and these are by mean 0.5 and deviation 2" in line for line in told)


def test_frozen_blocks_are_taken_over_with_their_heads(undisturbed):
    told = []
    done = fit(TRAIN, None, lg.freeze(usual(), 1), begin=undisturbed, epochs=1, log=told.append)
    same = lambda i, group: jax.tree.all(
        jax.tree.map(np.array_equal, done.states[i].params[group], undisturbed.best[i].params[group])
    )
    assert same(0, "f") and same(0, "head") and not same(1, "f") and not same(1, "head")
    assert not any("stays as it is drawn" in line for line in told)
    about = undisturbed.about._replace(label_names=("a", "b", "c"))
    for names, taken in ((("a", "b", "c"), True), (("c", "b", "a"), False)):
        trained = Trained(undisturbed.best, about)
        found = transferred(lg.freeze(usual(), 1), trained, about._replace(label_names=names))
        first = found.draw(jax.random.key(0))[0].params["head"]
        assert jax.tree.all(jax.tree.map(np.array_equal, first, undisturbed.best[0].params["head"])) == taken
    fit((TRAIN[0], TRAIN[1] % 2), None, lg.freeze(usual(2), 1), begin=undisturbed, epochs=1, log=told.append)
    assert any("of block 1, where nothing learns, some is not taken over and stays as it is drawn" in x for x in told)


def test_trackers_are_told_of_calls_and_epochs(tracked):
    done, told = tracked
    assert isinstance(told, lg.training.Tracker)
    assert told.run[1] == 0 and told.run[0]["blocks"] == ["Layer", "Top"] and told.run[0]["stages"] == 2
    kinds = [kind for kind, _ in told.rows]
    assert kinds == ["call", "call", "epoch"] * 3 + ["close"]
    call, epoch = told.rows[1][1], told.rows[2][1]
    assert call["step"] == 5 and call["epoch"] == 1.0 and call["delay"] == [0, 0] and len(call["block_loss"]) == 2
    assert epoch["validation_accuracy"] == done.records[1]["accuracy"] and len(epoch["validation_exit_accuracy"]) == 2
    first = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.params)]) for state in done.states]
    last = told.rows[8][1]
    np.testing.assert_allclose(
        last["param_norm"], [np.linalg.norm(vector.astype(float)) for vector in first], rtol=1e-6
    )
    json.dumps(told.rows)


def test_an_epoch_is_one_line_of_any_number_of_blocks():
    from localgrad.training.records import epoch_line

    for blocks in (2, 12, 64):
        train = {"epoch": 2, "block_loss": [0.123456] * blocks, "examples_per_sec": 1234.5}
        line = epoch_line(
            [train, {"split": "validation", "accuracy": 91.2, "exit_accuracy": [91.2]}], 5, lg.classification(3), 75.0
        )
        assert len(line) < 150 and "\n" not in line and "validation 91.20 %" in line and "1:15 min left" in line
        assert re.match(r"epoch 2/5  loss by block 0.123", line)


# --- trials, and what a run is begun with ---------------------------------------------------------------------------


def test_trials_are_the_runs_of_their_seeds(tmp_path):
    together = fit(model=lg.trials(single(), 2), workdir=tmp_path)
    alone = fit(model=single(), seed=1)
    row = lambda done: next(record for record in done.records[::-1] if record["split"] == "train")
    np.testing.assert_allclose([loss[1] for loss in row(together)["block_loss"]], row(alone)["block_loss"], rtol=1e-4)
    x, y = VALIDATION
    said = []
    for trial in range(2):
        predict = lg.load(tmp_path, model=single(), trial=trial, best=False, log=said.append)
        accuracy = together.records[-1]["accuracy"][trial]
        assert 100 * (predict(x).values == y).mean() == pytest.approx(accuracy) and not said
    with pytest.raises(ValueError, match="holds 2 trials: choose one, trial=0 to 1"):
        lg.load(tmp_path, model=single(), trial=2)


def test_of_one_network_no_trial_can_be_loaded(undisturbed, tmp_path):
    with pytest.raises(ValueError, match="holds one network and no trials: leave out trial=4"):
        lg.load(undisturbed.workdir, model=usual(), trial=4)
    lg.export(undisturbed.predictor(), tmp_path / "out")
    with pytest.raises(ValueError, match="is an export, .*: leave out model and trial"):
        lg.load(tmp_path / "out", trial=0)


def test_a_network_is_not_begun_with_on_columns_of_another_order(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(48, 3)).astype(np.float32).view(Table), np.arange(48) % 3
    model = small(shape=(3,))
    old = fit((x, y), None, model, epochs=1, workdir=tmp_path / "old")
    turned = x[:, ::-1].view(Table)
    turned.columns = ("w", "v", "u")
    for begin in (tmp_path / "old", old.predictor(), old):
        with pytest.raises(ValueError, match="trained on other columns: number 0 is 'u' there and 'w' in these data"):
            fit((turned, y), None, model, begin=begin)
    fit((x, y), None, model, begin=tmp_path / "old", epochs=1)
