"""Checkpoints alone: what is kept, what is given back, and what is noticed."""

import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

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


def capital(folder):
    """A bit that changes no number."""
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace("1e-05", "1E-05"))


def link(folder):
    """Out of the run, to the same content."""
    path = max(files(folder / "blocks"), key=lambda path: path.stat().st_size)
    outside = folder.parent.parent / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def link_folder(folder):
    (folder / "blocks").rename(folder.parent.parent / "outside")
    (folder / "blocks").symlink_to(folder.parent.parent / "outside")


def manifest_folder(folder):
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()


def manifest_of_another(folder):
    other = Checkpoints(folder.parent.parent / "other")
    other.save(7, (state(1), state(2)), {"sums": []}, config={"learning_rate": 0.1})
    other.close()
    shutil.copy(folder.parent.parent / "other" / "7" / "manifest.json", folder)


DAMAGE = {
    "another way to write a number": (capital, "manifest.json is damaged"),
    "a link to a file": (link, "is a link"),
    "a link to a folder": (link_folder, "blocks is a link"),
    "a folder for a manifest": (manifest_folder, "directory"),
    "the manifest of another": (manifest_of_another, "file "),
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
    save(checkpoints, 3, 7, config={"learning_rate": 0.1, "floor": 1e-5})
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


def test_checkpoints_that_were_swapped_are_both_named(checkpoints, said, tmp_path):
    save(checkpoints, 3, 5)
    three, five = (tmp_path / "checkpoints" / name for name in ("3", "5"))
    three.rename(tmp_path / "three")
    five.rename(three)
    (tmp_path / "three").rename(five)
    assert checkpoints.restore(like()) is None
    assert ["it was renamed" in line for line in said] == [True, True, False]


def test_no_bit_of_a_manifest_turns_unnoticed(checkpoints, tmp_path):
    save(checkpoints, 3, config={"learning_rate": 1e-5, "name": "ä", "cuts": None}, validation=90.0)
    folder = epath.Path(tmp_path / "checkpoints" / "3")
    path, whole = folder / "manifest.json", (folder / "manifest.json").read_bytes()
    choose = np.random.default_rng(0)
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << int(choose.integers(8))]) + whole[at + 1 :])
        with pytest.raises(manifest.DamagedError, match=r"manifest\.json is damaged"):
            manifest.read(folder)
    path.write_bytes(whole)
    assert manifest.check(folder)["step"] == 3


@pytest.mark.parametrize("name", ["036", "³", "٣", "3.bak", "+3", "x"])
def test_what_is_no_checkpoint_is_named_and_in_nobodys_way(name, checkpoints, said, tmp_path):
    save(checkpoints, 3, 5)
    checkpoints.close()
    (tmp_path / "checkpoints" / "5").rename(tmp_path / "checkpoints" / name)
    after = Checkpoints(tmp_path / "checkpoints", said.append)
    assert after.restore(like()).step == 3
    after.review(3)
    assert [f"{name} is no checkpoint" in line for line in said] == [True]
    save(after, 5)
    assert after.restore(like()).step == 5
    after.close()


def test_a_checkpoint_of_another_run_is_passed_over_and_set_aside(checkpoints, said, tmp_path):
    save(checkpoints, 3, config={"seed": 0})
    save(checkpoints, 5, config={"seed": 1})
    checkpoints.close()

    def accept(found):
        if found["config"] != {"seed": 0}:
            raise ValueError("it has another seed")

    after = Checkpoints(tmp_path / "checkpoints", said.append, accept)
    assert after.restore(like()).step == 3
    assert "checkpoint 5" in said[0] and said[0].endswith("cannot be used: it has another seed")
    save(after, 5, config={"seed": 0})
    assert after.restore(like()).step == 5
    after.close()


def test_a_review_names_what_find_does_not_look_at(checkpoints, said, tmp_path):
    """The best alone is damaged: a run goes on from the newest, and the damage would be found too late."""
    for step, validation in ((3, 90.0), (5, 70.0), (7, 80.0)):
        save(checkpoints, step, validation=validation)
    checkpoints.close()
    flip(tmp_path / "checkpoints" / "3")
    after = Checkpoints(tmp_path / "checkpoints", said.append)
    assert after.restore(like()).step == 7 and not said
    after.review(7)
    assert len(said) == 1 and "checkpoint 3 in" in said[0]
    assert after.restore(like(), best=True).step == 7
    save(after, 9)
    assert set(after.steps()) == {7, 9}
    after.close()


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


def test_a_validation_that_is_no_number_is_not_the_best(checkpoints):
    """Also where an earlier version wrote it as it was."""
    for step, found in ((1, float("nan")), (2, 0.5), (3, float("nan")), (4, -np.inf), (5, 0.1)):
        save(checkpoints, step, validation=found)
    assert checkpoints.steps() == [5, 4, 2]
    assert checkpoints.find(best=True)["step"] == 2
