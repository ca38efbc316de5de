"""Associated Learning: every block learns to map its input towards an encoding of the target.

Block i holds an encoder of the input side `f`, of the target side `g`, a bridge `b` and a decoder `h`:

    s_i = f_i(sg(s_{i-1}))        t_i = g_i(sg(t_{i-1}))        s_0 = x,  t_0 = onehot(y)
    loss_i = mean (b_i(s_i) - t_i)^2 + mean (h_i(t_i) - t_{i-1})^2
    exit k predicts  h_1(...h_k(b_k(f_k(...f_1(x)))))

References:
  NECO: Kao and Chen, Associated Learning, Neural Computation 33(1), 2021, https://arxiv.org/abs/1906.05560
  ICLR: Wu et al., Associated Learning: an Alternative to End-to-End Backpropagation that Works on CNN, RNN, and
    Transformer, ICLR 2022, Eqs. 1-3
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from localgrad.base import Block, BlockState, Key, Message, Model
from localgrad.blocks import output_spec
from localgrad.blocks.flax import from_linen
from localgrad.blocks.layers import HE, LECUN, Initializer
from localgrad.blocks.sequences import summarised
from localgrad.losses import cross_entropy, mean_squared_error
from localgrad.methods.groups import Optimizers, scaled
from localgrad.methods.heads import Dense
from localgrad.methods.joined import joined_block, joined_runs_of
from localgrad.methods.parts import (
    Run,
    Step,
    check,
    checked_exit,
    local_block,
    names_of,
    runs_of,
    summaries_of,
)
from localgrad.tasks import Task


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


# NECO draws every kernel by He's normal (section 5.1).  The ICLR paper says nothing of it and its code leaves it to
# PyTorch; its forms are drawn as Flax draws a dense layer.
PROFILES: dict[str, Profile] = {
    "neco": Profile(True, (5,), "sigmoid", "sigmoid", "sigmoid", "sigmoid", mean_squared_error, 2.0, HE),
    "iclr": Profile(False, (), "linear", "tanh", "tanh", "tanh", mean_squared_error, 1.0, LECUN),
    "iclr_head": Profile(True, (), "tanh", "tanh", "linear", "tanh", cross_entropy, 1.0, LECUN),
}
DEFAULT_PROFILE = "neco"  # experiments/results/al_profiles.json


def al(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    profile: str = DEFAULT_PROFILE,
    target_width: int = 128,
    bridge: Sequence[int] | None = None,
    pool: int | None = None,
    stops: bool = True,
    association: str = "all",
    target_rate: float | None = None,
) -> Model:
    """Associated Learning of a network.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier: the decoders are the output side.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs.
      classes: number of classes C, of labels 0 .. C - 1; or another task, see `localgrad.tasks`.
      tx: one optax transform over the groups f, b, g, h, or one by groups such as `{"f+b": ..., "g+h": ...}`, see
        `localgrad.methods.groups`; every block gets its own state of it.
      profile: a key of `PROFILES`.
      target_width: width n of every t_i.
      bridge: hidden widths of the bridge in units of n, in place of the profile's.
      pool: the bridge averages images down to at most so many features first; None leaves them as they are.
      stops: False lets gradients flow between blocks, which are then one local block (ICLR table 6, w/o grad. stops).
      target_rate: what the updates of g and h are multiplied by, whatever `tx` is; None is the profile's (`neco`: 2).
      association: `all` blocks have an association loss, or only the `top` one, which needs `stops=False`.

    Returns:
      A `Model` whose every block is an exit.  A block above the first never sees the label, only t_{i-1}.

    Raises:
      ValueError: for an unknown profile, an empty network, fewer than two classes, a width below one, or associations
        that leave blocks without a gradient.
    """
    network, task = check(network, classes, "al", pool)
    form = checked_profile(profile, bridge)
    if target_width < 1:
        raise ValueError(f"target_width must be at least 1; got {target_width}.")
    rate = form.target_rate if target_rate is None else target_rate
    if not 0 < rate < math.inf:
        raise ValueError(f"target_rate must be positive and finite; got {target_rate}.")
    tx = tx if rate == 1 else scaled(tx, {"g": rate, "h": rate})
    parts = [
        _parts(form, f, target_width, task.outputs if i == 0 else target_width, i == 0, pool)
        for i, f in enumerate(network)
    ]
    if association not in ("all", "top") or (association == "top" and stops):
        raise ValueError(
            f"association is 'all', or 'top' with stops=False, without which blocks below the top learn nothing; got "
            f"{association!r} with stops={stops}."
        )
    top = len(parts) - 1
    steps = [
        _step(
            form.detach_target,
            form.first_loss if i == 0 else mean_squared_error,
            associates=association == "all" or i == top,
        )
        for i in range(len(parts))
    ]
    if stops:
        blocks = tuple(local_block(part["f"].name, part, step, tx) for part, step in zip(parts, steps, strict=True))
        runs = lambda states, keys: runs_of(parts, states, keys)
        effective = tuple(frozenset("fbh" if i == top else "fh") for i in range(len(blocks)))
    else:
        blocks = (joined_block(parts, steps, tx),)
        runs = lambda states, keys: joined_runs_of(parts, states[0], None if keys is None else keys[0])
        effective = (frozenset("fbh"),)
    exits = tuple(range(1, len(parts) + 1))
    dtype = jax.eval_shape(network[0].summary, output_spec(network[0], x_spec)).dtype  # what the bridge is given

    def enter(x: jax.Array, y: jax.Array) -> Message:
        return {"s": x, "t": task.encode(y, dtype) + task.check(y, dtype)}

    def path(states: tuple[BlockState, ...], x: jax.Array, exit: int, keys: Sequence[Key] | None = None):
        """The outputs of f up to an exit, and of the bridge and the decoders behind it; the last are the scores."""
        used, outputs, behind = runs(states, keys)[:exit], [], []
        for run in used:
            x = run("f", x)
            outputs.append(x)
        for group, run in [("b", used[-1]), *(("h", run) for run in reversed(used))]:
            x = run(group, x)
            behind.append(x)
        return outputs, behind

    def predict(states: tuple[BlockState, ...], x: jax.Array, exit: int | None = None) -> jax.Array:
        return task.shaped(path(states, x, checked_exit(exits, exit))[1][-1], x)

    def features(states: tuple[BlockState, ...], x: jax.Array, keys: Sequence[Key] | None = None) -> list[jax.Array]:
        outputs, behind = path(states, x, len(parts), keys)
        return [*summaries_of(parts, outputs), *behind]

    names = (*names_of(parts), f"b {top + 1}", *(f"h {i + 1}" for i in range(top, 0, -1)), "scores")
    y_spec = task.y_spec(x_spec)
    return Model("al", blocks, x_spec, y_spec, task, enter, predict, features, exits, effective, path=names)


def checked_profile(profile: str, bridge: Sequence[int] | None = None) -> Profile:
    """A profile by name, with another bridge if one is given.

    Raises:
      ValueError: naming those that there are.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r} of method 'al'; there are {', '.join(PROFILES)}.")
    if bridge is not None and (
        not isinstance(bridge, Sequence) or not all(isinstance(u, int) and u > 0 for u in bridge)
    ):
        raise ValueError(f"bridge is a sequence of positive whole numbers, in units of the target width; got {bridge}.")
    return PROFILES[profile] if bridge is None else PROFILES[profile]._replace(bridge=tuple(bridge))


