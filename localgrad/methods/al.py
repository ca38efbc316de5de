"""Associated Learning: every block learns to map its input towards an encoding of the target.

Block i holds an encoder of the input side `f`, of the target side `g`, a bridge `b` and a decoder `h`:

    s_i = f_i(sg(s_{i-1}))        t_i = g_i(sg(t_{i-1}))        s_0 = x,  t_0 = onehot(y)
    loss_i = mean (b_i(s_i) - t_i)^2 + mean (h_i(t_i) - t_{i-1})^2
    exit k predicts  h_1(...h_k(b_k(f_k(...f_1(x)))))

The target side can also be made before training, see `localgrad.methods.codes`.

References:
  NECO: Kao and Chen, Associated Learning, Neural Computation 33(1), 2021, https://arxiv.org/abs/1906.05560
  ICLR: Wu et al., Associated Learning: an Alternative to End-to-End Backpropagation that Works on CNN, RNN, and
    Transformer, ICLR 2022, Eqs. 1-3
"""

import math
from collections.abc import Sequence
from functools import partial

import chex
import jax
import jax.numpy as jnp

from localgrad.base import Block, BlockState, Key, Message, Model
from localgrad.blocks import output_spec
from localgrad.blocks.flax import from_linen
from localgrad.blocks.sequences import summarised
from localgrad.losses import mean_squared_error
from localgrad.methods.codes import checked_codes, complete, frozen_block, look_up
from localgrad.methods.groups import Optimizers, check_kernels, scaled
from localgrad.methods.heads import Dense
from localgrad.methods.joined import joined_block, joined_runs_of
from localgrad.methods.levels import Level, level_of
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
from localgrad.methods.profiles import DEFAULT_PROFILE, Profile, checked_profile
from localgrad.tasks import Task


