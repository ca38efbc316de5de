"""A trained network out of its workdir, on raw inputs, and in files that others read."""

import dataclasses
import json
import shutil
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

import localgrad as lg
from localgrad.cli import predict
from localgrad.prediction import About, Predictor
from localgrad.training import Config, prepare, prepare_all, restore, run

from . import own

NAMES = ("ant", "bee", "cat")
X, Y = own.pictures(40, seed=1)


def quiet(line: str) -> None:
    pass


@cache
def usual():
    """The model of `fitted`, one for all tests that do not ask whether it can be made again."""
    return own.model()


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted") / "run"
    return lg.fit(usual(), own.pictures(80), (X, Y), epochs=2, workdir=folder, label_names=NAMES, log=quiet)


@pytest.fixture(scope="module")
def exported(fitted, tmp_path_factory):
    return lg.export(fitted.predictor(), tmp_path_factory.mktemp("exported") / "net", exits=(1, 2))


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """The workdir of a run by names, of two trials as one."""
    folder = tmp_path_factory.mktemp("named") / "run"
    config = Config(method="early_exit", widths=(8,), epochs=2, limit=256, trials=2, workdir=str(folder))
    run(config, prepare_all(config), quiet)
    return config


def test_it_comes_back_with_its_scores(fitted):
    found = lg.load(fitted.workdir, model=own.model(tx=None), log=quiet)
    np.testing.assert_array_equal(found.scores(X), fitted.predictor().scores(X))
    assert found.about == fitted.about and found.about.label_names == NAMES and found.about.raw_dtype == "uint8"
    other = lg.load(fitted.workdir, best=False, model=usual(), log=quiet)
    np.testing.assert_array_equal(other.scores(X, exit=1), fitted.predictor(best=False).scores(X, exit=1))


def test_code_that_has_changed_is_told_of(fitted):
    said = []
    lg.load(fitted.workdir, model=own.model(tx=optax.sgd(1.0)), log=said.append)  # cannot be compared
    assert not said
    tanh = own.model(blocks=[lg.from_linen(own.Layer(activation=jnp.tanh)), lg.from_nnx(own.Top)])
    lg.load(fitted.workdir, model=tanh, log=said.append)
    assert len(said) == 1 and "compute something else than when it was trained: 1. Is their code" in said[0]


def test_predictions_have_names_and_confidences(fitted):
    found = fitted.predictor()(X)
    assert found.scores.shape == (40, 3) and found.names[0] == NAMES[found.values[0]]
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(found.confidence, found.probabilities.max(axis=1))
    alone = fitted.predictor()(X[3])  # one example, and a batch of another size
    np.testing.assert_allclose(alone.scores[0], found.scores[3], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(fitted.predictor()(X[..., 0]).values, found.values)


def test_anytime_leaves_at_the_first_exit_that_is_sure(fitted):
    predictor = fitted.predictor()
    first, last = predictor(X, exit=1), predictor(X, exit=2)
    middle = float(np.median(first.confidence))
    found = predictor.anytime(X, middle)
    early = first.confidence >= middle
    assert 0 < early.sum() < len(X)
    np.testing.assert_array_equal(found.exits, np.where(early, 1, 2))
    np.testing.assert_array_equal(found.values, np.where(early, first.values, last.values))
    assert set(predictor.anytime(X, 1.1).exits) == {2} and set(predictor.anytime(X, 0.0).exits) == {1}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda p: p(X / 255), "inputs are float.*trained on uint8 and scales them itself: give them unscaled"),
        (
            lambda p: p(X.astype(int) + 200),
            "inputs run from 200 to 379, and the network is trained on uint8, which holds 0 to 255",
        ),
        (lambda p: p(X[:, :2]), r"inputs are \(40, 2, 4, 1\); this network takes \(N, 4, 4, 1\)"),
        (lambda p: p(X[:0]), "this network takes"),
        (lambda p: p(X, exit=3), "exit 3 does not exist: there are exits 1, 2"),
    ],
)
def test_what_cannot_be_predicted(call, says, fitted):
    with pytest.raises(ValueError, match=says):
        call(fitted.predictor())


def test_what_cannot_be_loaded(fitted, named, tmp_path):
    with pytest.raises(ValueError, match=r"given to fit \(early_exit of Layer-Top\): give it, made again, as model="):
        lg.load(fitted.workdir)
    narrow = own.model(blocks=[lg.from_linen(own.Layer(4)), lg.from_linen(own.Layer(6))])
    with pytest.raises(ValueError, match=r"another model .*: \['f'\]\['Dense_0'\]\['bias'\] of block 1 is"):
        lg.load(fitted.workdir, model=narrow)
    with pytest.raises(ValueError, match="it has 2 blocks, and the one that is given 1"):
        lg.load(fitted.workdir, model=own.model(blocks=[lg.from_linen(own.Layer())]))
    with pytest.raises(FileNotFoundError, match="is not the workdir of a run"):
        lg.load(tmp_path)
    with pytest.raises(ValueError, match="holds 2 trials: choose one, trial=0 to 1"):
        lg.load(named.workdir)
    shutil.copytree(fitted.workdir, tmp_path / "copy")
    known = tmp_path / "copy" / "model.json"
    for damaged in ("{}", known.read_text().replace('"outputs": 3', '"outputs": 7'), known.read_text()[:-20]):
        assert damaged != known.read_text()
        known.write_text(damaged)
        with pytest.raises(ValueError, match="model.json is damaged"):
            lg.load(tmp_path / "copy", model=usual())
        shutil.copy(Path(fitted.workdir) / "model.json", known)


