"""Random changes of pictures, one key an example, of any generator: pure functions of keys and bytes."""

from collections.abc import Callable, Sequence
from functools import cache

import jax
import jax.numpy as jnp
from jax import lax

from localgrad.keys import threefry

Augment = Callable[[jax.Array, jax.Array], jax.Array]


def crop(pad: int = 4) -> Augment:
    """Pads a picture with zeros and cuts a random window of its own size out of it.

    Args:
      pad: number of zeros on each side, at least 1.

    Returns:
      `(keys (B,), images uint8 (B, H, W, C)) -> images`, of the same shape.

    Raises:
      ValueError: pad < 1.
    """
    if pad < 1:
        raise ValueError(f"pad={pad} leaves nothing to crop; expected at least 1, or leave 'crop' out")

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        # A remainder, off from uniform by less than 2**-24 for any picture, costs a third of what `randint` does.
        drawn = jax.random.bits(key, (2,), jnp.uint32) % jnp.uint32(2 * pad + 1)
        top, left = drawn.astype(jnp.int32)
        return lax.dynamic_slice(padded, (top, left, jnp.int32(0)), image.shape)

    return _over_examples(one)


def flip() -> Augment:
    """Mirrors a picture left to right, or not, by the toss of a coin.

    Returns:
      `(keys (B,), images uint8 (B, H, W, C)) -> images`.
    """

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        heads = jax.random.bits(key, (), jnp.uint32) >> jnp.uint32(31) == 1  # a bit is the same under x64 or not
        return jnp.where(heads, image[:, ::-1], image)

    return _over_examples(one)


def _over_examples(one: Augment) -> Augment:
    def apply(keys: jax.Array, images: jax.Array) -> jax.Array:
        if images.ndim != 4:
            raise ValueError(f"crop, flip and jitter are of images (B, H, W, C); got {images.shape}")
        return jax.vmap(one)(threefry(keys), images)

    return apply


def augmentation(names: str | Sequence[str], *, pad: int = 4) -> Augment:
    """Composes augmentations, applied from left to right, each with a key of its own.

    Args:
      names: of `crop`, `flip` and `jitter` (a crop of 2 pixels, as NECO's), as a sequence or joined by commas; nothing
        at all is the identity.
      pad: see `crop`.

    Returns:
      `(keys (B,), images uint8 (B, H, W, C)) -> images`; the same function for the same arguments.

    Raises:
      ValueError: there is no augmentation of that name, or pad < 1.

    >>> change = augmentation("crop,flip")
    >>> change(jax.random.split(jax.random.key(0), 3), jnp.ones((3, 8, 8, 1), jnp.uint8)).shape
    (3, 8, 8, 1)
    """
    chosen = names.split(",") if isinstance(names, str) else names
    return _composed(tuple(name.strip() for name in chosen if name.strip()), pad)


@cache  # one function object for equal arguments: it is static in jitted code
def _composed(names: tuple[str, ...], pad: int) -> Augment:
    table: dict[str, Callable[[], Augment]] = {"crop": lambda: crop(pad), "flip": flip, "jitter": lambda: crop(2)}
    unknown = [name for name in names if name not in table]
    if unknown:
        raise ValueError(f"unknown augmentation {unknown}; expected any of {sorted(table)}, joined by commas")
    steps = [table[name]() for name in names]

    def apply(keys: jax.Array, images: jax.Array) -> jax.Array:
        keys = threefry(keys)
        for i, step in enumerate(steps):
            images = step(jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(keys), images)
        return images

    return apply
