"""What blocks learn of the image beside its class: the self-supervised losses of `dgl`.

References:
  NOTES, a researcher's log, third iteration
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from localgrad.base import Block
from localgrad.blocks import output_spec
from localgrad.losses import mean_absolute_error, mean_squared_error
from localgrad.methods.heads import adaptive_mean
from localgrad.registry import check_known

SELF_SUPERVISED = ("reconstruct", "shift")
UPSAMPLE = ("transposed", "bilinear", "none")
DISTANCES = {"l1": mean_absolute_error, "l2": mean_squared_error}
_SHIFTS = (5 / 32, 16 / 32)  # of the first and the last shifted target, in units of the image


class Image(NamedTuple):
    """What a block learns of the image beside the classes.

    Attributes:
      target: `image (B, ...) -> what the decoder predicts`.
      distance: of the two, a scalar.
      weights: of the classification and of the distance.
    """

    target: Callable[[jax.Array], jax.Array]
    distance: Callable[[jax.Array, jax.Array], jax.Array]
    weights: tuple[float, float]


def images_of(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    kind: str,
    upsample: str,
    distance: str,
    weights: Sequence[float],
) -> list[Image]:
    """What every block but the last learns of the image.

    Args:
      network, x_spec, upsample, distance, weights: as `dgl`.
      kind: a key of `SELF_SUPERVISED`.

    Raises:
      ValueError: as `dgl`.
    """
    for what, name, known in (
        ("self_supervised loss", kind, SELF_SUPERVISED),
        ("upsample", upsample, UPSAMPLE),
        ("distance", distance, DISTANCES),
    ):
        check_known(what, name, known, of="method 'dgl'")
    if not jnp.issubdtype(x_spec.dtype, jnp.floating):
        raise ValueError(f"self_supervised={kind!r} predicts the input, and word numbers are no quantities.")
    if kind == "shift" and len(x_spec.shape) != 4:
        raise ValueError(f"self_supervised='shift' moves images (B, H, W, C); the inputs are {x_spec.shape}.")
    numbers = isinstance(weights, Sequence) and all(isinstance(weight, int | float) for weight in weights)
    if not numbers or len(weights) != 2 or not min(weights) >= 0 or not 0 < sum(weights) < math.inf:
        raise ValueError(f"weights are two numbers from 0 up, of which one is above; got {weights!r}.")
    found = []
    given = x_spec
    top = len(network) - 1
    for i, f in enumerate(network[:-1]):
        given, size = output_spec(f, given), None
        if upsample == "none":
            if len(x_spec.shape) != 4 or len(given.shape) != 4:
                raise ValueError(
                    f"upsample='none' averages the image down to the size of a block's features, and those of block "
                    f"{f.name!r} are {given.shape}, of inputs {x_spec.shape}: choose transposed or bilinear."
                )
            size = (min(given.shape[1], x_spec.shape[1]), min(given.shape[2], x_spec.shape[2]))
        share = _SHIFTS[0] + i / max(top - 1, 1) * (_SHIFTS[1] - _SHIFTS[0]) if kind == "shift" else 0.0
        found.append(Image(partial(_target, share, size), DISTANCES[distance], (weights[0], weights[1])))
    return found


def _target(share: float, size: tuple[int, int] | None, image: jax.Array) -> jax.Array:
    """What a decoder predicts: the image, shifted by a share of its size, averaged down to the features' size."""
    if share:
        image = jnp.roll(image, [round(share * side) for side in image.shape[1:3]], axis=(1, 2))
    return image if size is None else adaptive_mean(image, size)
