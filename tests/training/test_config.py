"""What a run may not be is refused at the door."""

import dataclasses
import json

import pytest

from localgrad.training import Config, prepare
from localgrad.training.config import check_same


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epochs": 0}, "--epochs must be at least 1; got 0"),
        ({"stages": 0}, "--stages must be at least 1"),
        ({"seed": -1}, "--seed must be at least 0"),
        ({"dtype": "float16"}, "--dtype must be one of float32, float64"),
        ({"trials_by": "luck"}, "--trials_by must be one of vmap, loop"),
    ],
)
def test_fields_out_of_range(change, says):
    with pytest.raises(ValueError, match=says):
        Config(**change)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"method": "magic"}, "unknown method 'magic'; there are al"),
        ({"net": "rnn"}, "unknown net 'rnn'; there are mlp, cnn"),
        ({"dataset": "digit"}, "digits"),
        ({"profile": "nips"}, "unknown profile 'nips' of method 'al'; there are neco, iclr, iclr_head"),
        ({"stages": 5}, "5 stages for a network of 4 blocks"),
        ({"stages": 2, "data_parallel": 3}, "64 does not divide over data_parallel=3"),
        ({"batch_size": 5000}, "more than the 1197 training examples"),
        ({"activation": "relux"}, "unknown activation"),
        ({"optimizer": "adamm"}, "unknown optimizer"),
        ({"dtype": "float64"}, "64-bit types"),
        ({"dataset": "fashion_mnist", "data_dir": "/nowhere"}, "/nowhere"),
        ({"augment": ("spin",)}, "spin"),
    ],
)
def test_what_cannot_be_prepared(change, says, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        prepare(Config(workdir=str(tmp_path / "run"), **change))
    assert not (tmp_path / "run").exists()


def test_a_workdir_of_another_configuration_names_the_fields(tmp_path):
    config = Config(workdir=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    prepare(config)
    prepare(dataclasses.replace(config, stages=2, batches_per_call=3))  # where it runs may change
    with pytest.raises(ValueError, match="learning_rate is 0.001 there and 0.1 here; seed is 0 there and 7 here"):
        raise_all(config, learning_rate=0.1, seed=7)


def raise_all(config, **change):
    prepare(dataclasses.replace(config, **change))


def test_a_file_in_place_of_the_workdir(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file; give a folder"):
        prepare(Config(workdir=str(tmp_path / "file")))


def test_a_config_of_an_older_version_says_what_it_lacks(tmp_path):
    saved = Config().to_json()
    del saved["dropout"]
    with pytest.raises(ValueError, match="dropout is 'missing' there and None here"):
        check_same(Config(), saved, tmp_path / "config.json")
