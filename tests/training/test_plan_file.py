"""`plan.json`: what it says is what the run is, and damage is noticed."""

import jax
import numpy as np
import pytest
from etils import epath

import localgrad as lg
from localgrad.training import Config, prepare
from localgrad.training.plan_file import NAME, as_file, keep, plan_on, planned, read_planned

CONFIG = Config(method="dfa", net="mlp", widths=(8, 8, 8), limit=64, batch_size=32, epochs=3)


@pytest.fixture(scope="module")
def known():
    job = prepare(CONFIG)
    return planned(job, plan_on(job, Config.from_json({**CONFIG.to_json(), "stages": 3})))


def test_a_plan_of_stages_that_this_machine_need_not_have(known):
    assert known.plan.schedule == lg.Schedule("broadcast", (3, 2, 1)) and known.plan.cuts == (0, 1, 2, 4)
    assert (known.batches, known.exits, known.percent["accuracy"]) == (6, (4,), True)
    assert [row.name for row in known.ledger.blocks] == list(known.blocks)


def test_it_is_read_as_it_was_written(known, tmp_path):
    (tmp_path / NAME).write_bytes(as_file(known))
    found = read_planned(epath.Path(tmp_path))
    assert found == known and jax.tree.structure(found) == jax.tree.structure(known)


def test_every_flipped_bit_is_noticed(known, tmp_path):
    content, choose = as_file(known), np.random.default_rng(0)
    for at in choose.choice(len(content), 60, replace=False):
        bit = 1 << int(choose.integers(8))
        (tmp_path / NAME).write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
        assert read_planned(epath.Path(tmp_path)) is None, (at, bit)


@pytest.mark.parametrize(
    ("before", "says"), [(None, "is missing"), (b"[]", "is damaged"), (b"\xff", "is damaged"), ("same", None)]
)
def test_what_is_lost_is_told_of(before, says, known, tmp_path):
    path, content, said = tmp_path / NAME, as_file(known), []
    if before is not None:
        path.write_bytes(content if before == "same" else before)
    keep(epath.Path(tmp_path), content, said.append)
    assert path.read_bytes() == content
    assert [line.removeprefix(f"{path} ") for line in said] == ([] if says is None else [f"{says} and is made anew"])


def test_another_placement_is_no_damage(known, tmp_path):
    (tmp_path / NAME).write_bytes(as_file(known._replace(batches=7)))
    said = []
    keep(epath.Path(tmp_path), as_file(known), said.append)
    assert said == [] and read_planned(epath.Path(tmp_path)) == known
