"""Whole runs: what they write, and that no interruption changes what they compute."""

import dataclasses
import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from localgrad import params_sha256
from localgrad.methods import codes
from localgrad.pipeline import specs
from localgrad.tasks import classification
from localgrad.training import (
    Config,
    DivergedError,
    Interrupted,
    InUseError,
    SaveError,
    format_summary,
    make_evaluator,
    manifest,
    prepare_all,
    read_config,
    restore,
    run,
)  # fmt: skip
from localgrad.training.checkpoints import Checkpoints
from localgrad.training.records import curves
from localgrad.training.restoring import _check_best

# Three batches a call divide every stretch between two stops: one compilation.
SMALL = Config(
    profile="iclr_head", widths=(16, 12), target_width=8, dropout=0.1, epochs=3, batch_size=128, batches_per_call=3
)

# A run of one block, for what is done with its files.
TINY = Config(method="early_exit", widths=(8,), dropout=0.1, epochs=3, batch_size=128, batches_per_call=3)


def go(config, log=lambda line: None):
    return run(config, prepare_all(config), log)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder and the summary of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, go(dataclasses.replace(SMALL, workdir=str(folder)))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder and the summary of a finished run of `TINY`."""
    folder = tmp_path_factory.mktemp("tiny")
    return folder, go(dataclasses.replace(TINY, workdir=str(folder)))


def test_a_run_writes_what_the_readme_says(undisturbed):
    folder, summary = undisturbed
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "model.json", "plan.json", "metrics.jsonl", "calls.jsonl", "curves.png", "summary.json",
        "checkpoints",
    }  # fmt: skip
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert summary["steps"] == 3 * (1197 // 128)
    assert len(summary["exit_accuracy"]) == len(summary["block_loss"]) == 2
    assert summary["test_accuracy"] == summary["exit_accuracy"][-1]
    # f: 64*16+16, 16*12+12; h: 8*10+10, 8*8+8; top bridge: 12*8+8
    assert summary["params"]["effective"] == 1040 + 204 + 90 + 72 + 104
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(record["epoch"], record["split"]) for record in records] == [
        (epoch, split) for epoch in (1, 2, 3) for split in ("train", "validation", "test")
    ]
    assert records[-1]["accuracy"] == summary["test_accuracy"]
    assert summary["best_validation_accuracy"] == max(r["accuracy"] for r in records if r["split"] == "validation")
    assert str(folder) in format_summary(summary, str(folder), classification(10))


def test_a_finished_run_is_not_trained_again(tiny):
    folder, summary = tiny
    said = []
    before = (folder / "metrics.jsonl").stat().st_mtime_ns
    assert go(dataclasses.replace(TINY, workdir=str(folder)), said.append) == summary
    assert "finished run" in said[0]
    assert (folder / "metrics.jsonl").stat().st_mtime_ns == before


# --- files that are damaged while nobody looks ----------------------------------------------------------------------


@pytest.fixture
def finished(tiny, tmp_path):
    """A copy of the finished run, and what a run in it says; it may train nothing anew."""
    folder = tmp_path / "run"
    shutil.copytree(tiny[0], folder)

    def again(**change):
        said = []
        return go(dataclasses.replace(TINY, workdir=str(folder), **change), said.append), said

    return folder, tiny[1], again


def edit(summary):
    return json.dumps({**summary, "test_accuracy": 99.9})


@pytest.mark.parametrize("content", [lambda summary: "", lambda summary: "[]", lambda summary: "{", edit])
def test_a_summary_that_is_not_of_its_checkpoint_is_made_anew(content, finished):
    folder, summary, again = finished
    (folder / "summary.json").write_text(content(summary))
    found, said = again()
    assert found == summary == json.loads((folder / "summary.json").read_text())
    assert "summary.json" in said[0] and said[0].endswith("made anew")
    assert not [line for line in said if line.startswith("epoch")]


def lines(change):
    def edit(folder):
        path = folder / "metrics.jsonl"
        path.write_bytes(change(path.read_bytes()))

    return edit


def json_field(name, field, value):
    def edit(folder):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, field: value}, indent=2) + "\n")

    return edit


def turn_a_bit(name, at=0.5):
    def edit(folder):
        path = next(folder.glob(name))
        content = bytearray(path.read_bytes())
        content[int(at * len(content))] ^= 1
        path.write_bytes(content)

    return edit


def other_curves(folder):
    (folder / "curves.png").write_bytes(curves([]))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(lines(lambda content: content[:-1]), "metrics.jsonl is not as", id="a byte of the records"),
        pytest.param(
            lines(lambda content: content.replace(b"1", b"3", 1)),
            "metrics.jsonl is not as",
            id="a bit of them",
            marks=pytest.mark.full,
        ),
        pytest.param(lambda folder: (folder / "metrics.jsonl").unlink(), "metrics.jsonl is missing", id="no records"),
        pytest.param(turn_a_bit("curves.png"), "curves.png is not as", id="a bit of the curves"),
        pytest.param(
            turn_a_bit("curves.png", 0.999), "curves.png is not as", id="their last bytes", marks=pytest.mark.full
        ),
        pytest.param(other_curves, "curves.png is not as", id="the curves of another run", marks=pytest.mark.full),
        pytest.param(
            lambda folder: (folder / "curves.png").unlink(),
            "curves.png is missing",
            id="no curves",
            marks=pytest.mark.full,
        ),
        pytest.param(
            lambda folder: (folder / "model.json").unlink(), "model.json is missing", id="nothing of the model"
        ),
        pytest.param(json_field("summary.json", "stages", 5), "summary.json is not as", id="stages"),
        pytest.param(
            json_field("summary.json", "versions", {"jax": "0.1"}),
            "summary.json is not as",
            id="versions",
            marks=pytest.mark.full,
        ),
        pytest.param(
            json_field("summary.json", "more", 1), "summary.json is not as", id="a field more", marks=pytest.mark.full
        ),
        pytest.param(json_field("config.json", "stages", 5), "config.json is not as", id="the placement"),
        pytest.param(
            lambda folder: (folder / "config.json").unlink(),
            "config.json is missing",
            id="no configuration",
            marks=pytest.mark.full,
        ),
    ],
)
def test_a_finished_run_gets_its_files_back(damage, says, finished):
    folder, summary, again = finished
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    damage(folder)
    found, said = again()
    assert found == summary
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert says in said[0] and "is a finished run" in said[-1] and len(said) == 2
    assert len(again()[1]) == 1


def test_damage_to_the_best_alone_is_named(finished):
    folder, summary, again = finished
    steps = sorted(int(path.name) for path in (folder / "checkpoints").iterdir())
    assert len(steps) > 1
    for step in steps[:-1]:
        turn_a_bit(f"checkpoints/{step}/blocks/_METADATA")(folder)
    found, said = again()
    assert found == summary
    assert [f"checkpoint {step} in" in " ".join(said) for step in steps] == [True] * (len(steps) - 1) + [False]


@pytest.mark.parametrize(("stands_in", "says"), [(9, None), (18, "was checkpoint 9, which is lost; 18 is the best")])
def test_what_stands_in_for_a_best_that_is_lost_is_told(stands_in, says):
    accuracies = {9: 90.0, 18: 80.0, 27: 90.0}
    records = [
        {"step": step, "split": "validation", "accuracy": value, "exit_accuracy": [value]}
        for step, value in accuracies.items()
    ]

    class Three:
        find = staticmethod(lambda: {"step": 27})
        meta = staticmethod(lambda step: {"records": records})

    said = []
    _check_best(Three, stands_in, said.append)
    assert len(said) == (says is not None) and (not said or says in said[0])


def test_a_run_of_another_configuration_that_came_first_is_noticed(tmp_path, tiny):
    """It was begun, and ended, after this one had looked at the workdir and before it owned it."""
    config = dataclasses.replace(TINY, workdir=str(tmp_path / "run"), learning_rate=0.5)
    jobs = prepare_all(config)
    shutil.copytree(tiny[0], tmp_path / "run")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(
        InUseError, match="another run was begun in .* meanwhile: .*learning_rate is 0.001 there and 0.5"
    ):
        run(config, jobs, lambda line: None)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_where_no_checkpoint_can_be_used_the_run_begins_again_and_says_so(finished):
    folder, summary, again = finished
    steps = [path.name for path in (folder / "checkpoints").iterdir()]
    for step in steps:
        (folder / "checkpoints" / step / "manifest.json").unlink()
    found, said = again()
    assert found["params_sha256"] == summary["params_sha256"]
    text = "\n".join(said)
    assert all(f"checkpoint {step} in" in text for step in steps)
    assert "no checkpoint in" in text and "at batch 0" in text and "are made again" in text
    assert {path.name for path in (folder / "checkpoints" / "damaged").iterdir()} == set(steps)


def test_a_finished_run_without_checkpoints_has_its_summary_and_nothing_to_go_on_from(finished):
    folder, summary, again = finished
    shutil.rmtree(folder / "checkpoints")
    found, said = again()
    assert found == summary and "is a finished run" in said[-1]
    with pytest.raises(ValueError, match="ended after 27 batches, and its checkpoints are gone"):
        again(epochs=4)
    assert json.loads((folder / "summary.json").read_text()) == summary


def test_records_come_back_from_the_checkpoint(finished):
    folder, summary, again = finished
    whole = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(whole[:100] + whole[700:])
    (folder / "summary.json").unlink()
    assert again()[0] == summary
    assert (folder / "metrics.jsonl").read_text() == whole


def test_config_json_has_no_say_where_there_is_a_checkpoint(finished):
    folder, summary, again = finished
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**written, "learning_rate": 0.5}))
    assert read_config(folder).learning_rate == TINY.learning_rate
    assert again()[0] == summary
    (folder / "config.json").unlink()
    assert again()[0] == summary
    with pytest.raises(ValueError, match="learning_rate is 0.001 there and 0.5 here"):
        again(learning_rate=0.5)


def test_the_best_epoch_of_the_summary_can_be_restored(finished):
    folder, summary, _ = finished
    job = prepare_all(dataclasses.replace(TINY, workdir=str(folder)))[0]
    found = restore(job.specs, folder, best=True)
    assert found.step == summary["best_epoch"] * (1197 // 128)
    assert make_evaluator(job.model)(found.states, job.eval_batches("test"))[-1] == summary["best_test_accuracy"]


def test_a_run_outside_the_main_thread_and_in_the_home(monkeypatch, tiny, tmp_path):
    """Where Python lets nobody catch signals; and `~`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with ThreadPoolExecutor(1) as pool:
        summary = pool.submit(go, dataclasses.replace(TINY, workdir="~/run")).result()
    assert summary["params_sha256"] == tiny[1]["params_sha256"]
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary


