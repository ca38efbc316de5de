import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localgrad.data import augmentation
from localgrad.data.augment import crop, flip


def pictures(count: int, side: int = 6, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (count, side, side, channels), dtype=np.uint8)


def keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def test_crop_is_a_window_of_the_padded_picture() -> None:
    images = pictures(400)
    found = np.asarray(jax.jit(crop(2))(keys(400), images))
    assert found.dtype == np.uint8 and found.shape == images.shape
    seen = set()
    for image, cut in zip(images, found, strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
        windows = {(i, j): padded[i : i + 6, j : j + 6] for i in range(5) for j in range(5)}
        matches = [place for place, window in windows.items() if np.array_equal(window, cut)]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) == 25  # every window there is


def test_flip_mirrors_half_of_the_pictures() -> None:
    images = pictures(1000)
    found = np.asarray(jax.jit(flip())(keys(1000), images))
    assert found.dtype == np.uint8
    mirrored = (found == images[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (found == images).all(axis=(1, 2, 3))
    assert (mirrored ^ kept).all()
    assert abs(mirrored.sum() - 500) < 80  # five standard deviations


@pytest.mark.parametrize("names", ["crop", "crop,flip", ["flip", "crop"]])
def test_an_example_depends_on_its_own_key_alone(names: str | list[str]) -> None:
    change, images = jax.jit(augmentation(names, pad=2)), pictures(8)
    together = change(keys(8), images)
    for i in (0, 3, 7):
        np.testing.assert_array_equal(change(keys(8)[i : i + 1], images[i : i + 1])[0], together[i])
    assert not np.array_equal(together, change(keys(8, seed=1), images))


def test_composition_draws_apart_and_in_order() -> None:
    images = pictures(64)
    split = [jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(keys(64)) for i in range(2)]
    expected = flip()(split[1], crop(2)(split[0], images))
    np.testing.assert_array_equal(augmentation(" crop, flip", pad=2)(keys(64), images), expected)


def test_nothing_is_the_identity() -> None:
    images = pictures(3)
    np.testing.assert_array_equal(augmentation("")(keys(3), images), images)
    np.testing.assert_array_equal(augmentation([])(keys(3), images), images)


def test_equal_arguments_give_one_function() -> None:
    assert augmentation("crop,flip") is augmentation(["crop", "flip"])
    assert augmentation("crop", pad=1) is not augmentation("crop", pad=2)


def test_an_unknown_name_lists_what_exists() -> None:
    with pytest.raises(
        ValueError, match=r"unknown augmentation \['rotate'\]; expected any of \['crop', 'flip', 'jitter"
    ):
        augmentation("crop,rotate")


def test_a_pad_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="pad=0 leaves nothing to crop; expected at least 1"):
        augmentation("crop", pad=0)
    assert augmentation("flip", pad=0)(keys(1), jnp.ones((1, 2, 2, 1), jnp.uint8)).shape == (1, 2, 2, 1)