def test_a_run_of_names_needs_neither_its_data_nor_a_model(named, monkeypatch):
    job = prepare(dataclasses.replace(named, workdir="nowhere"))
    states = restore(job.specs, named.workdir, best=True).states
    monkeypatch.setattr("localgrad.data.get", None)
    test = job.splits["test"].inputs[:20]
    x = next(iter(job.eval_batches("test")))[0][:20]
    for trial in range(2):
        found = lg.load(named.workdir, trial=trial, log=quiet)
        np.testing.assert_allclose(found.scores(test), job.model.predict(states, x)[trial], rtol=1e-5, atol=1e-5)


def test_an_export_gives_the_same_scores_at_any_batch(fitted, exported):
    assert {path.name for path in exported.iterdir()} == {
        "weights.safetensors", "exit_1.stablehlo", "exit_2.stablehlo", "export.json",
    }  # fmt: skip
    opened, ours = lg.load(exported), fitted.predictor()
    assert opened.exits == (1, 2) and opened.about == fitted.about
    for exit in (1, 2):
        for size in (1, 5, 40):
            np.testing.assert_allclose(opened.scores(X[:size], exit), ours.scores(X[:size], exit), rtol=1e-5, atol=1e-5)
    assert opened(X).names == ours(X).names
    from safetensors.numpy import load_file

    weights = load_file(exported / "weights.safetensors")
    np.testing.assert_array_equal(
        weights["block1/params/f/Dense_0/kernel"], fitted.best[0].params["f"]["Dense_0"]["kernel"]
    )
    with pytest.raises(ValueError, match="opened from an export: copy that folder"):
        lg.export(opened, exported)


def test_a_damaged_export_is_named(exported, tmp_path):
    for name in ("weights.safetensors", "exit_2.stablehlo", "export.json"):
        folder = tmp_path / name
        shutil.copytree(exported, folder)
        (folder / name).write_bytes(b"nothing")
        with pytest.raises(ValueError, match=f"{name}: cannot be read"):
            lg.load(folder)


class Flags:
    """What the command line says."""

    def __init__(self, **values):
        defaults = {"best": True, "exit": None, "anytime": None, "trial": None, "out": None}
        self.__dict__.update({**defaults, **values})


def said(monkeypatch, capsys, files, **flags):
    monkeypatch.setattr(predict, "FLAGS", Flags(**flags))
    monkeypatch.setattr(predict.shell, "own_devices", lambda *_, **__: None)
    status = predict.main(["predict", *map(str, files)])
    return status, capsys.readouterr()


def test_the_command_line_predicts_pictures(exported, tmp_path, monkeypatch, capsys):
    for i in range(3):
        Image.fromarray(X[i, ..., 0]).save(tmp_path / f"{i}.png")
    files = sorted(tmp_path.glob("*.png"))
    status, text = said(monkeypatch, capsys, files, workdir=str(exported))
    found = lg.load(exported)(X[:3])
    assert status == 0
    rows = [line.split() for line in text.out.splitlines() if ".png" in line]
    assert [row[1] for row in rows] == found.names
    np.testing.assert_allclose([float(row[2]) for row in rows], found.confidence, atol=6e-4)
    status, _ = said(monkeypatch, capsys, files, workdir=str(exported), out=str(tmp_path / "said.jsonl"), anytime=0.0)
    lines = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert [line["exit"] for line in lines] == [1, 1, 1] and len(lines[0]["probabilities"]) == 3
    said(monkeypatch, capsys, files, workdir=str(exported), out=str(tmp_path / "said.csv"))
    assert (tmp_path / "said.csv").read_text().splitlines()[0] == "input,prediction,confidence,exit"


def test_pictures_are_not_for_a_network_that_was_trained_on_floats(tmp_path, monkeypatch, capsys):
    model = own.model(blocks=[lg.from_linen(own.Layer())])
    done = lg.fit(model, (X / 255, Y), epochs=1, log=quiet)
    with pytest.raises(ValueError, match=r"inputs are uint8, .* trained on float32, scaled by whoever made them"):
        done.predictor()(X)
    folder = lg.export(done.predictor(), tmp_path / "net")
    Image.fromarray(X[0, ..., 0]).save(tmp_path / "a.png")
    status, text = said(monkeypatch, capsys, [tmp_path / "a.png"], workdir=str(folder))
    assert status == 2 and "as floats" in text.err and text.err.count("\n") == 1