def test_a_disk_that_is_full_ends_the_run_in_one_line_and_the_same_command_goes_on(monkeypatch, tiny, tmp_path):
    config, calls, write = dataclasses.replace(TINY, workdir=str(tmp_path / "run")), [], manifest.write

    def full(*args, **facts):
        calls.append(args)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        write(*args, **facts)

    monkeypatch.setattr(manifest, "write", full)
    with pytest.raises(SaveError, match="the checkpoint of step 18 could not be written .*No space left on device"):
        go(config)
    assert go(config)["params_sha256"] == tiny[1]["params_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "stages", "then"),
    [
        (signal.SIGTERM, 1, 2),
        pytest.param(signal.SIGINT, 2, 1, marks=pytest.mark.full),
    ],
)
def test_a_stopped_run_goes_on_with_the_same_bits(signum, stages, then, undisturbed, tmp_path):
    """Stopped in the second epoch on one number of stages, and gone on with on another."""
    config = dataclasses.replace(SMALL, workdir=str(tmp_path / "run"), stages=stages, checkpoint_every_steps=6)
    with pytest.raises(Interrupted, match=signum.name) as stopped:
        go(config, lambda line: os.kill(os.getpid(), signum) if line.startswith("epoch 1/") else None)
    assert stopped.value.signum == signum
    assert 0 < stopped.value.step < 27
    said = []
    summary = go(dataclasses.replace(config, stages=then), said.append)
    assert f"at batch {stopped.value.step} of 27" in said[0]
    assert summary["params_sha256"] == undisturbed[1]["params_sha256"]
    ours, theirs = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (tmp_path / "run", undisturbed[0])
    )
    for record in ours + theirs:
        record.pop("examples_per_sec", None)
    assert ours == theirs


