"""Blocks from Flax modules: Flax inside, plain pytrees outside."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
from flax import linen, nnx

from localgrad.base import Block, Key, PyTree
from localgrad.blocks import in_linen, in_nnx
from localgrad.blocks.given import check_linen, check_maker, checked_output, named, names


def from_linen(
    module: linen.Module,
    *,
    name: str | None = None,
    rngs: Sequence[str] = ("dropout",),
    call: Callable[[Any, jax.Array, bool], jax.Array] | None = None,
    frozen: Sequence[str] = (),
) -> Block:
    """Makes a Block of a Flax linen module.

    The module is told whether it trains by `train`, `training`, `is_training`, `deterministic`, `use_running_average`
    or `update_stats`: by arguments of its `__call__`, handed over by place so that `nn.remat` and `nn.jit` can make
    them static, or by attributes.  A submodule whose mode nobody decided, as `nn.Dropout(0.5)` in an `nn.Sequential`,
    is told as well.  A module whose dropout or batch norm would not train, or not stop in prediction, is refused.

    Collections other than `params` (batch statistics) become the block's model state, but for those that are only
    sown.  Initial params are cast to the dtype of the input, so that a network fed with float64 trains in float64, and
    so is model state, to float32 at least; those of a module that reads whole numbers stay as it makes them.

    Args:
      module: an unbound linen module whose `__call__` takes one array `(B, ...)`.
      name: the name in tables; the class name by default.
      rngs: names of the random streams that the module draws from while training.
      call: `(module, x, train) -> y`, for a module that is called in another way: with a mode of another name, with
        parts of x, by another method, or for one of several outputs.
      frozen: paths of submodules that run as in prediction while the block trains, such as `"encoder/BatchNorm_0"`;
        `""` is all of the module.  Their parameters still learn.

    Returns:
      A `Block`.

    Raises:
      TypeError: at once, for anything but an unbound linen module with one input; at `init`, if part of the module is
        not told, or draws from a stream that is not in `rngs`; at `apply`, if it does not give one array of the batch
        and dtype of its input.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import linen
      >>> block = from_linen(linen.Dense(3))
      >>> params, state = block.init(jax.random.key(0), jax.ShapeDtypeStruct((8, 4), jnp.float32))
      >>> y, state = block.apply(params, state, jnp.ones((8, 4)), key=None, train=False)
      >>> y.shape
      (8, 3)
    """
    check_linen(module)
    name = name or type(module).__name__
    with named(name):
        inside = in_linen.opened(module, names(rngs, "rngs"), call, names(frozen, "frozen"))

    def init(key: Key, x_spec: jax.ShapeDtypeStruct) -> tuple[PyTree, PyTree]:
        with named(name):
            dropped = in_linen.checked(inside, x_spec)
        params, model_state = in_linen.begin(inside, key, x_spec)
        return params, {name: x for name, x in model_state.items() if name not in dropped}

    def apply(params: PyTree, model_state: PyTree, x: jax.Array, *, key: Key | None, train: bool):
        with named(name):
            y, model_state = in_linen.run(inside, params, model_state, x, key, train)
        return checked_output(name, x, y), model_state

    return Block(init, apply, name)


def from_nnx(
    make: Callable[[nnx.Rngs], nnx.Module],
    *,
    name: str | None = None,
    call: Callable[[Any, jax.Array, bool], jax.Array] | None = None,
    frozen: Sequence[str] = (),
) -> Block:
    """Makes a Block of a Flax nnx module.

    `nnx.Param`s become params; every other variable but random streams and what is sown becomes model state, and so do
    arrays that are plain attributes; both are dicts with one entry a variable, keyed by its path, with dtypes as in
    `from_linen`.  The module's random streams are seeded anew from the key of each step.  Nothing else that a call
    changes is kept: one that makes or writes a parameter, or changes an attribute that is no array, is refused.

    Before each use `module.train()` or `module.eval()` is called; whatever has one of the names that `from_linen` lists
    as an attribute has it set, and a `__call__` that takes one is given it.  A module whose dropout or batch norm would
    still not train, or not stop in prediction, is refused.

    Args:
      make: `(rngs) -> module`, where the module takes one array `(B, ...)`; called to initialise.
      name: the name in tables; the class name by default.
      call, frozen: as in `from_linen`; a path is one of attributes, such as `"layers/0/norm"`.

    Returns:
      A `Block`.

    Raises:
      TypeError: at once, for anything but a function that makes an nnx module with one input; otherwise as
        `from_linen`.

    Examples:
      >>> import jax.numpy as jnp
      >>> block = from_nnx(lambda rngs: nnx.Linear(4, 3, rngs=rngs))
      >>> params, state = block.init(jax.random.key(0), jax.ShapeDtypeStruct((8, 4), jnp.float32))
      >>> {path: x.shape for path, x in params.items()}
      {'bias': (3,), 'kernel': (4, 3)}
    """
    check_maker(make)
    with named(name or str(getattr(make, "__name__", "of nnx"))):
        inside, kind = in_nnx.opened(make, call, names(frozen, "frozen"))
    label = name or kind

    @cache
    def check(shape: tuple[int, ...], dtype: Any) -> None:
        with named(label):
            in_nnx.check(inside, jax.ShapeDtypeStruct(shape, dtype))

    def init(key: Key, x_spec: jax.ShapeDtypeStruct) -> tuple[PyTree, PyTree]:
        check(x_spec.shape, x_spec.dtype)
        return in_nnx.begin(inside, key, x_spec)

    def apply(params: PyTree, model_state: PyTree, x: jax.Array, *, key: Key | None, train: bool):
        with named(label):
            y, model_state = in_nnx.run(inside, params, model_state, x, key, train)
        return checked_output(label, x, y), model_state

    return Block(init, apply, label)
