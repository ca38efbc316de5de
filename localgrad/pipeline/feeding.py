"""How batches come into an engine: looked at, numbered, and made the first block's message."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from localgrad.base import NEXT, Batches, Message, Model


def check_batches(model: Model, batches: Batches) -> None:
    """Refuses batches of another size than the model's, while their program is traced.

    Raises:
      TypeError: for anything but `Batches`.
      ValueError: naming both sizes.
    """
    if not isinstance(batches, Batches):
        raise TypeError(f"run takes Batches, as localgrad.data.batches or a source makes them; got {type(batches)}.")
    size = getattr(batches.fetch.func, "batch_size", model.batch_size)
    if size != model.batch_size:
        raise ValueError(
            f"batches of {size} examples for a model of batches of {model.batch_size}: make the model with an x_spec "
            f"of {size} examples, or batches of {model.batch_size}."
        )


def number(batch_id: jax.Array, counted: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The number of a batch and that of the next: what the batch brings, or what was counted where it says `NEXT`."""
    batch_id = jnp.where(batch_id == NEXT, counted, batch_id)
    return batch_id, jnp.where(batch_id >= 0, batch_id + 1, counted)


def numbers(given: Sequence[int], counted: int) -> tuple[list[int], int]:
    """The numbers of some batches and that of the next, on the host; see `number`.

    Examples:
      >>> numbers([NEXT, 7, NEXT], 3)
      ([3, 7, 8], 9)
    """
    found = []
    for batch_id in given:
        found.append(counted if batch_id == NEXT else int(batch_id))
        counted = found[-1] + 1
    return found, counted


def enter(model: Model, examples: tuple[jax.Array, jax.Array]) -> Message:
    """The first block's message of examples (x, y), of a batch or of a part of one.

    Raises:
      ValueError: while it is traced, for examples of another shape or dtype than the model was made for.
    """
    x, y = examples
    axis = model.batch_axis
    of_part = lambda spec: (*spec.shape[:axis], *x.shape[axis : axis + 1], *spec.shape[axis + 1 :])
    if x.shape != of_part(model.x_spec) or x.dtype != model.x_spec.dtype:
        raise ValueError(
            f"a batch of inputs is {x.dtype}{list(x.shape)}, and the model was made for {model.x_spec.dtype}"
            f"{list(model.x_spec.shape)}: give both the same shape and dtype."
        )
    whole = jnp.issubdtype(model.y_spec.dtype, jnp.integer)
    if y.shape != of_part(model.y_spec) or (whole and not jnp.issubdtype(y.dtype, jnp.integer)):
        raise ValueError(
            f"the targets of a batch are {y.dtype}{list(y.shape)}, and the model's task, {model.task.name}, wants "
            f"{'whole numbers' if whole else 'numbers'} of shape {list(of_part(model.y_spec))}, the first axis one for "
            "each example."
        )
    return jax.lax.optimization_barrier(model.enter(*jax.lax.optimization_barrier((x, y.astype(model.y_spec.dtype)))))