@pytest.mark.full
def test_a_stopped_run_whose_stages_are_programs_goes_on_with_the_same_bits(undisturbed, tmp_path):
    """On `mpmd`; the sequential engine's first block differs in its last bit, 1.4e-9 after three batches."""
    config = dataclasses.replace(SMALL, stages=2, engine="mpmd", checkpoint_every_steps=6)
    whole = go(dataclasses.replace(config, workdir=str(tmp_path / "whole")))
    config = dataclasses.replace(config, workdir=str(tmp_path / "run"))
    with pytest.raises(Interrupted):
        go(config, lambda line: os.kill(os.getpid(), signal.SIGTERM) if line.startswith("epoch 1/") else None)
    summary = go(config)
    assert summary["params_sha256"] == whole["params_sha256"]
    assert summary["block_loss"] == whole["block_loss"] == pytest.approx(undisturbed[1]["block_loss"], rel=1e-5)


@pytest.mark.slow
def test_codes_that_were_made_first_are_not_made_again(monkeypatch, tmp_path):
    config = dataclasses.replace(SMALL, codes="first", epochs=2, workdir=str(tmp_path))
    with pytest.raises(Interrupted):
        go(config, lambda line: os.kill(os.getpid(), signal.SIGTERM) if line.startswith("epoch 1/") else None)
    monkeypatch.setattr(codes, "make", lambda *given: pytest.fail("a level was made again"))
    assert len(go(config)["exit_accuracy"]) == 2
    assert json.loads((tmp_path / "config.json").read_text())["codes"] == "first"
    with pytest.raises(ValueError, match="codes is 'first' there and None here"):
        go(dataclasses.replace(config, codes=None))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sequential", pytest.param("spmd", marks=pytest.mark.full)])
