"""The published forms of Associated Learning, by name.

References: as `localgrad.methods.al`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from localgrad.blocks.layers import HE, LECUN, Initializer
from localgrad.losses import cross_entropy, mean_squared_error
from localgrad.registry import check_known


class Profile(NamedTuple):
    """One published form of Associated Learning.

    Attributes:
      detach_target: the association loss trains f and b only, not g.
      bridge: widths of the bridge's hidden layers, in units of the target width; the activation follows every layer.
      bridge_activation, g_activation, h_activation: names in `flax.linen`, or `linear`.
      first_h_activation: that of the decoder which returns to t_0.
      first_loss: the first block's autoencoder loss.
      target_rate: learning rate of g and h in units of that of f and b.
      kernel_init: draws the kernels of b, g and h.
      code_amplitude: of codes that are fixed, see `localgrad.methods.codes`.
    """

    detach_target: bool
    bridge: tuple[int, ...]
    bridge_activation: str
    g_activation: str
    h_activation: str
    first_h_activation: str
    first_loss: Callable[[jax.Array, jax.Array], jax.Array]
    target_rate: float
    kernel_init: Initializer
    code_amplitude: float


# NECO draws every kernel by He's normal (section 5.1).  The ICLR paper says nothing of it and its code leaves it to
# PyTorch; its forms are drawn as Flax draws a dense layer.
PROFILES: dict[str, Profile] = {
    "neco": Profile(True, (5,), "sigmoid", "sigmoid", "sigmoid", "sigmoid", mean_squared_error, 2.0, HE, 0.4),
    "iclr": Profile(False, (), "linear", "tanh", "tanh", "tanh", mean_squared_error, 1.0, LECUN, 0.2),
    "iclr_head": Profile(True, (), "tanh", "tanh", "linear", "tanh", cross_entropy, 1.0, LECUN, 0.2),
}
DEFAULT_PROFILE = "neco"  # experiments/results/al_profiles.json
INITIALIZERS: dict[str, Initializer] = {"he": HE, "lecun": LECUN}


def checked_profile(profile: str, bridge: Sequence[int] | None = None, kernel_init: str | None = None) -> Profile:
    """A profile by name, with another bridge and another initialisation of b, g and h if they are given.

    Raises:
      ValueError: naming those that there are.
    """
    check_known("profile", profile, PROFILES, of="method 'al'")
    if bridge is not None and (
        not isinstance(bridge, Sequence) or not all(isinstance(u, int) and u > 0 for u in bridge)
    ):
        raise ValueError(f"bridge is a sequence of positive whole numbers, in units of the target width; got {bridge}.")
    if kernel_init is not None:
        check_known("kernel_init", kernel_init, INITIALIZERS, of="method 'al'")
    form = PROFILES[profile]
    form = form if bridge is None else form._replace(bridge=tuple(bridge))
    return form if kernel_init is None else form._replace(kernel_init=INITIALIZERS[kernel_init])