def test_a_table_of_whole_numbers_is_not_cut_off(tmp_path, monkeypatch, capsys):
    rows = np.random.default_rng(0).integers(0, 9, (48, 2))
    model = own.model(2, shape=(2,), blocks=[lg.from_linen(own.Layer())])
    done = lg.fit(model, (rows, (rows[:, 0] > 4).astype(int)), epochs=1, log=quiet)
    folder = lg.export(done.predictor(), tmp_path / "net")
    (tmp_path / "whole.csv").write_text("a,b\n1,2\n3.0,4\n")
    (tmp_path / "parts.csv").write_text("a,b\n1.5,2\n")
    status, text = said(monkeypatch, capsys, [tmp_path / "whole.csv"], workdir=str(folder))
    names = [line.split()[1] for line in text.out.splitlines() if "whole.csv:" in line]
    assert status == 0 and names == done.predictor()(np.array([[1, 2], [3, 4]])).names
    (tmp_path / "large.csv").write_text("a,b\n16777217,2\n")
    _, read = predict.read_inputs([str(tmp_path / "large.csv")], done.predictor())
    assert read.tolist() == [[16777217, 2]]
    status, text = said(monkeypatch, capsys, [tmp_path / "parts.csv"], workdir=str(folder))
    assert status == 2 and "give them as whole numbers" in text.err


def test_the_command_line_refuses_in_one_line(exported, fitted, tmp_path, monkeypatch, capsys):
    (tmp_path / "a.csv").write_text("1,2\n")
    for files, flags, says in [
        ([], {}, "no files"),
        (["a.csv"], {}, "none of the pictures that this network reads"),
        (["none.png"], {}, "none.png is not there"),
        (["a.png"], {"exit": 1, "anytime": 0.5}, "say one of the two"),
        (["a.png"], {"out": "x.txt"}, "ends in .csv or .jsonl"),
        (["a.png"], {"workdir": fitted.workdir}, "or export the network once"),
    ]:
        status, text = said(monkeypatch, capsys, files, **{"workdir": str(exported), **flags})
        assert status == 2 and says in text.err and text.err.count("\n") == 1


def test_tables_are_read_by_the_names_of_their_columns(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(48, 2))
    text = "b,kind,a\n" + "".join(f"{b:.4f},{'low' if a < 0 else 'high'},{a:.4f}\n" for a, b in rows)
    (tmp_path / "train.csv").write_text(text)
    model = own.model(2, shape=(2,), blocks=[lg.from_linen(own.Layer())])
    told = []
    done = lg.fit(model, tmp_path / "train.csv", epochs=1, fields=("", "kind"), normalise=True, log=told.append)
    assert told.count("train.csv: inputs are 2 columns, b, a; the label is 'kind', as fields say.") == 1
    assert done.about.columns == ("b", "a") and done.about.label_names == ("high", "low")
    folder = lg.export(done.predictor(), tmp_path / "net")
    (tmp_path / "new.csv").write_text("a,b\n" + "".join(f"{a:.4f},{b:.4f}\n" for a, b in rows[:4]))
    status, said_ = said(monkeypatch, capsys, [tmp_path / "new.csv"], workdir=str(folder))
    names = [line.split()[1] for line in said_.out.splitlines() if "new.csv:" in line]
    expected = done.predictor()(np.round(rows[:4, ::-1], 4).astype(np.float32)).names
    assert status == 0 and names == expected


def test_texts_are_read_with_the_words_of_training():
    words = ("[PAD]", "[UNK]", "good", "film")
    about = About((4,), "int32", "int32", "classification", 2, "texts", words=words)
    predictor = Predictor(about, (1,), lambda x, exit: jax.nn.one_hot(x[:, 0] - 1, 2))
    assert predictor.raw(["Good film!", "", "a b c d e"]).tolist() == [[2, 3, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]]
    assert predictor("good").values.tolist() == [1] and predictor(np.array([[1, 0, 0, 0]])).values.tolist() == [0]
    for wrong in (4, -1):
        with pytest.raises(ValueError, match="the numbers of words are 0 to 3"):
            predictor(np.array([[1, wrong, 0, 0]]))


def test_a_named_run_begins_with_the_layers_of_another(named, tmp_path):
    config = Config(
        method="early_exit", widths=(8,), epochs=1, limit=128, trials=2, heads_alone=True,
        begin_from=named.workdir, workdir=str(tmp_path),
    )  # fmt: skip
    run(config, prepare_all(config), quiet)
    ours, theirs = (lg.load(each.workdir, trial=1, log=quiet).states for each in (config, named))
    for mine, its in zip(ours, theirs, strict=True):
        assert jax.tree.all(jax.tree.map(np.array_equal, mine.params["f"], its.params["f"]))
        assert not jax.tree.all(jax.tree.map(np.array_equal, mine.params["head"], its.params["head"]))
