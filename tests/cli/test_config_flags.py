"""Flags, help and placement come from the fields of `Config`, and from nothing else."""

import dataclasses
import shlex

import pytest

from localgrad.training import Config
from localgrad.training.command import command_of
from localgrad.training.config import OPTIONS
from localgrad.training.fields import plain_type

from ..commands import command

KINDS = {str: "text", int: "64", float: "0.5", bool: "true"}


def test_every_field_is_a_flag_under_a_heading_with_its_choices():
    done = command("train", "--help")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    lines = done.stdout.splitlines()
    for field in dataclasses.fields(Config):
        option = OPTIONS[field.name]
        assert (option.says and f"  --{field.name}" in lines) or f"  --[no]{field.name}" in lines
        assert option.group in lines
        assert " ".join(option.says.split()) in said
    assert "one of al, scl, early_exit, dgl" in said and "one of float32, float64" in said
    assert "Several processes" in lines and "  --coordinator" in lines
    assert lines.index("Method") < lines.index("  --method") < lines.index("Network") < lines.index("  --net")


def test_flags_become_a_config_of_the_same_values():
    given = {
        field.name: KINDS[kind] if not several else f"{KINDS[kind]},{KINDS[kind]}"
        for field in dataclasses.fields(Config)
        for kind, several in [plain_type(field)]
        if OPTIONS[field.name].choices is None
        and field.name not in ("plugin", "trace", "begin_from")  # a window ascends; one beginning
        and field.name not in ("step_epochs", "step_factor", "greedy_epochs")  # of a schedule; without --stop_after
    }
    done = command(*(f"--{name}={value}" for name, value in given.items()), program="tests.cli.config_of")
    assert done.returncode == 0, done.stderr
    values = {str: "text", int: 64, float: 0.5, bool: True}
    expected = {
        field.name: [values[kind]] * 2 if several else values[kind]
        for field in dataclasses.fields(Config)
        for kind, several in [plain_type(field)]
        if field.name in given
    }
    found = eval(done.stdout)
    assert {name: found[name] for name in expected} == expected


def test_where_a_run_is_carried_out_may_change():
    assert {name for name, option in OPTIONS.items() if option.placement} == {
        "workdir", "data_dir", "stages", "data_parallel", "cuts", "batches_per_call", "checkpoint_every_steps",
        "resident", "engine", "micro_batches", "new_delays", "stop_after", "tensorboard", "trace",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "says"), [("trials_by", "vmap, loop"), ("optimizer", "adam, adamw, sgd, momentum")])
def test_what_is_none_of_the_choices_is_told_which_there_are(name, says):
    with pytest.raises(ValueError, match=f"unknown {name} 'other'; there are {says}"):
        Config(**{name: "other"})


def test_fields_stand_in_the_order_of_the_headings():
    assert list(Config().to_json())[:3] == ["method", "profile", "target_width"]


def test_the_command_of_a_config_gives_that_config():
    config = Config(
        method="dkp", net="cnn", widths=(8, 4), norm=False, dropout=0.25, decay_times_rate=False, clip_norm=1.0,
        method_options=("form=dense",), net_options=("pools=(0,1)",), epochs=3, workdir="runs/my run", trials=2,
    )  # fmt: skip
    words = shlex.split(command_of(config))
    assert words[:2] == ["localgrad", "train"]
    done = command(*words[2:], program="tests.cli.config_of")
    assert done.returncode == 0, done.stderr
    assert eval(done.stdout) == config.to_json()
