"""What can be refused of inputs and labels by a look at them on the host, before anything is compiled."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.tasks import Task


def as_array(values: Any, what: str) -> np.ndarray | jax.Array:
    """An array of numbers; jax arrays, traced ones too, stay where they are.

    Raises:
      ValueError: it is ragged, masked, or holds no numbers.
    """
    if not isinstance(values, jax.Array):
        if np.ma.is_masked(values):
            raise ValueError(f"{what} have masked entries: fill them, or leave those examples out.")
        try:
            values = np.asarray(values)
        except ValueError as error:
            raise ValueError(f"{what} make no array ({error}): every example must have the same shape.") from None
    kind = values.dtype
    if not (kind == np.bool_ or jnp.issubdtype(kind, jnp.integer) or jnp.issubdtype(kind, jnp.floating)):
        raise ValueError(f"{what} are {kind}, not real numbers; give an array of floats or integers.")
    return values


def check_kind(found: Any, trained: Any, what: str) -> None:
    """Refuses bytes where training had floats, and the other way round: what is done to inputs is done to all alike.

    Args:
      found: the type of inputs.
      trained: the type that a network is trained on.
      what: what they are, for messages.

    Raises:
      ValueError: naming both types.
    """
    is_bytes = [np.dtype(kind) == np.uint8 for kind in (found, trained)]
    is_floats = [jnp.issubdtype(kind, jnp.floating) for kind in (found, trained)]
    if is_bytes[0] and is_floats[1]:
        raise ValueError(
            f"{what} are {found}, and the network is trained on {trained}, scaled by whoever made them: give these "
            "scaled in the same way, as floats."
        )
    if is_floats[0] and is_bytes[1]:
        raise ValueError(
            f"{what} are {found}, and the network is trained on {trained} and scales them itself: give them unscaled."
        )


def checked_labels(labels: Any, what: str, classes: int | None = None) -> np.ndarray | jax.Array:
    """Class labels as int32, each looked at where its value is at hand: not that of a traced array.

    Args:
      labels: integers of any shape, in anything that numpy makes an array of.
      what: what they are and where from, for messages.
      classes: number of classes; None where it is not known.

    Returns:
      int32, of the kind of array that was given.

    Raises:
      ValueError: they are no integers, negative, too large, or outside of `0 .. classes - 1`.
    """
    labels = as_array(labels, what)
    limit = np.iinfo(np.int32).max if classes is None else classes - 1
    wanted = "integers from 0 on" if classes is None else f"integers from 0 to {limit}"
    if labels.dtype == np.bool_:
        raise ValueError(f"{what} are booleans; expected {wanted}: of two classes give labels.astype('int32').")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"{what} are {labels.dtype}; expected {wanted}. Give labels.astype('int32') if they are whole numbers, and "
            "scores.argmax(-1) of one-hot rows or scores."
        )
    if labels.size and _at_hand(labels):
        host = np.asarray(labels)
        low, high = int(host.min()), int(host.max())
        if low < 0 or high > limit:
            unlabelled = " A label of -1 marks a split or an example without labels: leave it out." if low == -1 else ""
            raise ValueError(f"{what} run from {low} to {high}; expected 0 to {limit}.{unlabelled}")
    return labels if labels.dtype == np.int32 else labels.astype(np.int32)


def checked_inputs(inputs: Any, what: str) -> np.ndarray | jax.Array:
    """Inputs of a type that jax computes with; those on the host are looked at once.

    Args:
      inputs: numbers of any shape, in anything that numpy makes an array of.
      what: what they are and where from, for messages.

    Returns:
      The same array, or one of the 32-bit type that jax would make of it with 64-bit types switched off.

    Raises:
      ValueError: they are no numbers, NaN or infinite, or do not fit that type.
    """
    inputs = as_array(inputs, what)
    if isinstance(inputs, jax.Array) or inputs.dtype == np.bool_ or not inputs.size:
        return inputs
    kind = np.dtype(jax.dtypes.canonicalize_dtype(inputs.dtype))
    if kind == inputs.dtype and not jnp.issubdtype(kind, jnp.floating):
        return inputs  # nothing can be wrong with them
    with np.errstate(all="ignore"):  # a comparison with NaN is what is looked for
        low, high = inputs.min(), inputs.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError(
                f"{what} hold {_not_finite(inputs)}; expected finite numbers: mend or leave out the example."
            )
        limits = jnp.finfo(kind) if jnp.issubdtype(kind, jnp.floating) else jnp.iinfo(kind)
        if low < limits.min or high > limits.max:
            raise ValueError(
                f"{what} run from {low} to {high}, which {kind} does not hold, and jax has 64-bit types switched off: "
                "scale them, or set JAX_ENABLE_X64=1."
            )
    return inputs if inputs.dtype == kind else inputs.astype(kind)


def checked_targets(targets: Any, what: str, task: Task, x_spec: jax.ShapeDtypeStruct) -> np.ndarray | jax.Array:
    """Targets of a task that is no classification, of its type: whole numbers as int32, others as floats.

    Args:
      targets: numbers, in anything that numpy makes an array of.
      what: what they are and where from, for messages.
      task: whose they are.
      x_spec: of the inputs that they belong to.

    Raises:
      ValueError: as `checked_inputs`, and for floats where the task wants whole numbers.
    """
    found = checked_inputs(targets, what)
    wanted = task.y_spec(x_spec).dtype
    if jnp.issubdtype(wanted, jnp.integer):
        if not (found.dtype == np.bool_ or jnp.issubdtype(found.dtype, jnp.integer)):
            raise ValueError(f"{what} are {found.dtype}; expected whole numbers.")
        return found if found.dtype == wanted else found.astype(wanted)
    return found if jnp.issubdtype(found.dtype, jnp.floating) else found.astype(wanted)


def channels_first(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """A hint for pictures whose channels stand in front of height and width; "" for all others.

    Args:
      found: shape of an example's inputs, or of a batch of them.
      wanted: shape of an example's.

    Examples:
      >>> channels_first((9, 3, 8, 8), (8, 8, 3))[:24], channels_first((8, 8, 3), (8, 8, 1))
      (' Its channels come first', '')
    """
    if len(wanted) != 3 or found[-3:] != (wanted[2], *wanted[:2]) or found[-3:] == wanted:
        return ""
    return " Its channels come first, as PyTorch has them: give them last, images.permute(0, 2, 3, 1) of a batch."


def _at_hand(array: np.ndarray | jax.Array) -> bool:
    """Whether this process can read the values: not those of a traced array, nor those on other machines."""
    return not isinstance(array, jax.core.Tracer) and getattr(array, "is_fully_addressable", True)


def _not_finite(inputs: np.ndarray) -> str:
    """The first value that is not finite, and its place."""
    place = np.argwhere(~np.isfinite(inputs))[0].tolist()
    return f"{inputs[tuple(place)]} at {place}"
