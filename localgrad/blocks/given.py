"""What `from_linen`, `from_nnx` and networks are given, and what modules give back: refused where it is wrong."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from localgrad.base import Block, PyTree
from localgrad.keys import is_key


class RefusedError(TypeError):
    """What is wrong with a module and what to do; `named` adds whose it is."""


@contextmanager
def named(block: str) -> Iterator[None]:
    """Within it, what is refused is said of a block."""
    try:
        yield
    except RefusedError as error:
        raise TypeError(f"block {block!r}: {error}") from error.__cause__


def check_blocks(blocks: Any, what: str) -> None:
    """Refuses what is no sequence of Blocks.

    Args:
      blocks: what was given.
      what: what it is, for the message: `"network"`.

    Raises:
      TypeError: naming the first that is no Block, and how to make one of it.
    """
    if isinstance(blocks, Block):
        raise TypeError(f"{what} is one Block, {blocks.name!r}, where a list of Blocks is wanted: put it in a list.")
    if not isinstance(blocks, Sequence) or isinstance(blocks, linen.Module | nnx.Module):
        raise TypeError(f"{what} is a list of Blocks, and was given {_described(blocks)}")
    for i, block in enumerate(blocks):
        check_block(block, f"{what}[{i}]")


def check_block(block: Any, what: str) -> None:
    """Refuses what is no Block; arguments and errors as `check_blocks`."""
    if not isinstance(block, Block):
        raise TypeError(f"{what} is {_described(block)}")


def check_linen(module: Any) -> None:
    """Refuses what is no unbound linen module.

    Raises:
      TypeError: saying what was given, and what to give.
    """
    if not isinstance(module, linen.Module):
        raise TypeError(f"from_linen wants an object of a Flax linen module, and was given {_described(module)}")
    if module.scope is not None or isinstance(module.parent, linen.Module):
        raise TypeError(
            f"from_linen wants an unbound module, and this {type(module).__name__} is bound to variables or inside "
            "another module: give it module.clone(parent=None), which keeps no variables."
        )


def check_maker(make: Any) -> None:
    """Refuses what is no function from random streams to an nnx module.

    Raises:
      TypeError: saying what was given, and what to give.
    """
    is_class = isinstance(make, type)
    if (
        not callable(make)
        or isinstance(make, linen.Module | nnx.Module)
        or (is_class and not issubclass(make, nnx.Module))
    ):
        raise TypeError(f"from_nnx wants a function of nnx.Rngs that makes a module, and was given {_described(make)}")
    by_name = rngs_by_name(make, None)
    try:
        _signature(make).bind(*([] if by_name else [None]), **by_name)
    except TypeError as error:
        kind = getattr(make, "__name__", type(make).__name__)
        raise TypeError(
            f"from_nnx calls {kind} with nnx.Rngs and nothing else, which does not fit ({error}): "
            f"give it from_nnx(lambda rngs: {kind}(..., rngs=rngs))."
        ) from None


def check_made(module: Any) -> None:
    """Refuses what is no nnx module, of a function that was to make one.

    Raises:
      RefusedError: saying what it made.
    """
    if not isinstance(module, nnx.Module):
        raise RefusedError(
            f"from_nnx wants a function that makes an nnx module, and this one makes {_described(module)}"
        )


def rngs_by_name(make: Callable, rngs: Any) -> dict[str, Any]:
    """`rngs` as a keyword, where a function has it."""
    return {"rngs": rngs} if "rngs" in _signature(make).parameters else {}


def checked_output(name: str, x: jax.Array, y: Any) -> Any:
    """An output that is one array, of the batch and the dtype of the input.

    Raises:
      TypeError: naming the block, and what to do.
    """
    if isinstance(y, tuple) and len(y) == 2 and y[1] is None:  # `nn.scan` over layers that only hand an array on
        y = y[0]
    if not isinstance(y, jax.Array | np.ndarray):
        raise TypeError(
            f"block {name!r} gives a {type(y).__name__}, where a Block gives one array (B, ...): choose it, for "
            "example with call=lambda module, x, train: module(x)[0]."
        )
    if y.shape[:1] != x.shape[:1]:
        raise TypeError(
            f"block {name!r} makes {y.shape} of {x.shape}, where the first axis is the batch and stays as it is: "
            "return one row an example."
        )
    if y.dtype != x.dtype and jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"block {name!r} turns {x.dtype} into {y.dtype}: its module pins a dtype. Leave the module's dtype at its "
            f"default (None), or cast its output back to the dtype of its input."
        )
    return y


def same_state(old: PyTree, new: PyTree) -> PyTree:
    """Model state after a step, of the dtypes that it had before.

    Raises:
      RefusedError: if variables have come, gone or changed their shape.
    """
    before, after = (
        {jax.tree_util.keystr(path, simple=True, separator="/"): jnp.shape(x) for path, x in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (old, new))
    )
    for path in sorted(before | after):
        if before.get(path) != after.get(path):
            raise RefusedError(
                f"a training step turns its variable {path!r} from {before.get(path, 'nothing')} into "
                f"{after.get(path, 'nothing')}, and model state keeps its shape: make the variable where the module is "
                "initialised, or sow it."
            )
    return of_dtypes(new, old)


def of_dtypes(tree: PyTree, like: PyTree) -> PyTree:
    """Variables in the dtypes of others; keys, which are no numbers, stay as they are."""
    return jax.tree.map(lambda x, like: x if is_key(like) else jnp.asarray(x).astype(like.dtype), tree, like)


def check_params(params: PyTree) -> None:
    """Refuses parameters that have no gradient, or one that optimizers would take for another.

    Raises:
      RefusedError: naming the first.
    """
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        label = jax.tree_util.keystr(path, simple=True, separator="/")
        if jnp.issubdtype(x.dtype, jnp.complexfloating):  # jax.grad is the conjugate of the direction of ascent
            raise RefusedError(
                f"its parameter {label!r} is {x.dtype}, whose imaginary part an optimizer would move up the loss: keep "
                "real and imaginary parts as two parameters, and put them together in the call."
            )
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise RefusedError(
                f"its parameter {label!r} is {x.dtype}, which has no gradient: keep it in another collection than "
                "params (linen: self.variable('constants', ...); nnx: an nnx.Variable), or make it a float."
            )


def cast(tree: PyTree, dtype: Any, *, at_least_32: bool = False) -> PyTree:
    """Initial variables as arrays, the floats among them in the dtype of the input if that is one of floats.

    Running averages are kept in 32 bits at least: a half has too few to add a hundredth of a batch to an average.
    """
    floats = jnp.issubdtype(dtype, jnp.floating)
    if floats and at_least_32 and jnp.finfo(dtype).bits < 32:
        dtype = jnp.float32

    def convert(x: Any) -> jax.Array:
        if is_key(x):
            return x
        x = jnp.asarray(x, jnp.result_type(x))  # of that very dtype, as the next step will have it
        return x.astype(dtype) if floats and jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(convert, tree)


def lenient() -> AbstractContextManager:
    """Standard dtype promotion for Flax's own code, whose batch norm meets float64 with float32 on its way."""
    return jax.numpy_dtype_promotion("standard")


