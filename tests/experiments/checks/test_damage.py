"""A few of the cases that `experiments.checks.damage` makes, of each kind."""

import random

import pytest

from experiments.checks import damage


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    return damage.make_origin(tmp_path_factory.mktemp("damage"))


def test_every_kind_of_damage_changes_a_file(tmp_path):
    for kind in damage.KINDS:
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "file").write_bytes(b"content")
        damage.damage(tmp_path / kind, "file", kind, random.Random(0))
        path = tmp_path / kind / "file"
        assert not path.exists() or path.read_bytes() != b"content"


@pytest.mark.slow
@pytest.mark.parametrize(("flips", "others", "first"), [(8, 6, 1000)])
def test_damage_is_told_of_and_mended(flips, others, first, origin):
    for state, file, kind, seed in damage.cases(origin, flips, others, first):
        found = damage.check(origin, state, file, kind, seed)
        assert found["said"] and found["mended"], found


@pytest.mark.slow
def test_a_copy_that_nothing_happens_to_says_nothing(origin, monkeypatch):
    monkeypatch.setattr(damage, "damage", lambda *arguments: "nothing")
    for state in origin.kept:
        found = damage.check(origin, state, "config.json", "flip", "0")
        assert found["mended"] and not found["said"]
