"""Inputs as they come from outside, made what a network was trained on, or refused."""

from typing import Any

import jax
import numpy as np

from localgrad.data import text
from localgrad.data.checks import as_trained, checked_inputs
from localgrad.data.columns import columns_of, in_order, row_names
from localgrad.prediction.about import About


def raw_inputs(inputs: Any, about: About) -> np.ndarray:
    """Inputs `(N, ...)` of the type that a network was trained on.

    Args:
      inputs: numbers `(N, ...)` or `(...)`, or, of a network of texts, a text or a list, an array or a column of them.
      about: what is known of the network.

    Raises:
      ValueError: they are none, of another shape or type, not finite, or beyond what the type of training holds.
    """
    texts = None if about.words is None else _texts(inputs)
    if texts is not None and about.words is not None:
        return text.encode([text.tokens(each) for each in texts], about.words, about.shape[0])
    here = np.asarray(inputs) if isinstance(inputs, jax.Array) else inputs  # whose values are looked at as well
    found = np.asarray(checked_inputs(here, "inputs"))
    columns = columns_of(inputs) or (row_names(inputs) if found.shape == about.shape else None)
    if columns is not None and about.columns is not None:
        found = in_order(found.reshape(-1, found.shape[-1]), columns, about.columns, "inputs")
    if found.shape == about.shape:
        found = found[None]
    if about.shape[-1:] == (1,) and found.shape in (about.shape[:-1], (*found.shape[:1], *about.shape[:-1])):
        found = found.reshape(-1, *about.shape)  # grey pictures without a last axis
    if not found.ndim or found.shape[1:] != about.shape or not len(found):
        raise ValueError(f"inputs are {found.shape}; this network takes (N, {', '.join(map(str, about.shape))}).")
    found = as_trained(found, about.raw_dtype, "inputs")
    if about.words is not None and (found.min() < 0 or found.max() >= len(about.words)):
        raise ValueError(
            f"inputs run from {found.min()} to {found.max()}; the numbers of words are 0 to {len(about.words) - 1}."
        )
    return found


def _texts(inputs: Any) -> list[Any] | None:
    """Texts as a list; None of what holds no text, such as the numbers of words.

    Raises:
      ValueError: there are no texts at all, texts beside something else, or texts of several axes.
    """
    if isinstance(inputs, jax.Array):
        return None
    shape: tuple[int, ...] = (1,)
    if isinstance(inputs, list | tuple):
        found = list(inputs)
    else:
        array = np.asarray(inputs)
        found, shape = array.reshape(-1).tolist() if array.dtype.kind in "OTU" else [None], array.shape
    others = [i for i, each in enumerate(found) if not isinstance(each, str)]
    if not found:
        raise ValueError("inputs are empty: give a text, or a list of at least one.")
    if len(others) == len(found):
        return None
    if len(shape) > 1:
        raise ValueError(f"inputs are texts {shape}; this network takes a list of texts, (N,): choose one column.")
    if others:
        raise ValueError(
            f"inputs[{others[0]}] is {found[others[0]]!r}; expected a text, as others are: leave it out, or give ''."
        )
    return found
