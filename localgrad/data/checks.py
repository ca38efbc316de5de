"""What can be refused of inputs and labels by a look at them on the host, before anything is compiled."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.data.pictures import picture_array
from localgrad.tasks import Task


def as_array(values: Any, what: str) -> np.ndarray | jax.Array:
    """An array of numbers; jax arrays, traced ones too, stay where they are.

    Raises:
      ValueError: it is ragged, masked, or holds no numbers.
    """
    if not isinstance(values, jax.Array):
        if np.ma.is_masked(values):
            raise ValueError(f"{what} have masked entries: fill them, or leave those examples out.")
        given = values
        try:
            values = np.asarray(_without_palettes(values))
        except ValueError as error:
            raise ValueError(f"{what} make no array ({error}): every example must have the same shape.") from None
        except (TypeError, RuntimeError) as error:  # a tensor that has a gradient, or is of a type that numpy lacks
            raise ValueError(f"{what}, a {type(given).__name__}, make no array: {error}") from None
        if values.dtype == np.object_ and hasattr(given, "dtypes") and hasattr(given, "columns"):
            raise ValueError(
                f"{what} are no numbers in {_columns_without_numbers(given)}: leave them out, or code them."
            )
    if not _are_numbers(values.dtype):
        raise ValueError(f"{what} are {values.dtype}, not real numbers; give an array of floats or integers.")
    return values


def _without_palettes(values: Any) -> Any:
    """A picture of Pillow, or a list of some, as arrays of what one sees; anything else as it is."""
    if hasattr(values, "getbands"):
        return picture_array(values)
    if isinstance(values, list | tuple) and values and hasattr(values[0], "getbands"):
        return [_without_palettes(each) for each in values]
    return values


def _are_numbers(kind: np.dtype) -> bool:
    """Whether jax computes with a type: durations and floats of more than eight bytes are none of its own."""
    if kind.kind in "mM" or kind.itemsize > 8:
        return False
    return bool(kind == np.bool_ or jnp.issubdtype(kind, jnp.integer) or jnp.issubdtype(kind, jnp.floating))


def _columns_without_numbers(table: Any) -> str:
    """The columns of a data frame that stand in the way of an array of numbers, with their types."""
    kinds = dict(zip(map(str, table.columns), table.dtypes, strict=True))
    of_numpy = {name: isinstance(kind, np.dtype) and kind.kind in "iuf" for name, kind in kinds.items()}
    return "the columns " + ", ".join(f"{name} ({kinds[name]})" for name, is_one in of_numpy.items() if not is_one)


def as_trained(inputs: np.ndarray, trained: Any, what: str) -> np.ndarray:
    """Inputs of the type that a network is trained on: what is done to inputs is done to all alike.

    Bytes, other whole numbers, floats and truth values are four kinds.  Of another kind than training's are taken
    whole numbers for floats, and zeros and ones for truth values.

    Args:
      inputs: numbers of any shape.
      trained: the type that a network is trained on.
      what: what they are, for messages.

    Raises:
      ValueError: naming both types: they are of another kind, or do not fit.
    """
    kind, found = np.dtype(trained), inputs.dtype
    if found == kind or not inputs.size:
        return inputs.astype(kind, copy=False)
    says = f"{what} are {found}, and the network is trained on {kind}"
    is_whole = [np.issubdtype(each, np.integer) for each in (found, kind)]
    if is_whole[1] and not is_whole[0]:
        unscaled = " and scales them itself: give them unscaled, as whole numbers." if kind == np.uint8 else ""
        raise ValueError(says + (unscaled or ": give them as whole numbers."))
    if found == np.uint8 and jnp.issubdtype(kind, jnp.floating):
        raise ValueError(f"{says}, scaled by whoever made them: give these scaled in the same way, as floats.")
    plain = float if jnp.issubdtype(found, jnp.floating) else int
    (low, high), (least, most) = (plain(inputs.min()), plain(inputs.max())), _limits(kind)
    if low < least or high > most or (kind == np.bool_ and not np.isin(inputs, (0, 1)).all()):
        holds = "0 and 1 alone" if kind == np.bool_ else f"{least} to {most}"
        raise ValueError(
            f"{what} run from {low} to {high}, and the network is trained on {kind}, which holds {holds}: give them in "
            "the units of training."
        )
    return inputs.astype(kind)


def _limits(kind: np.dtype) -> tuple[float, float]:
    """The least and the greatest number that a type holds."""
    if kind == np.bool_:
        return 0, 1
    if jnp.issubdtype(kind, jnp.floating):
        return float(jnp.finfo(kind).min), float(jnp.finfo(kind).max)
    return int(np.iinfo(kind).min), int(np.iinfo(kind).max)


def check_digits(inputs: np.ndarray, kind: Any, what: str) -> None:
    """Refuses inputs to be trained on of which a narrower type keeps too few digits to tell examples apart.

    Args:
      inputs: numbers `(N, ..., D)`, as they were given.
      kind: the floating type that they become; they are scaled in float32 before they become a narrower one.
      what: what they are, for messages.

    Raises:
      ValueError: naming the column, its least and its largest number.
    """
    kind = np.dtype(jax.dtypes.canonicalize_dtype(np.float64 if kind == np.float64 else np.float32))
    if inputs.dtype.kind not in "iuf" or inputs.dtype.itemsize < 4 or not inputs.size or inputs.dtype == kind:
        return
    if inputs.ndim < 2 or not np.isfinite(inputs).all():
        return  # as is said elsewhere
    rows = inputs.reshape(-1, inputs.shape[-1])
    low, high = (end(axis=0).astype(np.float64) for end in (rows.min, rows.max))
    step = np.maximum(-low, high) * float(jnp.finfo(kind).eps)
    for column in np.flatnonzero((high > low) & (step > (high - low) / 256)):
        exact = rows[:, column].astype(np.float64)
        if np.abs(exact.astype(kind).astype(np.float64) - exact).max() > (high - low)[column] / 256:
            raise ValueError(
                f"{what} run from {float(low[column])} to {float(high[column])} in column {column}, and {kind} has "
                f"steps of {step[column]:.1g} there: subtract an offset from that column, such as its least number."
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
        least, most = _limits(kind)
        if low < least or high > most:
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
