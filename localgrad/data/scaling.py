"""Normalisation of inputs, on the device, and what is refused of its numbers."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.data.dataset import Dataset


class Scale(NamedTuple):
    """Normalisation `(inputs - mean) * inverse`, each `(C,)` of the type that it is computed in."""

    mean: jax.Array
    inverse: jax.Array


def scaling(
    dataset: Dataset, mean: np.ndarray | None, std: np.ndarray | None, dtype: Any
) -> tuple[np.dtype | None, Scale | None]:
    """The type and the normalisation of a set's inputs; nothing for texts.

    Args:
      dataset: as `looked_at` gives it.
      mean, std: scalars or `(C,)`, in units of the inputs `(N, ..., C)`; both or neither.
      dtype: floating type of what comes out; None leaves inputs as they are, such as token ids.

    Raises:
      ValueError: an argument is out of range, of texts, or lets a number grow beyond the type.
    """
    if dataset.words is not None:
        if mean is not None or std is not None:
            raise ValueError(f"{dataset.name} holds texts and takes no mean and std: its inputs are numbers of words")
        return None, None
    if dtype is None:
        if mean is not None or std is not None:
            raise ValueError(f"{dataset.name} goes through as it is and takes no mean and std")
        return None, None
    kind = _float_type(dtype)
    if mean is None and std is None:
        _check_fits(dataset, np.zeros(()), np.ones(()), kind, kind)
        return kind, None
    if mean is None or std is None:
        given, missing = ("std", "mean") if mean is None else ("mean", "std")
        raise ValueError(f"{given} is given without {missing}; expected both, see pixel_stats, or neither")
    return kind, _scale(dataset, mean, std, kind)


def _scale(dataset: Dataset, mean: np.ndarray, std: np.ndarray, kind: np.dtype) -> Scale:
    channels = dataset.inputs.shape[-1]
    given = {"mean": np.asarray(mean, np.float64), "std": np.asarray(std, np.float64)}
    for name, values in given.items():
        if values.shape not in ((), (channels,)) or not np.isfinite(values).all():
            raise ValueError(f"{name}={values}; expected one finite number, or one for each of {channels} channels")
    if not (given["std"] > 0).all():
        raise ValueError(f"std={given['std']}; expected positive numbers: use 1 for a channel that never varies")
    work = np.dtype(np.float64 if kind == np.float64 else np.float32)
    each = np.ones(channels)
    _check_fits(dataset, given["mean"], each / given["std"], work, kind)
    return Scale(jnp.asarray(given["mean"] * each, work), jnp.asarray(each / given["std"], work))


def _check_fits(dataset: Dataset, mean: np.ndarray, inverse: np.ndarray, work: np.dtype, kind: np.dtype) -> None:
    """Refuses numbers that become infinite: in the type they are computed in, or in the one that comes out."""
    if dataset.inputs.dtype.itemsize == 1:
        largest = np.asarray(255.0)
    else:
        axes = tuple(range(dataset.inputs.ndim - 1))
        low, high = (np.asarray(end(axis=axes), np.float64) for end in (dataset.inputs.min, dataset.inputs.max))
        largest = np.maximum(-low, high)
    offset = largest + abs(mean)
    with np.errstate(over="ignore"):
        steps = ((offset, work), (inverse, work), (offset * inverse, kind))
    for values, of in steps:
        if np.max(values) > float(jnp.finfo(of).max):
            raise ValueError(
                f"{dataset.name}: inputs of up to {np.max(largest):.3g} become {np.max(values):.3g}, beyond {of}: give "
                "mean and std of these inputs, see pixel_stats, or a wider dtype"
            )


def _float_type(dtype: Any) -> np.dtype:
    kind = jnp.dtype(dtype)
    if not jnp.issubdtype(kind, jnp.floating):
        raise ValueError(f"dtype={kind}; expected a floating type such as float32 or bfloat16")
    if kind == np.float64 and jax.dtypes.canonicalize_dtype(kind) != kind:
        raise ValueError("dtype=float64 while jax has 64-bit types switched off; set JAX_ENABLE_X64=1")
    return kind


def targets(dataset: Dataset, dtype: Any) -> np.ndarray:
    """The labels of a set as they are trained on: those that are floats in the type of the inputs.

    Args:
      dataset: as `looked_at` gives it.
      dtype: floating type of the inputs; None where they are left as they are.
    """
    floats = dtype is not None and jnp.issubdtype(dataset.labels.dtype, jnp.floating)
    return dataset.labels.astype(_float_type(dtype)) if floats else dataset.labels


@partial(jax.jit, static_argnums=2)
def normalised(scale: Scale | None, inputs: jax.Array, dtype: np.dtype) -> jax.Array:
    """Inputs `(..., C)` on the device, normalised unless `scale` is None, of `dtype`."""
    if scale is None:
        return inputs.astype(dtype)
    mean, inverse = (jnp.expand_dims(values, tuple(range(inputs.ndim - 1))) for values in scale)
    return ((inputs.astype(mean.dtype) - mean) * inverse).astype(dtype)
