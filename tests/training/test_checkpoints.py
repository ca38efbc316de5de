"""Checkpoints alone: what is kept, what is given back, and what is noticed."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.base import BlockState
from localgrad.training import SaveError, manifest
from localgrad.training.checkpoints import Checkpoints


def state(value: float, width: int = 3) -> BlockState:
    params = {"f": {"kernel": jnp.full((2, width), value)}}
    tx = optax.adam(optax.constant_schedule(0.1))
    return BlockState(params, {"f": {"mean": jnp.full((width,), value)}}, tx.init(params))


def like(width: int = 3):
    return jax.eval_shape(lambda: (state(0.0, width), state(0.0, width)))


@pytest.fixture
def said():
    return []


@pytest.fixture
def checkpoints(tmp_path, said):
    made = Checkpoints(tmp_path / "checkpoints", said.append)
    yield made
    made.close()


def save(checkpoints, *steps, **options):
    for step in steps:
        checkpoints.save(step, (state(step), state(-step)), {"sums": [step]}, **options)
    checkpoints.wait()


def test_the_newest_is_given_back_bit_for_bit(checkpoints):
    save(checkpoints, 3, 7)
    found = checkpoints.restore(like())
    assert (found.step, found.meta) == (7, {"sums": [7]})
    expected = (state(7), state(-7))
    assert jax.tree.structure(found.states) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found.states, expected)


def test_at_or_before_a_step(checkpoints):
    save(checkpoints, 3, 7)
    assert checkpoints.restore(like(), before=6).step == 3
    assert checkpoints.restore(like(), before=7).step == 7
    assert checkpoints.restore(like(), before=2) is None


def test_the_last_two_and_the_best_are_kept(checkpoints):
    for step, validation in ((1, 50.0), (2, 90.0), (3, 60.0), (4, 70.0), (5, 80.0)):
        save(checkpoints, step, validation=validation)
    save(checkpoints, 6)  # between two epochs
    assert set(checkpoints.steps()) == {2, 5, 6}
    assert checkpoints.restore(like(), best=True).step == 2


def test_the_best_is_the_first_of_equals_and_known_to_the_next_process(checkpoints, tmp_path):
    for step in (1, 2, 3):
        save(checkpoints, step, validation=90.0)
    assert checkpoints.restore(like(), best=True).step == 1
    checkpoints.close()
    after = Checkpoints(tmp_path / "checkpoints")
    save(after, 4, validation=80.0)
    save(after, 5, validation=90.0)
    assert after.restore(like(), best=True).step == 1
    after.close()


def test_a_step_is_saved_once(checkpoints):
    save(checkpoints, 3)
    checkpoints.save(3, (state(8), state(8)), {"sums": []})
    assert checkpoints.restore(like()).meta == {"sums": [3]}


def test_another_network_is_refused(checkpoints):
    save(checkpoints, 3)
    with pytest.raises(ValueError, match="the checkpoint of step 3 is of another network: .*kernel.* there and"):
        checkpoints.restore(like(width=4))


def test_an_empty_folder(checkpoints):
    assert checkpoints.restore(like()) is None
    assert checkpoints.restore(like(), best=True) is None


# --- damage ----------------------------------------------------------------------------------------------------------


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(folder):
    largest = max(files(folder / "blocks"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)


def shorten(folder):
    for path in (folder / "blocks").rglob("d/*"):
        os.truncate(path, 10)


def rewrite(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"learning_rate": 0.1', '"learning_rate": 0.9'))


DAMAGE = {
    "one bit": (flip, "is damaged"),
    "cut short": (shorten, "bytes and had"),
    "an empty file": (lambda folder: (folder / "meta" / "metadata").write_bytes(b""), "0 bytes"),
    "a file missing": (lambda folder: (folder / "meta" / "metadata").unlink(), "meta/metadata is missing"),
    "a file too many": (lambda folder: (folder / "blocks" / "more").write_bytes(b"x"), "blocks/more is not of it"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "its writing was cut off"),
    "half a manifest": (lambda folder: os.truncate(folder / "manifest.json", 50), "manifest.json is damaged"),
    "another configuration": (rewrite, "manifest.json is damaged"),
    "nothing at all": (lambda folder: [path.unlink() for path in files(folder)], "its writing was cut off"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(kind, checkpoints, said, tmp_path):
    damage, says = DAMAGE[kind]
    save(checkpoints, 3, 7, config={"learning_rate": 0.1})
    checkpoints.close()
    damage(tmp_path / "checkpoints" / "7")
    after = Checkpoints(tmp_path / "checkpoints", said.append)
    assert after.restore(like()).step == 3
    (line,) = said
    assert "checkpoint 7 in" in line and says in line
    save(after, 7)  # it is out of the way
    assert after.restore(like()).meta == {"sums": [7]}
    assert (tmp_path / "checkpoints" / "damaged" / "7").is_dir()
    after.close()


def test_a_renamed_checkpoint_is_not_of_its_step(checkpoints, said, tmp_path):
    save(checkpoints, 3)
    (tmp_path / "checkpoints" / "3").rename(tmp_path / "checkpoints" / "5")
    assert checkpoints.restore(like()) is None
    assert "it was renamed: it is the checkpoint of step 3" in said[0]
    assert said[-1].startswith("no checkpoint in")


def test_looking_changes_nothing(checkpoints, tmp_path):
    save(checkpoints, 3)
    (tmp_path / "checkpoints" / "9").mkdir()
    (tmp_path / "checkpoints" / "12.orbax-checkpoint-tmp-1").mkdir()  # that a run is writing meanwhile
    assert Checkpoints(tmp_path / "checkpoints").restore(like()).step == 3
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"3", "9", "12.orbax-checkpoint-tmp-1"}


def test_the_configuration_is_that_of_the_checkpoint(checkpoints):
    assert checkpoints.config() is None
    save(checkpoints, 3, config={"learning_rate": 0.1})
    assert checkpoints.config() == {"learning_rate": 0.1}


def test_a_write_that_failed_is_told_at_the_next_and_can_be_made_again(checkpoints, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    save(checkpoints, 3)
    with monkeypatch.context() as patched:
        patched.setattr(manifest, "write", full)
        checkpoints.save(7, (state(7), state(-7)), {"sums": []})
        with pytest.raises(SaveError, match=r"the checkpoint of step 7 could not be written to .*No space left"):
            checkpoints.save(9, (state(9), state(-9)), {"sums": []})
    assert checkpoints.restore(like()).step == 3
    save(checkpoints, 7)
    assert checkpoints.restore(like()).step == 7
