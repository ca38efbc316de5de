from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localgrad.data import PADDINGS, augmentation
from localgrad.data.augment import brightness, crop, flip, rescale


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


@pytest.mark.parametrize("names", ["crop", "crop,flip", ["flip", "crop"], "rescale,brightness"])
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
        ValueError, match=r"unknown augmentation 'rotate'; expected any of \['brightness', 'crop', 'flip', 'jitter"
    ):
        augmentation("crop,rotate")


def test_a_pad_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="pad=0 leaves nothing to crop; expected at least 1"):
        augmentation("crop", pad=0)
    assert augmentation("flip", pad=0)(keys(1), jnp.ones((1, 2, 2, 1), jnp.uint8)).shape == (1, 2, 2, 1)


@pytest.mark.parametrize("padding", PADDINGS)
def test_crop_is_a_window_of_what_stands_beside(padding: str) -> None:
    images = pictures(40)
    found = np.asarray(jax.jit(crop(2, padding))(keys(40), images))
    for image, cut in zip(images, found, strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode=PADDINGS[padding])
        assert any(np.array_equal(padded[i : i + 6, j : j + 6], cut) for i in range(5) for j in range(5))
    if padding == "wrap":  # a circular shift: the same pixels
        np.testing.assert_array_equal(np.sort(found.reshape(40, -1)), np.sort(images.reshape(40, -1)))


def test_rescale_is_a_window_of_the_picture() -> None:
    """A picture that is linear in its place stays so: from the place of the window on, by its share of the side."""
    rows, columns = np.meshgrid(np.arange(8.0), np.arange(8.0), indexing="ij")
    images = np.broadcast_to(np.stack([rows, columns], axis=-1), (200, 8, 8, 2)).astype(np.float32)
    found = np.asarray(jax.jit(rescale(0.5))(keys(200), images))
    inner = found[:, 1:-1, 1:-1]  # at the border the last half pixel has nothing beside it
    down, across = np.diff(inner[..., 0], axis=1), np.diff(inner[..., 1], axis=2)
    share = down.mean(axis=(1, 2))
    np.testing.assert_allclose(down, np.broadcast_to(share[:, None, None], down.shape), atol=1e-5)
    np.testing.assert_allclose(across, np.broadcast_to(share[:, None, None], across.shape), atol=1e-5)
    assert 0.5 <= share.min() < 0.55 and 0.95 < share.max() <= 1
    for k in range(2):
        first = inner[:, 0, 0, k] + 0.5 - 1.5 * share  # the edge of the window
        assert (first > -1e-4).all() and (first < (1 - share) * 8 + 1e-4).all()


def test_brightness_is_one_factor_a_picture() -> None:
    images = pictures(300).astype(np.float32)
    found = np.asarray(jax.jit(brightness(0.4))(keys(300), images))
    factor = (found / images).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(found, images * factor[:, None, None, None], rtol=1e-5)
    assert 0.6 <= factor.min() < 0.62 and 1.38 < factor.max() <= 1.4
    whole = np.asarray(brightness(0.4)(keys(300), pictures(300)))
    np.testing.assert_array_equal(whole, np.clip(np.round(images * factor[:, None, None, None]), 0, 255))


def test_an_amount_stands_behind_a_name() -> None:
    images = pictures(8)
    own = jax.vmap(lambda key: jax.random.fold_in(key, 0))(keys(8))
    for name, change in (("crop=1", crop(1)), ("rescale=0.7", rescale(0.7)), ("brightness=0.9", brightness(0.9))):
        np.testing.assert_array_equal(augmentation(name)(keys(8), images), change(own, images))
    moved = augmentation("jitter", padding="edge")(keys(8), images)
    np.testing.assert_array_equal(moved, crop(2, "edge")(own, images))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: augmentation("crop=x"), "augmentation 'crop=x' is of 'crop', an amount of which is a whole number"),
        (lambda: augmentation("crop=0"), "pad=0 leaves nothing to crop"),
        (lambda: augmentation("flip=1"), "augmentation 'flip=1' is of 'flip', which has no amount"),
        (lambda: augmentation("rescale=1"), "rescale=1.0 is no share of the side"),
        (lambda: augmentation("rescale=nan"), "rescale=nan is no share of the side"),
        (lambda: augmentation("brightness=0"), "brightness=0.0 is no share of the brightness"),
        (lambda: augmentation("brightness="), "an amount of which is a number"),
        (lambda: crop(2, "mirror"), "unknown padding 'mirror'; expected any of zeros, reflect, edge, wrap"),
        (lambda: crop(6, "reflect")(keys(1), pictures(1)), "pad=6 mirrors more of a picture than there is"),
    ],
)
def test_what_an_augmentation_cannot_be(make: Callable, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