def test_a_stopped_run_with_delays_goes_on_with_what_was_in_flight(engine, tmp_path):
    config = Config(
        method="dkp", widths=(16, 12), epochs=2, batch_size=128, batches_per_call=3, stages=2, engine=engine,
        optimizer="momentum", learning_rate=0.01,
    )  # fmt: skip
    undisturbed = go(dataclasses.replace(config, workdir=str(tmp_path / "undisturbed")))
    stopped = dataclasses.replace(config, workdir=str(tmp_path / "run"), checkpoint_every_steps=6)
    with pytest.raises(Interrupted):
        go(stopped, lambda line: os.kill(os.getpid(), signal.SIGTERM) if line.startswith("epoch 1/") else None)
    summary = go(stopped)
    assert summary["params_sha256"] == undisturbed["params_sha256"]
    assert summary["block_loss"] == undisturbed["block_loss"]


@pytest.mark.slow
@pytest.mark.bits
@pytest.mark.parametrize(
    "fields",
    [
        {"method": "dkp"},
        pytest.param({"method": "bp", "asynchronous": "stashed"}, marks=pytest.mark.full),
        pytest.param({"method": "bp", "asynchronous": "current"}, marks=pytest.mark.full),
    ],
)
def test_a_delayed_run_goes_on_with_the_sequential_engine(fields, tmp_path):
    config = Config(
        **fields, widths=(16, 14, 12), epochs=2, batch_size=128, batches_per_call=3, stages=3,
        optimizer="momentum", learning_rate=0.01, workdir=str(tmp_path / "run"),
    )  # fmt: skip
    undisturbed = go(dataclasses.replace(config, workdir=str(tmp_path / "undisturbed"), engine="sequential"))
    with pytest.raises(Interrupted):
        go(config, lambda line: os.kill(os.getpid(), signal.SIGTERM) if line.startswith("epoch 1/") else None)
    summary = go(dataclasses.replace(config, engine="sequential"))
    assert summary["params_sha256"] == undisturbed["params_sha256"]
    assert summary["block_loss"] == undisturbed["block_loss"]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_saves_the_state_before_it(tmp_path):
    config = dataclasses.replace(
        SMALL, workdir=str(tmp_path), optimizer="sgd", learning_rate=1e3, stages=2, dropout=0.0
    )
    with pytest.raises(DivergedError, match=r"block \d \(dense\d+\) is not finite on batch \d+") as caught:
        go(config)
    assert "saved as step" in caught.value.__notes__[0]
    batch = caught.value.batch
    assert 0 < batch < 27

    job = prepare_all(config)[0]
    saved = Checkpoints(tmp_path / "checkpoints").restore(specs(job.model)[0])
    assert saved.step == batch
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(saved.states))
    # it is the state of a run that was never fed the batch that failed
    from localgrad import init, sequential
    from localgrad.methods import trial_keys

    engine, key = sequential(job.model), trial_keys(config.seed, None)
    state = engine.load(init(job.model, jax.random.fold_in(key, 0)), jax.random.fold_in(key, 1))
    state, _ = engine.run(state, job.source.batches(0, batch))
    assert params_sha256(engine.states(state)) == params_sha256(saved.states)


@pytest.mark.parametrize("by", ["vmap", pytest.param("loop", marks=pytest.mark.full)])
def test_trials_are_runs_of_their_own_seeds(by, tiny, tmp_path):
    config = dataclasses.replace(TINY, workdir=str(tmp_path), trials=2, trials_by=by)
    summary = go(config)
    assert set(summary["test_accuracy"]) == {"mean", "std", "values"}
    assert len(set(summary["params_sha256"])) == 2
    alone = tiny[1]
    for figure, expected in zip(summary["block_loss"], alone["block_loss"], strict=True):
        np.testing.assert_allclose(figure["values"][0], expected, rtol=1e-3)
    if by == "loop":
        assert summary["params_sha256"][0] == alone["params_sha256"]
    assert "±" in format_summary(summary, str(tmp_path), classification(10))


@pytest.mark.slow
def test_a_checkpoint_of_four_stages_restores_on_one(tmp_path):
    config = dataclasses.replace(SMALL, widths=(16, 12, 10, 8), epochs=2, stages=4)
    folders = [tmp_path / name for name in ("one", "four")]
    stop = lambda line: os.kill(os.getpid(), signal.SIGTERM) if line.startswith("epoch 1/") else None
    with pytest.raises(Interrupted):
        go(dataclasses.replace(config, workdir=str(folders[0])), stop)
    shutil.copytree(*folders)
    digests = [
        go(dataclasses.replace(config, workdir=str(folder), stages=stages))["params_sha256"]
        for folder, stages in zip(folders, (1, 4), strict=True)
    ]
    assert digests[0] == digests[1]
