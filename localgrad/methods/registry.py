"""Methods by name, for command lines: each with the optimizers that its papers give to its parameter groups."""

from collections.abc import Callable, Sequence

import jax
import optax

from localgrad.base import Block, Model
from localgrad.methods.al import DEFAULT_PROFILE, PROFILES, al
from localgrad.methods.groups import by_group


def _al(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: int,
    optimizer: Callable[[float], optax.GradientTransformation],
    *,
    profile: str = DEFAULT_PROFILE,
    **options,
) -> Model:
    """Two optimizers a block: one for f and b, one for g and h at the profile's rate."""
    rate = PROFILES[profile].target_rate if profile in PROFILES else 1.0  # `al` says what is wrong with a profile
    tx = by_group({"f+b": optimizer(1.0), "g+h": optimizer(rate)})
    return al(network, x_spec, classes, tx=tx, profile=profile, **options)


METHODS: dict[str, Callable[..., Model]] = {"al": _al}
