"""Codes of the classes made before the features begin: Associated Learning whose deep blocks need not wait.

The target side of a network, g and h of every block, never sees an input: its data are the C one-hot targets.  As
published it learns beside the features, one level after another, and the features of block i have nothing to learn
before level i has codes that differ.  Here the levels are made first, as part of the initialisation:

    T_0 = the C one-hot targets          T_i = g_i(T_{i-1}), one code a class
    level i: g_i, h_i descend  mean (h_i(g_i(T_{i-1})) - T_{i-1})^2  over all C codes, until it is below a bound; or
    they are set in closed form, so that g_i(T_{i-1}) is a row of a Hadamard matrix for each class.

Then they may go on learning, or are frozen: block i looks up its code of the label, T_i[y], and nothing of g and h is
in a training step.

References: ours; the losses are those of `localgrad.methods.al`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.linalg

from localgrad.base import Block, BlockState, Key, LocalBlock, Message, PyTree
from localgrad.blocks.flax import from_linen
from localgrad.losses import cross_entropy, mean_squared_error
from localgrad.methods.groups import Optimizers, first_states
from localgrad.methods.heads import Dense
from localgrad.methods.parts import Parts, Run, init_of, local_block
from localgrad.methods.profiles import Profile
from localgrad.tasks import Task

KINDS = ("learned", "first", "fixed")
RATE = 1e-2  # of the Adam that learns codes first
FIRM = 7.0  # the largest pre-activation of a g or h in closed form: sigmoid(7) = 0.9991, tanh(7) = 1 - 2e-6
_INVERSES = {"sigmoid": jax.scipy.special.logit, "tanh": jnp.arctanh, "linear": lambda x: x}
_LARGEST = {"sigmoid": 0.5, "tanh": 1.0, "linear": math.inf}  # amplitude that an activation cannot reach


class Codes(NamedTuple):
    """How codes are made before training.

    Attributes:
      kind: `first` or `fixed`.
      amplitude: of fixed codes, how far each of their numbers is from the middle of the activation's range.
      bound: a level is made once its autoencoder loss is no more than this above the least that it can be.
      steps: most steps of a level that learns.
      learn_on: g and h go on learning beside the features.
    """

    kind: str
    amplitude: float
    bound: float
    steps: int
    learn_on: bool


class Level(NamedTuple):
    """The target side of a block.

    Attributes:
      g, h: the encoder and the decoder, one dense layer each.
      g_activation, h_activation: theirs.
      loss: `(decoded, codes below) -> ` the autoencoder loss.
      floor: the least that it can be.
    """

    g: Block
    h: Block
    g_activation: str
    h_activation: str
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    floor: float

    def excess(self, h: PyTree, codes: jax.Array, below: jax.Array) -> jax.Array:
        """The autoencoder loss of the C codes `(C, n)` of the codes below `(C, m)`, above its floor."""
        return self.loss(_run(self.h, h, codes), below) - self.floor


@functools.cache  # levels of the same form are the same object, so that what learns them is compiled once
def level_of(form: Profile, width: int, below: int, first: bool) -> Level:
    """The target side of a block from `below` to `width` features; the first one's `below` is the number of outputs."""
    dense = functools.partial(Dense, kernel_init=form.kernel_init)
    h_activation = form.first_h_activation if first else form.h_activation
    loss = form.first_loss if first else mean_squared_error
    # a cross-entropy of scores in [-1, 1] cannot fall to zero, see `cross_entropy`
    floor = math.log1p((below - 1) * math.exp(-2)) if loss is cross_entropy else 0.0
    return Level(
        from_linen(dense((width,), form.g_activation), name="g"),
        from_linen(dense((below,), h_activation), name="h"),
        form.g_activation,
        h_activation,
        loss,
        floor,
    )


def checked_codes(
    kind: str, task: Task, form: Profile, width: int, amplitude: float | None, bound: float, steps: int, learn_on: bool
) -> Codes | None:
    """How codes are made before training; None where they learn beside the features alone.

    Raises:
      ValueError: for what cannot be.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown codes {kind!r} of method 'al'; there are {', '.join(KINDS)}.")
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
    most = _LARGEST[form.g_activation]
    if kind == "fixed" and not 0 < amplitude < most:
        raise ValueError(
            f"code_amplitude is above 0 and below {most}, out of reach for codes of a {form.g_activation}; got {amplitude}."
        )
    if kind == "fixed" and width < task.classes:
        raise ValueError(
            f"codes='fixed' needs a target_width of at least the number of classes, {task.classes}, for codes that are "
            f"linearly independent; got {width}. Use codes='first', or a larger target_width."
        )
    if not 0 < bound < math.inf:
        raise ValueError(f"code_bound must be positive and finite; got {bound}.")
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
      levels, blocks, states: of each block.
      targets: makes the one-hot targets of all classes `(C, C)`.
      key: draws the encoders that frozen blocks do not keep.
    """
    below = targets()
    found = []
    for i, (level, block, state) in enumerate(zip(levels, blocks, states, strict=True)):
        g, h = state.params["g"], state.params["h"]
        if codes.learn_on:
            g, h, above = make(level, codes, g, h, _run(level.g, g, below), below)
        else:
            spec = jax.ShapeDtypeStruct(below.shape, below.dtype)
            drawn = level.g.init(jax.random.fold_in(key, i), spec)[0]
            _, h, above = make(level, codes, drawn, h, g["codes"], below)
            g = {"codes": above}
        params = {**state.params, "g": g, "h": h}
        moved = first_states({names: block.tx[names] for names in state.opt_state}, params)
        found.append(state._replace(params=params, opt_state=moved))
        below = above
    return tuple(found)


