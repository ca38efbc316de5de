"""What a run may not be is refused at the door."""

import dataclasses
import json

import pytest
from etils import epath

from localgrad.training import Config, prepare, read_config
from localgrad.training.config_file import check_same, replace, saved_plugins

SMALL = {"method": "early_exit", "widths": (8, 8)}  # quick to trace


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epochs": 0}, "--epochs must be at least 1; got 0"),
        ({"stages": 0}, "--stages must be at least 1"),
        ({"seed": -1}, "--seed must be at least 0"),
        ({"dtype": "float16"}, "unknown dtype 'float16'; there are float32, float64"),
        ({"limit": 0}, "--limit must be at least 1"),
        ({"label_noise": 1.5}, "--label_noise must be from 0 to 1; got 1.5"),
        ({"trials_by": "luck"}, "unknown trials_by 'luck'; there are vmap, loop"),
        ({"engine": "warp"}, "unknown engine 'warp'; there are auto, sequential, spmd"),
        ({"target_width": 0}, "--target_width must be at least 1; got 0"),
        ({"micro_batches": 0}, "--micro_batches must be at least 1; got 0"),
        ({"max_length": -1}, "--max_length must be at least 1; got -1"),
        ({"vocabulary": 0}, "--vocabulary must be at least 1; got 0"),
        ({"epochs": 2**63}, "--epochs is a whole number; got 9223372036854775808"),
        ({"epochs": "5"}, "--epochs is a whole number; got '5'"),
        ({"limit": 1.5}, "--limit is a whole number or None; got 1.5"),
        ({"widths": (8, None)}, r"--widths is a list of whole numbers or None; got \(8, None\)"),
        ({"learning_rate": float("nan")}, "--learning_rate is a finite number; got nan"),
        ({"dropout": float("inf")}, "--dropout is a finite number or None; got inf"),
        ({"norm": "yes"}, "--norm is True, False or None; got 'yes'"),
        ({"workdir": None}, "--workdir is a text; got None"),
        ({"staleness": "stale"}, "unknown staleness 'stale'; there are delayed, locked"),
        ({"warmup_epochs": -1}, "--warmup_epochs must be at least 0; got -1"),
        ({"step_epochs": (3,)}, "--step_epochs and --step_factor are of --schedule=step; the schedule is 'constant'"),
        ({"step_factor": 0.5, "schedule": "cosine"}, "are of --schedule=step; the schedule is 'cosine'"),
        ({"padding": "mirror"}, "unknown padding 'mirror'; there are zeros, reflect, edge, wrap"),
        ({"padding": "edge", "augment": ("flip",)}, "--padding=edge stands beside pictures that --augment=crop"),
        ({"scaling": "log"}, "unknown scaling 'log'; there are symmetric, unit"),
    ],
)
def test_fields_out_of_range(change, says):
    with pytest.raises(ValueError, match=says):
        Config(**change)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"method": "magic"}, "unknown method 'magic'; there are al"),
        ({"net": "rnn"}, "unknown net 'rnn'; there are mlp, cnn, vanilla_cnn"),
        ({"dataset": "digit"}, "digits"),
        ({"profile": "nips"}, "unknown profile 'nips' of method 'al'; there are neco, iclr, iclr_head"),
        ({"stages": 5}, "5 stages for a network of 4 blocks"),
        ({**SMALL, "stages": 2, "data_parallel": 3}, "64 does not divide over data_parallel=3"),
        ({"batch_size": 5000}, "more than the 1197 training examples"),
        ({"activation": "relux"}, "unknown activation"),
        ({"optimizer": "adamm"}, "unknown optimizer"),
        ({"dtype": "float64"}, "64-bit types"),
        ({"dataset": "fashion_mnist", "data_dir": "/nowhere"}, "/nowhere"),
        ({"augment": ("spin",)}, "spin"),
        ({"method": "scl", "profile": "neco"}, "method 'scl' has no option 'profile'; it has head, pool"),
        ({"method": "pred", "method_options": ("beta=0.5",)}, "method 'pred' has no option 'beta'"),
        ({"target_width": 16, "method_options": ("target_width=8",)}, "target_width is given by --target_width=16 too"),
        ({"method_options": ("target_width=8", "target_width=9")}, "--method_options: target_width is given twice"),
        (
            {"widths": (8, 8), "net_options": ("widths=(5,5)",)},
            r"--net_options: widths is given by --widths=\(8, 8\) too",
        ),
        ({"net_options": ("dropout=0.2",), "dropout": 0.5}, "dropout is given by --dropout=0.5 too: give it once"),
        ({"max_length": 3}, "--max_length=3 is of texts that are made of words, and digits has none"),
        ({"vocabulary": 5}, "--vocabulary=5 is of texts"),
        (
            {"method": "scl", "staleness": "locked"},
            "--staleness=locked is of methods that wait .* 'scl' wait for nothing",
        ),
        ({"method": "scl", "micro_batches": 4}, "--micro_batches=4 is of backpropagation .* learn from whole batches"),
        ({"method": "dfa", "micro_batches": 4}, "--micro_batches=4 is of backpropagation"),
        ({"trace": (1000, 1001)}, "--trace=1000,1001 is beyond the run, whose batches are 0 to 89"),
        (
            {"method": "early_exit", "heads_alone": True, "weight_decay": 0.1, "decay_on": "f"},
            "--decay_on=f: nothing of f learns in this run",
        ),
        ({"method_options": ("pool",)}, "--method_options is a list of name=value; got 'pool'"),
        ({"method": "scl", "method_options": ("views=2",)}, "give --augment"),
        ({"method": "scl", "method_options": ("head=deep",)}, "unknown head 'deep' of method 'scl'"),
        ({"method": "dgl", "method_options": ("aux=rnn",)}, "unknown auxiliary network 'rnn'"),
        ({"method": "dgl", "method_options": ("aux=cnn",)}, r"'cnn' reads images \(B, H, W, C\)"),
        ({"method": "predsim", "method_options": ("beta=2",)}, r"beta is in \[0, 1\]"),
        ({"method": "predsim", "method_options": ("beta=high",)}, "--method_options holds a value of the wrong type"),
        ({"method": "scl", "method_options": ("pool=-3",)}, "pool is a positive number of features, or None; got -3"),
        ({"method": "early_exit", "method_options": ("pool=few",)}, "or None; got 'few'"),
        ({"bridge": (0,)}, "bridge is a sequence of positive whole numbers"),
        ({"net": "vgg11", "net_options": ("width_factor=wide",)}, "--net_options holds a value of the wrong type"),
        ({"net": "vgg11", "widths": (8,)}, "net 'vgg11' has no option 'widths'; it has activation, norm"),
        ({"net": "vgg11", "net_options": ("pool=never",)}, "pool must be one of after, before, between; got 'never'"),
        ({"net": "resnet20", "net_options": ("form=deep",)}, "form must be one of he, neco; got 'deep'"),
        ({"net": "resnet20", "net_options": ("mean=maybe",)}, "mean is True, False or None; got 'maybe'"),
        ({"method": "bp_matched", "method_options": ("norm=maybe",)}, "norm is True, False or None; got 'maybe'"),
        ({"method": "bp", "method_options": ("hidden=(8, 0)",)}, "hidden is a sequence of positive numbers of units"),
        ({"method": "dgl", "method_options": ("head=deep",)}, "unknown head 'deep' of method 'dgl'"),
        ({"net": "resnet20", "norm": True}, "net 'resnet20' has no option 'norm'"),
        ({"method_options": ("pool=1.5",)}, "wrong type: pool is a whole number or None; got 1.5"),
        ({"method_options": ("stops=1",)}, "wrong type: stops is True, False; got 1"),
        ({"method": "scl", "method_options": ("temperature=1e400",)}, "temperature is a finite number; got inf"),
        (
            {"method": "dgl", "method_options": ("weights=(1,'a')",)},
            r"weights is a list of finite numbers; got \(1, 'a'\)",
        ),
        ({"method_options": ("pool=" + "(" * 500,)}, "pool is a whole number or None; got '"),
        ({"cuts": (0,)}, r"cuts must be 2 ascending block indices from 0 to 4; got \[0\]"),
        ({"blocks": (3, 2)}, "add up to the 4 layers"),
        ({"method": "bp", "stages": 2, "micro_batches": 7}, "micro_batches=7 do not divide the 64 examples"),
        ({"method": "dfa", "feedback_learning_rate": 0.1}, r"or the like learns \(dkp, kp, dni, .*\); 'dfa' has none"),
        ({"method": "dkp", "feedback_optimizer": "adamm"}, "unknown feedback_optimizer"),
        ({"method": "dkp", "method_options": ("form=slice",)}, "one that all share"),
        ({"engine": "sequential", "data_parallel": 2}, "--engine=sequential runs on one device"),
        ({"frozen": 4}, "frozen=4 of 4 blocks"),
        ({"grow_from": "/nowhere"}, "/nowhere is not the workdir of a run"),
        ({"begin_from": "/nowhere"}, "/nowhere has no checkpoint yet"),
        ({"begin_from": "a", "grow_from": "b"}, "say one of the two"),
        ({"schedule": "step"}, "step_epochs of schedule=step is every how many epochs the rate falls"),
        ({"warmup_epochs": 5}, "the warm-up is shorter than the run of"),
        ({**SMALL, "augment": ("crop=9",), "padding": "reflect"}, "pad=9 mirrors more of a picture than there is"),
        ({"augment": ("spin",)}, "unknown augmentation 'spin'; expected any of"),
    ],
)
def test_what_cannot_be_prepared(change, says, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        prepare(Config(workdir=str(tmp_path / "run"), **change))
    assert not (tmp_path / "run").exists()


def test_a_workdir_of_another_configuration_names_the_fields(tmp_path):
    config = Config(**SMALL, workdir=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    prepare(config)
    prepare(dataclasses.replace(config, stages=2, batches_per_call=3))  # where it runs may change
    with pytest.raises(ValueError, match="learning_rate is 0.001 there and 0.1 here; seed is 0 there and 7 here"):
        raise_all(config, learning_rate=0.1, seed=7)


def test_a_run_that_was_begun_with_a_flag_of_no_effect_goes_on(tmp_path):
    config = Config(method="scl", widths=(8,), staleness="locked", vocabulary=5, workdir=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    prepare(config)
    prepare(read_config(tmp_path), resume=False)
    with pytest.raises(ValueError, match="--max_length=3 is of texts"):
        prepare(dataclasses.replace(config, max_length=3), resume=False)


def test_other_stages_of_a_delayed_run_are_another_run(tmp_path):
    config = Config(method="dfa", widths=(8, 8, 8), stages=2, workdir=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    prepare(config)
    prepare(dataclasses.replace(config, engine="sequential"))  # the same delays
    prepare(dataclasses.replace(config, stages=3, new_delays=True))
    with pytest.raises(ValueError, match="on --stages=3 --cuts=None: it would be another run"):
        prepare(dataclasses.replace(config, stages=3))
    locked = tmp_path / "locked"
    locked.mkdir()
    (locked / "config.json").write_text(json.dumps(dataclasses.replace(config, staleness="locked").to_json()))
    prepare(dataclasses.replace(config, staleness="locked", stages=3, workdir=str(locked)))


def raise_all(config, **change):
    prepare(dataclasses.replace(config, **change))


def test_a_file_in_place_of_the_workdir(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file; give a folder"):
        prepare(Config(workdir=str(tmp_path / "file")))


def test_a_field_that_an_older_version_did_not_have_was_at_its_default(tmp_path):
    saved = Config().to_json()
    del saved["label_noise"]
    check_same(Config(), saved, tmp_path / "config.json")
    with pytest.raises(ValueError, match=r"label_noise is 0.0 there and 0.5 here"):
        check_same(Config(label_noise=0.5), saved, tmp_path / "config.json")


def test_a_config_is_read_back():
    config = Config(widths=(8, 4), method_options=("head=linear",), frozen=1)
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config
    with pytest.raises(ValueError, match="another version: it has the fields depth"):
        Config.from_json({"depth": 3})


@pytest.mark.parametrize(("saved", "plugins"), [({}, ()), ({"plugin": ["mine"]}, ("mine",)), ({"plugin": 5}, ())])
def test_a_run_brings_its_plugins(saved, plugins, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**Config().to_json(), **saved}))
    assert saved_plugins(tmp_path) == plugins
    assert saved_plugins(tmp_path / "other") == ()


@pytest.mark.parametrize("folder", ["nothing", "empty"])
def test_a_workdir_without_a_run_cannot_be_read(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"is not the workdir of a run: it has no config\.json"):
        read_config(tmp_path / folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda saved: saved.pop("heads_alone"), ""),  # as an older version wrote it
        (lambda saved: saved.pop("learning_rate"), "learning_rate was 0.001 and is 0.1"),
        (lambda saved: saved.update(seed=7), "seed was 7 and is 0"),
        (lambda saved: saved.update(depth=3), "depth was 3 and is None"),
    ],
)
def test_a_config_file_that_is_not_the_runs_is_told(change, says, tmp_path):
    config = Config(learning_rate=0.1).to_json()
    saved = dict(config)
    change(saved)
    (tmp_path / "config.json").write_text(json.dumps(saved))
    told = replace(epath.Path(tmp_path), config)
    assert json.loads((tmp_path / "config.json").read_text()) == config
    assert (says in told) if says else not told
