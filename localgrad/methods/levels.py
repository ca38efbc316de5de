"""One level of Associated Learning's target side, and how its codes are made before training.

See `localgrad.methods.codes`.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from localgrad.base import Block, PyTree
from localgrad.blocks.flax import from_linen
from localgrad.losses import cross_entropy, mean_squared_error
from localgrad.methods.heads import Dense
from localgrad.methods.profiles import Profile

RATE = 1e-2  # of the Adam that learns codes first
FIRM = 7.0  # the largest pre-activation of a g or h in closed form: sigmoid(7) = 0.9991, tanh(7) = 1 - 2e-6
_INVERSES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "sigmoid": jax.scipy.special.logit,
    "tanh": jnp.arctanh,
    "linear": lambda x: x,
}
LARGEST = {"sigmoid": 0.5, "tanh": 1.0, "linear": math.inf}  # amplitude that an activation cannot reach


class Codes(NamedTuple):
    """How codes are made before training.

    Attributes:
      kind: `first` or `fixed`.
      amplitude: of fixed codes, how far each of their numbers is from the middle of the activation's range.
      bound: a level is made once its autoencoder loss is below this share of its loss where all classes have one code.
      steps: most steps of a level that learns.
      learn_on: whether g and h go on learning beside the features.
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
      g_activation, h_activation: their activations, `sigmoid`, `tanh` or `linear`.
      loss: `(decoded, codes below) -> scalar`, the autoencoder loss.
      floor: the least that the loss can be.
    """

    g: Block
    h: Block
    g_activation: str
    h_activation: str
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    floor: float

    def most(self, bound: float, below: jax.Array) -> jax.Array:
        """The loss at which the codes are made: `bound` of the way from its floor to that of one code for all classes.

        One code is best decoded as the mean of the codes below `(C, m)`, whose loss is their variance, or log C.
        """
        as_one = self.loss(jnp.broadcast_to(jnp.mean(below, axis=0, keepdims=True), below.shape), below)
        return self.floor + bound * (as_one - self.floor)


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
    most = level.most(codes.bound, below)
    made = level.loss(applied(level.h, h, present), below) <= most
    if codes.kind == "first":
        most = jnp.where(made, jnp.inf, most)  # nothing is left to learn
        new_g, new_h = _learnt(level, codes.steps, most, g, h, below)
    else:
        signs = hadamard(*present.shape).astype(below.dtype)
        new_g, new_h = _in_closed_form(level, codes.amplitude * signs, g, h, below)
    keep = lambda old, new: jax.tree.map(lambda old, new: jnp.where(made, old, new), old, new)
    return keep(g, new_g), keep(h, new_h), keep(present, applied(level.g, new_g, below))


def _learnt(level: Level, steps: int, most: jax.Array, g: PyTree, h: PyTree, below: jax.Array) -> tuple[PyTree, PyTree]:
    """g and h after Adam on all codes at once, until the loss is `most` or the steps are over."""
    tx = optax.adam(RATE)
    loss = jax.value_and_grad(
        lambda params: level.loss(applied(level.h, params[1], applied(level.g, params[0], below)), below)
    )

    def unfinished(carry: tuple) -> jax.Array:
        step, (value, _), _, _ = carry
        return (step < steps) & ~(value <= most)

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
    return g, _fitted(h, applied(level.g, g, below), before)


def hadamard(count: int, width: int) -> jax.Array:
    """Signs `(count, width)`, the corner of a Sylvester matrix: rows are linearly independent if `count <= width`.

    Two rows differ in half of their places where `width` is a multiple of the power of two that is not below `count`,
    and in nearly as many otherwise.

    Examples:
      >>> hadamard(3, 4).tolist()
      [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1]]
    """
    import scipy.linalg  # here: it takes a fifth of a second, and only `fixed` codes need it

    order = 1 << (max(count, width) - 1).bit_length()
    return jnp.asarray(scipy.linalg.hadamard(order, dtype=np.int8)[:count, :width])


def _fitted(params: PyTree, x: jax.Array, y: jax.Array) -> PyTree:
    """The dense layer of least norm with `x @ kernel + bias = y`, in the form of the parameters given."""
    solved = jnp.linalg.pinv(jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1)) @ y
    (layer,) = params
    return {layer: {"kernel": solved[:-1], "bias": solved[-1]}}


def applied(block: Block, params: PyTree, x: jax.Array) -> jax.Array:
    """What a dense layer makes of `x`, in prediction."""
    return block.apply(params, {}, x, key=None, train=False)[0]
