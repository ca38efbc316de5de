"""Random changes of pictures, one key an example, of any generator: pure functions of keys and bytes."""

from collections.abc import Callable, Sequence
from functools import cache

import jax
import jax.numpy as jnp
from jax import lax

from localgrad.keys import threefry

Augment = Callable[[jax.Array, jax.Array], jax.Array]
PADDINGS = {"zeros": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}  # jax's names of them


def crop(pad: int = 4, padding: str = "zeros") -> Augment:
    """Pads a picture and cuts a random window of its own size out of it: shifts it, that is.

    Args:
      pad: number of pixels on each side, at least 1.
      padding: what stands there: `zeros`, the `edge` pixels, the picture mirrored (`reflect`), or the other side of it
        (`wrap`, a circular shift).

    Returns:
      `(keys (B,), images uint8 (B, H, W, C)) -> images`, of the same shape.

    Raises:
      ValueError: pad < 1, an unknown padding, or, later, pictures that are too small to be mirrored so far.
    """
    if not isinstance(pad, int) or pad < 1:
        raise ValueError(f"pad={pad} leaves nothing to crop; expected at least 1, or leave 'crop' out")
    if padding not in PADDINGS:
        raise ValueError(f"unknown padding {padding!r}; expected any of {', '.join(PADDINGS)}")

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        if padding == "reflect" and min(image.shape[:2]) <= pad:
            raise ValueError(f"pad={pad} mirrors more of a picture than there is of one of {image.shape[:2]}")
        padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode=PADDINGS[padding])
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


def rescale(least: float = 0.5) -> Augment:
    """Cuts a random window out of a picture and brings it back to the picture's size, by bilinear interpolation.

    So nothing of what is seen lies outside of the picture, as it does with `crop`.

    Args:
      least: the smallest side of a window, as a share of the picture's; it is drawn uniformly from there to the whole,
        the same for both sides, and then the place.

    Returns:
      `(keys (B,), images (B, H, W, C)) -> images`; bytes are rounded to the nearest.

    Raises:
      ValueError: least outside (0, 1).

    References:
      NOTES, a researcher's log (random crop, then scaling back); Szegedy et al., Going Deeper with Convolutions,
        https://arxiv.org/abs/1409.4842, section 6, which also draws the ratio of the sides
    """
    if not 0 < least < 1:
        raise ValueError(f"rescale={least} is no share of the side; expected one between 0 and 1")

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        side, top, left = jax.random.uniform(key, (3,), jnp.float32)
        share = least + (1 - least) * side
        size = jnp.asarray(image.shape[:2], jnp.float32)
        place = jnp.stack([top, left]) * (1 - share) * size
        found = jax.image.scale_and_translate(
            image.astype(jnp.float32),
            image.shape,
            (0, 1),
            jnp.broadcast_to(1 / share, (2,)),
            -place / share,
            "linear",
            antialias=False,
        )
        return _as_it_was(found, image)

    return _over_examples(one)


def brightness(amount: float = 0.2) -> Augment:
    """Multiplies a picture by a random factor, uniform in `[1 - amount, 1 + amount]`.

    Args:
      amount: in (0, 1].

    Returns:
      `(keys (B,), images (B, H, W, C)) -> images`; bytes are rounded, and stay between 0 and 255.

    Raises:
      ValueError: an amount outside (0, 1].

    References:
      Wu et al., Associated Learning, ICLR (images of CIFAR-10; the amount is not stated)
    """
    if not 0 < amount <= 1:
        raise ValueError(f"brightness={amount} is no share of the brightness; expected one above 0, at most 1")

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        factor = 1 + amount * (2 * jax.random.uniform(key, (), jnp.float32) - 1)
        return _as_it_was(factor * image.astype(jnp.float32), image)

    return _over_examples(one)


def _as_it_was(changed: jax.Array, image: jax.Array) -> jax.Array:
    """A picture in the type of another; bytes rounded, and not beyond their ends."""
    if jnp.issubdtype(image.dtype, jnp.integer):
        ends = jnp.iinfo(image.dtype)
        changed = jnp.clip(jnp.round(changed), ends.min, ends.max)
    return changed.astype(image.dtype)


def _over_examples(one: Augment) -> Augment:
    def apply(keys: jax.Array, images: jax.Array) -> jax.Array:
        if images.ndim != 4:
            raise ValueError(f"augmentations are of images (B, H, W, C); got {images.shape}")
        return jax.vmap(one)(threefry(keys), images)

    return apply


def augmentation(names: str | Sequence[str], *, pad: int = 4, padding: str = "zeros") -> Augment:
    """Composes augmentations, applied from left to right, each with a key of its own.

    Args:
      names: of `crop`, `flip`, `jitter` (a crop of 2 pixels, as NECO's), `rescale` and `brightness`, as a sequence or
        joined by commas; `name=amount` is one of another `pad`, `least` or `amount` than its own.  Nothing at all is
        the identity.
      pad, padding: see `crop`.

    Returns:
      `(keys (B,), images uint8 (B, H, W, C)) -> images`; the same function for the same arguments.

    Raises:
      ValueError: there is no augmentation of that name, or of that amount, or no such padding.

    >>> change = augmentation("crop=2,flip,brightness=0.4", padding="edge")
    >>> change(jax.random.split(jax.random.key(0), 3), jnp.ones((3, 8, 8, 1), jnp.uint8)).shape
    (3, 8, 8, 1)
    """
    chosen = names.split(",") if isinstance(names, str) else names
    return _composed(tuple(name.strip() for name in chosen if name.strip()), pad, padding)


@cache  # one function object for equal arguments: it is static in jitted code
def _composed(names: tuple[str, ...], pad: int, padding: str) -> Augment:
    steps = [_named(name, pad, padding) for name in names]

    def apply(keys: jax.Array, images: jax.Array) -> jax.Array:
        keys = threefry(keys)
        for i, step in enumerate(steps):
            images = step(jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(keys), images)
        return images

    apply.__qualname__ = f"augmentation of {', '.join(names)}, pad={pad}, {padding}"  # what a run remembers it by
    return apply


def _named(given: str, pad: int, padding: str) -> Augment:
    """The augmentation of a `name` or a `name=amount`.

    Raises:
      ValueError: see `augmentation`.
    """
    name, equals, text = given.partition("=")
    table: dict[str, tuple[Callable[..., Augment], type]] = {
        "crop": (lambda amount=pad: crop(amount, padding), int),
        "flip": (flip, str),
        "jitter": (lambda amount=2: crop(amount, padding), int),
        "rescale": (rescale, float),
        "brightness": (brightness, float),
    }
    if name not in table:
        raise ValueError(f"unknown augmentation {name!r}; expected any of {sorted(table)}, joined by commas")
    make, kind = table[name]
    if not equals:
        return make()
    try:
        amount = kind(text)
    except ValueError:
        amount = None
    if amount is None or kind is str:
        says = "which has no amount" if kind is str else f"an amount of which is a {'whole ' * (kind is int)}number"
        raise ValueError(f"augmentation {given!r} is of {name!r}, {says}")
    return make(amount)