@functools.partial(jax.jit, static_argnums=(0, 1))
def make(
    level: Level, codes: Codes, g: PyTree, h: PyTree, present: jax.Array, below: jax.Array
) -> tuple[PyTree, PyTree, jax.Array]:
    """Makes one level.

    Args:
      level, codes: its form, and how it is made.
      g, h: the parameters to begin with.
      present: the codes `(C, n)` that it has now, which stay if h decodes them within the bound.
      below: the codes `(C, m)` of the level below.

    Returns:
      The parameters of g and h, and the level's codes `(C, n)`.
    """
    made = level.excess(h, present, below) <= codes.bound
    if codes.kind == "first":
        new_g, new_h = _learnt(level, codes, g, h, made, below)
    else:
        signs = hadamard(*present.shape).astype(below.dtype)
        new_g, new_h = _in_closed_form(level, codes.amplitude * signs, g, h, below)
    keep = lambda old, new: jax.tree.map(lambda old, new: jnp.where(made, old, new), old, new)
    return keep(g, new_g), keep(h, new_h), keep(present, _run(level.g, new_g, below))


def _learnt(
    level: Level, codes: Codes, g: PyTree, h: PyTree, made: jax.Array, below: jax.Array
) -> tuple[PyTree, PyTree]:
    """g and h after Adam on all codes at once, until the loss is within the bound or the steps are over."""
    tx = optax.adam(RATE)
    loss = jax.value_and_grad(lambda params: level.excess(params[1], _run(level.g, params[0], below), below))

    def unfinished(carry: tuple) -> jax.Array:
        step, (value, _), _, _ = carry
        return (step < codes.steps) & ~(value <= codes.bound) & ~made

    def step(carry: tuple) -> tuple:
        step, (_, grads), params, state = carry
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return step + 1, loss(params), params, state

    with jax.numpy_dtype_promotion("standard"):  # optax mixes counts and floats
        first = (jnp.int32(0), loss((g, h)), (g, h), tx.init((g, h)))
        return jax.lax.while_loop(unfinished, step, first)[2]


def _in_closed_form(level: Level, spread: jax.Array, g: PyTree, h: PyTree, below: jax.Array) -> tuple[PyTree, PyTree]:
    """g that maps the codes below to the middle of its activation plus `spread`, and h that maps them back."""
    middle = 0.5 if level.g_activation == "sigmoid" else 0.0
    g = _fitted(g, below, _INVERSES[level.g_activation](middle + spread))
    wanted = 2 * below - 1 if level.loss is cross_entropy else below  # of classes, scores from -1 to 1
    before = _INVERSES[level.h_activation](wanted)
    before = before if level.h_activation == "linear" else jnp.clip(before, -FIRM, FIRM)
    return g, _fitted(h, _run(level.g, g, below), before)


def hadamard(count: int, width: int) -> jax.Array:
    """Signs `(count, width)`, the corner of a Sylvester matrix: rows are linearly independent if `count <= width`.

    Two rows differ in half of their places where `width` is a multiple of the power of two that is not below `count`,
    and in nearly as many otherwise.

    Examples:
      >>> hadamard(3, 4).tolist()
      [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1]]
    """
    order = 1 << (max(count, width) - 1).bit_length()
    return jnp.asarray(scipy.linalg.hadamard(order, dtype=np.int8)[:count, :width])


def _fitted(params: PyTree, x: jax.Array, y: jax.Array) -> PyTree:
    """The dense layer of least norm with `x @ kernel + bias = y`, in the form of the parameters given."""
    solved = jnp.linalg.pinv(jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1)) @ y
    (layer,) = params
    return {layer: {"kernel": solved[:-1], "bias": solved[-1]}}


def _run(block: Block, params: PyTree, x: jax.Array) -> jax.Array:
    return block.apply(params, {}, x, key=None, train=False)[0]