def _parts(form: Profile, f: Block, width: int, below: int, first: bool, pool: int | None) -> dict[str, Block]:
    """The four functions of a block whose target side goes from `below` to `width` features."""
    h_activation = form.first_h_activation if first else form.h_activation
    bridge = (*(width * units for units in form.bridge), width)
    dense = partial(Dense, kernel_init=form.kernel_init)
    return {
        "f": f,
        "b": summarised(f, from_linen(dense(bridge, form.bridge_activation, features=pool), name="bridge")),
        "g": from_linen(dense((width,), form.g_activation), name="g"),
        "h": from_linen(dense((below,), h_activation), name="h"),
    }


def _step(detach_target: bool, reconstruction: Callable[[jax.Array, jax.Array], jax.Array], associates: bool) -> Step:
    def step(run: Run, message: Message, key: Key):
        s, t = run("f", message["s"]), run("g", message["t"])
        chex.assert_rank(t, 2)
        bridged = run("b", s)
        target = jax.lax.stop_gradient(t) if detach_target else t
        association = mean_squared_error(bridged, target) if associates else jnp.zeros((), t.dtype)
        autoencoder = reconstruction(run("h", t), message["t"])
        metrics = {"loss": association + autoencoder, "association": association, "autoencoder": autoencoder}
        return {"s": s, "t": t}, metrics

    return step
