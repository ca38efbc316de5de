"""Where a run is carried out changes nothing that it computes, or is refused."""

import dataclasses
import json

import pytest

from localgrad.training import Config, prepare


def begun(folder, config):
    """A workdir in which a run was begun, as `fit` leaves it."""
    job = prepare(dataclasses.replace(config, workdir=str(folder)))
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(job.config.to_json()))
    return job.config


def test_what_was_left_open_is_resolved():
    local = Config(method="early_exit", widths=(8, 8), workdir="nowhere")
    assert prepare(local).config.engine == "sequential"
    job = prepare(Config(method="bp", widths=(8, 8), stages=2, workdir="nowhere"))
    assert (job.config.engine, job.config.micro_batches, job.config.cuts) == ("spmd", 8, (0, 1, 2))
    one = prepare(Config(method="bp", widths=(8, 8), micro_batches=4, workdir="nowhere"))
    assert (one.config.engine, one.engine.plan.schedule.parts) == ("spmd", 4)  # not quietly left out


@pytest.mark.parametrize(
    ("fields", "change", "says"),
    [
        ({"method": "bp"}, {"stages": 2}, "micro_batches is 1 there and 8 here. Say --micro_batches=1,"),
        pytest.param(
            {"method": "bp", "norm": True}, {"stages": 2}, "micro_batches is 1 there and 8 here", marks=pytest.mark.full
        ),
        pytest.param(
            {"method": "fa", "stages": 2},
            {"stages": 1},
            "micro_batches is 8 there and 1 here. Say --micro_batches=8,",
            marks=pytest.mark.full,
        ),
        ({"method": "predsim"}, {"data_parallel": 2}, "data_parallel is 1 there and 2 here"),
        pytest.param(
            {"method": "early_exit", "data_parallel": 2},
            {"data_parallel": 1},
            "data_parallel is 2 there and 1 here",
            marks=pytest.mark.full,
        ),
        (
            {"method": "bp", "stages": 2, "data_parallel": 2, "micro_batches": 2},
            {"data_parallel": 1, "micro_batches": 4},
            "micro_batches is 2 there and 4 here; data_parallel is 2 there and 1 here",
        ),
        ({"method": "dfa", "stages": 2}, {"stages": 3}, "on --stages=3"),
        pytest.param(
            {"method": "dfa", "stages": 2, "cuts": (0, 1, 3)},
            {"cuts": (0, 2, 3)},
            "on --stages=2 --cuts=0,2,3",
            marks=pytest.mark.full,
        ),
        ({"method": "dfa", "stages": 2, "engine": "sequential"}, {"engine": "spmd"}, "say --engine=sequential"),
        pytest.param(
            {"method": "bp", "asynchronous": "stashed", "stages": 2},
            {"stages": 1},
            "learns with delays, on --stages=2",
            marks=pytest.mark.full,
        ),
        ({"method": "bp", "stages": 2}, {"asynchronous": "current"}, "asynchronous is None there and 'current' here"),
    ],
)
def test_what_changes_the_numbers_is_refused_by_name(fields, change, says, tmp_path):
    config = begun(tmp_path, Config(widths=(8, 8), **fields))
    free = dict.fromkeys({"cuts", "micro_batches"} - set(change)) | {"engine": "auto"}
    kept = {} if "cuts" in fields else free
    with pytest.raises(ValueError, match=says):
        prepare(dataclasses.replace(config, **{**kept, **change}))


@pytest.mark.parametrize(
    ("fields", "change"),
    [
        pytest.param({"method": "early_exit"}, {"stages": 2}, marks=pytest.mark.full),  # the next goes back
        ({"method": "early_exit", "stages": 2}, {"stages": 1, "engine": "sequential"}),
        pytest.param({"method": "bp"}, {"stages": 2, "micro_batches": 1}, marks=pytest.mark.full),
        ({"method": "bp", "stages": 2}, {"stages": 1, "micro_batches": 8}),
        pytest.param({"method": "dfa", "staleness": "locked", "stages": 2}, {"stages": 3}, marks=pytest.mark.full),
        pytest.param({"method": "dfa", "stages": 2}, {"engine": "sequential"}, marks=pytest.mark.full),
        ({"method": "dfa", "stages": 2}, {"stages": 3, "new_delays": True}),
    ],
)
def test_what_does_not_is_free(fields, change, tmp_path):
    config = begun(tmp_path, Config(widths=(8, 8), **fields))
    prepare(dataclasses.replace(config, **{"engine": "auto", "cuts": None, "micro_batches": None, **change}))


def test_looking_at_a_run_needs_no_devices(tmp_path):
    begun(tmp_path, Config(method="early_exit", widths=(8, 8), data_parallel=2))
    from localgrad.training import read_config

    assert prepare(read_config(tmp_path), resume=False).engine.mesh is None


@pytest.mark.parametrize("fields", [{}, {"method": "dfa"}, {"method": "al", "stages": 2}, {"method": "drtp"}])
def test_what_is_no_backpropagation_does_not_stream(fields):
    """On one device as well, where there is no pipeline to refuse it."""
    with pytest.raises(ValueError, match="asynchronous='stashed' is for methods whose gradients come down"):
        prepare(Config(**fields, asynchronous="stashed", widths=(8, 8), workdir="nowhere"))


def test_the_sequential_engine_cuts_no_batches():
    with pytest.raises(ValueError, match="--engine=sequential trains on whole batches: leave out --micro_batches=4"):
        prepare(Config(method="bp", widths=(8, 8), engine="sequential", micro_batches=4, workdir="nowhere"))


def test_a_run_of_an_earlier_version_is_resolved_as_it_was(tmp_path):
    config = Config(method="bp", widths=(8, 8), stages=2, workdir=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))  # micro_batches: null
    prepare(config)
    with pytest.raises(ValueError, match="micro_batches is 8 there and 4 here"):
        prepare(dataclasses.replace(config, micro_batches=4))