def al(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    profile: str = DEFAULT_PROFILE,
    target_width: int | Sequence[int] = 128,
    bridge: Sequence[int] | None = None,
    kernel_init: str | None = None,
    pool: int | None = None,
    stops: bool = True,
    association: str = "all",
    target_rate: float | None = None,
    codes: str = "learned",
    codes_learn_on: bool = False,
    code_amplitude: float | None = None,
    code_bound: float = 1e-3,
    code_steps: int = 5000,
) -> Model:
    """Associated Learning of a network.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier: the decoders are the output side.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs.
      classes: number of classes C, of labels 0 .. C - 1; or another task, see `localgrad.tasks`.
      tx: one optax transform over the groups f, b, g, h, or one by groups such as `{"f+b": ..., "g+h": ...}`, see
        `localgrad.methods.groups`; every block gets its own state of it.
      profile: a key of `PROFILES`.
      target_width: width n of every t_i; or a width for each block, such as NECO's on its convolutional network,
        `(256, 256, 256, 256, 1280, 1280)` of `vanilla_cnn` in blocks of 1, 1, 1, 1, 1 and 3 layers.
      bridge: hidden widths of the bridge in units of n, in place of the profile's.
      kernel_init: how the kernels of b, g and h are drawn in place of the profile's way: `he`'s normal, or `lecun`'s,
        of half the variance; deep bridges are less saturated with the latter.
      pool: the bridge averages images down to at most so many features first; None leaves them as they are.
      stops: False lets gradients flow between blocks, which are then one local block (ICLR table 6, w/o grad. stops).
      association: `all` blocks have an association loss, or only the `top` one, which needs `stops=False`.
      target_rate: what the updates of g and h are multiplied by, whatever `tx` is; None is the profile's (`neco`: 2).
      codes: `learned` beside the features, as published; `first`: g and h of every level learn from the C one-hot
        targets alone, level by level, as part of `init`; or `fixed` in closed form, see `localgrad.methods.codes`.
      codes_learn_on: codes made `first` or `fixed` go on learning beside the features; else they are frozen, and a
        block looks the code of a label up.
      code_amplitude: how far the numbers of `fixed` codes are from the middle of their activation's range; None is the
        profile's.
      code_bound: a level learns `first` until its autoencoder loss is this share of what it is where all classes have
        one code.
      code_steps: the most steps of Adam of a level that learns `first`.

    Returns:
      A `Model` whose every block is an exit.  A block above the first never sees the label, only t_{i-1}; with frozen
      codes it is given the label, which says as much as its code.

    Raises:
      ValueError: for an unknown profile, an empty network, fewer than two classes, a width below one, associations
        that leave blocks without a gradient, or codes that cannot be made before training.
    """
    network, task = check(network, classes, "al", pool)
    form = checked_profile(profile, bridge, kernel_init)
    widths = _checked_widths(target_width, len(network))
    rate = form.target_rate if target_rate is None else target_rate
    if not 0 < rate < math.inf:
        raise ValueError(f"target_rate must be positive and finite; got {target_rate}.")
    tx = tx if rate == 1 else scaled(tx, {"g": rate, "h": rate})
    if association not in ("all", "top") or (association == "top" and stops):
        raise ValueError(
            f"association is 'all', or 'top' with stops=False, without which blocks below the top learn nothing; got "
            f"{association!r} with stops={stops}."
        )
    made = checked_codes(codes, task, form, min(widths), code_amplitude, code_bound, code_steps, codes_learn_on)
    if made is not None and not stops:
        raise ValueError(f"stops=False is a form of codes='learned', where gradients reach g and h; got {codes!r}.")
    frozen = made is not None and not codes_learn_on
    dtype = jax.eval_shape(network[0].summary, output_spec(network[0], x_spec)).dtype  # what the bridge is given
    top = len(network) - 1
    below = (task.outputs, *widths)
    levels = [level_of(form, width, below[i], not i) for i, width in enumerate(widths)]
    targets = [
        look_up(task.outputs, width, dtype) if frozen else level.g for width, level in zip(widths, levels, strict=True)
    ]
    parts = [
        {"f": f, "b": _bridge(form, f, width, pool), "g": g, "h": level.h}
        for f, width, g, level in zip(network, widths, targets, levels, strict=True)
    ]
    steps = [_step(form, level, association == "all" or i == top) for i, level in enumerate(levels)]
    if stops:
        make = lambda part, step: (
            frozen_block(part["f"].name, part, task, tx) if frozen else local_block(part["f"].name, part, step, tx)
        )
        blocks = tuple(map(make, parts, steps))
        runs = lambda states, keys: runs_of(parts, states, keys)
        effective = tuple(frozenset("fbh" if i == top else "fh") for i in range(len(blocks)))
    else:
        blocks = (joined_block(parts, steps, tx),)
        runs = lambda states, keys: joined_runs_of(parts, states[0], None if keys is None else keys[0])
        effective = (frozenset("fbh"),)
    exits = tuple(range(1, len(parts) + 1))

    def enter(x: jax.Array, y: jax.Array) -> Message:
        return {"s": x, "y": y} if frozen else {"s": x, "t": task.encode(y, dtype) + task.check(y, dtype)}

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
    one_hot = lambda: task.encode(jnp.arange(task.outputs), dtype)
    check_kernels(blocks, set().union(*parts))
    return Model(
        "al", blocks, x_spec, y_spec, task, enter, predict, features, exits, effective, path=names,
        complete=None if made is None else partial(complete, made, levels, blocks, one_hot),
    )  # fmt: skip


def _checked_widths(given: int | Sequence[int], blocks: int) -> tuple[int, ...]:
    """A width of the codes for each block.

    Raises:
      ValueError: for a width below one, or widths that are not one a block.
    """
    widths = (given,) * blocks if isinstance(given, int) else tuple(given)
    if min(widths, default=0) < 1:
        raise ValueError(f"target_width must be at least 1; got {given}.")
    if len(widths) != blocks:
        raise ValueError(f"target_width is one number, or one a block, of {blocks}; got {tuple(widths)}.")
    return widths


def _bridge(form: Profile, f: Block, width: int, pool: int | None) -> Block:
    """The bridge from what heads read of f's output to codes of `width` features."""
    bridge = Dense(
        (*(width * units for units in form.bridge), width),
        form.bridge_activation,
        features=pool,
        kernel_init=form.kernel_init,
    )
    return summarised(f, from_linen(bridge, name="bridge"))


def _step(form: Profile, level: Level, associates: bool) -> Step:
    def step(run: Run, message: Message, key: Key):
        s, t = run("f", message["s"]), run("g", message["t"])
        chex.assert_rank(t, 2)
        bridged = run("b", s)
        target = jax.lax.stop_gradient(t) if form.detach_target else t
        association = mean_squared_error(bridged, target) if associates else jnp.zeros((), t.dtype)
        autoencoder = level.loss(run("h", t), message["t"])
        metrics = {"loss": association + autoencoder, "association": association, "autoencoder": autoencoder}
        return {"s": s, "t": t}, metrics

    return step
