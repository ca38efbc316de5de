"""Whether an optimizer descends: updates are added, and one that points along the gradient makes the loss climb."""

import collections
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from localgrad.base import PyTree

_AXIS = 2  # elements along each axis of the arrays on which transforms are tried: a large network costs no more
_UPDATES = 8  # that are tried, where the first ones are zeros, as in a warm-up or with `optax.MultiSteps`


class ClimbError(ValueError):
    """An optimizer's update points along the gradient."""


class Around(optax.GradientTransformationExtraArgs):
    """A transform that says when and how far others learn, which are `descending`: it is not tried itself."""


def descending(tx: Any) -> Around:
    """The same transform, which is refused while its update is traced if that climbs.

    It is tried once with gradients of these shapes: on parameters of zeros, with a drawn gradient.

    Args:
      tx: any optax transform.

    Returns:
      A transform whose update raises `ClimbError`, naming the parameters that would move along their gradient.
    """
    if isinstance(tx, Around):
        return tx
    inner = optax.with_extra_args_support(tx)

    def update(grads: PyTree, state: PyTree, params: PyTree = None, **extra: Any) -> tuple[PyTree, PyTree]:
        found = inner.update(grads, state, params, **extra)  # what it cannot take it says itself
        if climbing := _climbing(tx.update, inner, grads, extra):
            raise ClimbError(
                f"it hands on the gradient of {', '.join(climbing)} as it is, or something that points the same way, "
                "which would be added, and the loss climb. `optax.masked` does so with what its mask leaves out: use "
                "`optax.partition`, with `optax.set_to_zero()` for what is not to learn. A transform without a rate, "
                "such as `optax.scale_by_adam()`, needs one behind it: `optax.chain(..., optax.scale(-rate))`."
            )
        return found

    return Around(inner.init, update)


# What is known of the last few transforms, by their functions: a transform's own parts need not be hashable.
_KNOWN: collections.deque[tuple[Callable, Any, list[str]]] = collections.deque(maxlen=32)


def _climbing(update: Callable, tx: optax.GradientTransformationExtraArgs, grads: PyTree, extra: PyTree) -> list[str]:
    """The paths of parameters whose updates point along their gradients."""
    own, more = jax.tree.map(_spec, grads), jax.tree.map(_spec, extra)
    small = jax.tree.map(lambda x: jax.ShapeDtypeStruct([min(n, _AXIS) for n in x.shape], x.dtype), own)
    shapes = jax.tree.flatten((small, more))
    for other, others, found in _KNOWN:
        if other == update and others == shapes:
            return found
    tried = _tried(tx, small, more)
    if tried != []:  # what holds arrays of the parameters' shapes, or looks at them, is tried on these
        tried = _tried(tx, own, more)
    found = tried or []
    _KNOWN.append((update, shapes, found))
    return found


def _tried(tx: optax.GradientTransformationExtraArgs, specs: PyTree, extra: PyTree) -> list[str] | None:
    """The paths of what climbs among parameters of these shapes; None where the transform does not take them."""
    rng = np.random.default_rng(0)
    draw = lambda x: (rng.choice([-1.0, 1.0], x.shape) * rng.uniform(0.5, 1.0, x.shape)).astype(x.dtype)
    drawn = jax.tree.map(draw, specs)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(specs)]
    along = np.zeros(len(paths))
    try:
        with _apart():
            params, more = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), specs), jax.tree.map(_ones, extra)
            # The gradient and its opposite: what both updates share, noise or a decay, says nothing of the direction.
            signs = {sign: jax.tree.map(lambda x, sign=sign: sign * x, drawn) for sign in (1, -1)}
            states = {sign: tx.init(params) for sign in signs}
            for _ in range(_UPDATES):
                for sign, grads in signs.items():
                    # a compilation of its own would take longer than the few numbers
                    updates, states[sign] = tx.update(grads, states[sign], params, **more)
                    each = jax.tree.structure(specs).flatten_up_to(updates)  # type: ignore[attr-defined]
                    pairs = zip(jax.tree.leaves(grads), each, strict=True)
                    along += [np.vdot(np.asarray(grad), np.asarray(found)).real for grad, found in pairs]
                if along.all():
                    break
    except Exception:  # it says itself, where it is traced, what it cannot take
        return None
    return [path for path, dot in zip(paths, along, strict=True) if dot > 0]


@contextmanager
def _apart() -> Iterator[None]:
    """Within it arrays have values, whatever is being traced around it, and are on the CPU if there is one."""
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        host = None
    with jax.ensure_compile_time_eval(), jax.default_device(host), jax.numpy_dtype_promotion("standard"):
        yield


def _spec(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(x), jnp.result_type(x))


def _ones(x: jax.ShapeDtypeStruct) -> jax.Array:
    return jnp.ones(x.shape, x.dtype)
