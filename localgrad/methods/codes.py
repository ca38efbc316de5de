"""Codes of the classes made before the features begin: Associated Learning whose deep blocks need not wait.

The target side of a network, g and h of every block, never sees an input: its data are the C one-hot targets.  As
published it learns beside the features, one level after another, and the features of block i have nothing to learn
before level i has codes that differ.  Here the levels are made first, as part of the initialisation:

    T_0 = the C one-hot targets          T_i = g_i(T_{i-1}), one code a class
    level i: g_i, h_i descend  mean (h_i(g_i(T_{i-1})) - T_{i-1})^2  over all C codes, until it is a thousandth of
    what it is where all classes have one code (later steps of Adam can undo a linear decoder); or
    they are set in closed form, so that g_i(T_{i-1}) is a row of a Hadamard matrix for each class.

Then they may go on learning, or are frozen: block i looks up its code of the label, T_i[y], and nothing of g and h is
in a training step.

References: ours; the losses are those of `localgrad.methods.al`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from localgrad.base import Block, BlockState, Key, LocalBlock, Message, PyTree
from localgrad.losses import mean_squared_error
from localgrad.methods.groups import Optimizers, first_states
from localgrad.methods.levels import LARGEST, Codes, Level, applied, make
from localgrad.methods.parts import Parts, Run, init_of, local_block
from localgrad.methods.profiles import Profile
from localgrad.registry import check_known
from localgrad.tasks import Task

KINDS = ("learned", "first", "fixed")


def checked_codes(
    kind: str, task: Task, form: Profile, width: int, amplitude: float | None, bound: float, steps: int, learn_on: bool
) -> Codes | None:
    """How codes are made before training; None where they learn beside the features alone.

    Args:
      kind, amplitude, bound, steps, learn_on: `codes`, `code_amplitude` and so on of `al`.
      task, form: of the method.
      width: of the narrowest level.

    Raises:
      ValueError: for an unknown kind, an option of another kind, a task without classes, or a number out of range.
    """
    check_known("codes", kind, KINDS, of="method 'al'")
    if amplitude is not None and kind != "fixed":
        raise ValueError(f"code_amplitude is for codes='fixed'; got {amplitude} with codes={kind!r}.")
    if kind == "learned":
        if learn_on:
            raise ValueError("codes_learn_on is for codes='first' or 'fixed': with 'learned' they always learn.")
        return None
    if task.classes is None:
        raise ValueError(
            f"codes={kind!r} makes one code for each class before training, and {task.name} has none: its targets are "
            "known from examples alone. Use codes='learned'."
        )
    amplitude = form.code_amplitude if amplitude is None else amplitude
    most = LARGEST[form.g_activation]
    if kind == "fixed" and not 0 < amplitude < most:
        raise ValueError(
            f"code_amplitude is above 0 and below {most}, the bound of codes that are made by a {form.g_activation}; "
            f"got {amplitude}."
        )
    if kind == "fixed" and width < task.classes:
        raise ValueError(
            f"codes='fixed' needs a target_width of at least the number of classes, {task.classes}, for codes that are "
            f"linearly independent; got {width}. Use codes='first', or a larger target_width."
        )
    if not 0 < bound < 1:
        raise ValueError(f"code_bound must be above 0 and below 1; got {bound}.")
    if steps < 1:
        raise ValueError(f"code_steps must be at least 1; got {steps}.")
    return Codes(kind, float(amplitude), float(bound), int(steps), learn_on)


def frozen_block(name: str, parts: Parts, task: Task, tx: Optimizers) -> LocalBlock:
    """A block of Associated Learning that looks its code up: `loss = mean (b(f(s)) - T[y])^2`.

    Its message is `{"s": features, "y": targets of the task}`; its group g is `{"codes": T (C, n)}`.

    Args:
      name: the name in tables.
      parts: f, b, g and h, of which g is `look_up`.
      task: what the codes are of.
      tx: see `local_block`.
    """

    def step(run: Run, message: Message, key: Key):
        s = run("f", message["s"])
        bridged, code = run("b", s), run("g", message["y"])
        association = mean_squared_error(bridged, code) + task.check(message["y"], code.dtype)
        return {"s": s, "y": message["y"]}, {"loss": association, "association": association}

    def all_parts(run: Run, message: Message, key: Key) -> tuple[jax.Array, jax.Array]:
        """What initialisation draws parts for: the decoder too, which no step runs."""
        return run("b", run("f", message["s"])), run("h", run("g", message["y"]))

    block = local_block(name, parts, step, tx, fixed=("g", "h"))
    return block._replace(init=init_of(parts, all_parts, block.tx))


def look_up(classes: int, width: int, dtype: Any) -> Block:
    """Labels of any shape, N of them -> their codes `(N, width)`; the codes are zero until they are made."""

    def apply(params: PyTree, model_state: PyTree, x: jax.Array, *, key: Key | None, train: bool):
        return params["codes"][x.reshape(-1)], model_state

    return Block(lambda key, y_spec: ({"codes": jnp.zeros((classes, width), dtype)}, {}), apply, "g")


def complete(
    codes: Codes,
    levels: Sequence[Level],
    blocks: Sequence[LocalBlock],
    targets: Callable[[], jax.Array],
    key: Key,
    states: Sequence[BlockState],
) -> tuple[BlockState, ...]:
    """The states with codes made, level by level; a level whose loss is within the bound already stays as it is.

    Args:
      codes: how they are made.
      levels, blocks, states: one of each a block.
      targets: makes the one-hot targets of all classes `(C, C)`.
      key: draws the encoders that frozen blocks do not keep.
    """
    below = targets()
    found = []
    for i, (level, block, state) in enumerate(zip(levels, blocks, states, strict=True)):
        g, h = state.params["g"], state.params["h"]
        if codes.learn_on:
            g, h, above = make(level, codes, g, h, applied(level.g, g, below), below)
        else:
            spec = jax.ShapeDtypeStruct(below.shape, below.dtype)
            drawn = level.g.init(jax.random.fold_in(key, i), spec)[0]
            _, h, above = make(level, codes, drawn, h, g["codes"], below)
            g = {"codes": above}
        params = {**state.params, "g": g, "h": h}
        moved = first_states({names: block.tx[names] for names in state.opt_state}, params, jax.random.fold_in(key, i))
        found.append(state._replace(params=params, opt_state=moved))
        below = above
    return tuple(found)