def names(parts: Any, argument: str) -> tuple[str, ...]:
    """Names as a tuple; a single string, which would be read letter by letter, is refused."""
    if isinstance(parts, str):
        raise TypeError(f"{argument} is a sequence of names: {argument}=({parts!r},).")
    return tuple(parts)


def _signature(make: Callable) -> inspect.Signature:
    """What a function, or the constructor of a class, takes; that of nnx classes says `*args` of itself."""
    if not isinstance(make, type):
        return inspect.signature(make)
    signature = inspect.signature(make.__init__)  # type: ignore[misc]
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _described(given: Any) -> str:
    """What was given, and how a Block is made of it."""
    kind = given if isinstance(given, type) else type(given)
    form = "a class of" if given is kind else "a module of"
    if issubclass(kind, linen.Module):
        made = f"{kind.__name__}(...)" if given is kind else "module"
        return f"{form} Flax linen, {kind.__name__}: make a Block of it with from_linen({made})."
    if issubclass(kind, nnx.Module):
        how = f"from_nnx(lambda rngs: {kind.__name__}(..., rngs=rngs))"
        return f"{form} Flax nnx, {kind.__name__}: make a Block of it with {how}."
    if isinstance(given, Block):
        return f"a Block already, {given.name!r}: use it as it is."
    return f"a {kind.__name__}: a Block is made by from_linen, from_nnx or Block(init, apply, name)."
