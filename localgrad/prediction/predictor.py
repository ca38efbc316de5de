"""Prediction on inputs as they come from outside, at any exit, or at the first one that is sure enough."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from scipy.special import expit, softmax

from localgrad.base import BlockState, Model
from localgrad.data import text
from localgrad.data.checks import as_trained, checked_inputs
from localgrad.data.columns import columns_of, in_order, row_names
from localgrad.data.scaling import normalised, scaling
from localgrad.prediction.about import About

_BATCH = 256  # examples at once; fewer are filled up to a power of two, so that few programs are compiled


class Predictions(NamedTuple):
    """What a network says of N examples.

    Attributes:
      scores: `(N, C)` as the network gives them; per token `(N, T, C)`.
      values: of classes their numbers, int `(N,)` or `(N, T)`; of labels 0 or 1 each, `(N, L)`; of a regression `(N,
        D)`.
      probabilities: of each class or label, the shape of the scores; None of a regression.
      confidence: of what is predicted: the largest probability, `(N,)` or `(N, T)`; of labels the least sure one's;
        None of a regression.
      exits: which exit said it, `(N,)`.
      label_names: what each class is called.
    """

    scores: np.ndarray
    values: np.ndarray
    probabilities: np.ndarray | None
    confidence: np.ndarray | None
    exits: np.ndarray
    label_names: tuple[str, ...] | None = None

    @property
    def names(self) -> list[str]:
        """The predicted class of each example by name; of what has no names its values as text."""
        if self.label_names is not None and self.values.ndim == 1:
            return [self.label_names[value] for value in self.values]
        return [
            str(value) if np.ndim(value) == 0 else " ".join(f"{v:.6g}" for v in np.ravel(value))
            for value in self.values
        ]


@dataclass(frozen=True)
class Predictor:
    """A trained network, with what it must be told to read inputs as they come from outside.

    Attributes:
      about: inputs, what is done to them, and what outputs mean.
      exits: the exits that it predicts at.
      run: `(raw inputs (B, ...), exit) -> scores`.
      model, states: what is behind it; None of a network that was exported.
    """

    about: About
    exits: tuple[int, ...]
    run: Callable[[jax.Array, int], jax.Array]
    model: Model | None = None
    states: tuple[BlockState, ...] | None = None

    def __call__(self, inputs: Any, exit: int | None = None) -> Predictions:
        """Predicts.

        Args:
          inputs: raw, `(N, ...)` of the type that the network was trained on: bytes of pictures, rows of a table; or
            texts, a list of them.  One example alone is an N of 1.
          exit: counts blocks from 1; None is the last.

        Raises:
          ValueError: inputs of another shape or type, or an exit that there is not.
        """
        scores = self.scores(inputs, exit)
        return self._told(scores, np.full(len(scores), self._checked(exit)))

    def scores(self, inputs: Any, exit: int | None = None) -> np.ndarray:
        """Scores `(N, C)` of raw inputs; arguments and errors as `__call__`."""
        exit, raw = self._checked(exit), self.raw(inputs)
        parts = []
        for start in range(0, len(raw), _BATCH):
            part = raw[start : start + _BATCH]
            size = min(_BATCH, 1 << (len(part) - 1).bit_length())
            filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            parts.append(np.asarray(self.run(jnp.asarray(filled), exit))[: len(part)])
        return np.concatenate(parts)

    def anytime(self, inputs: Any, threshold: float = 0.9) -> Predictions:
        """Predicts each example at the first exit whose confidence reaches a threshold, or else at the last.

        Confidences are the network's own, not calibrated; `localgrad evaluate --anytime` fits temperatures on
        validation and says what leaving early costs and saves.

        Args:
          inputs: as in `__call__`.
          threshold: of the confidence; above 1 all examples go to the last exit.

        Raises:
          ValueError: as `__call__`; for a regression, which has no confidence.
        """
        if self.about.task not in ("classification", "multilabel"):
            raise ValueError(f"{self.about.task} has no confidence of an example to leave by: choose an exit.")
        raw = self.raw(inputs)
        scores = np.zeros((len(raw), self.about.outputs), np.float64)
        exits = np.zeros(len(raw), int)
        left = np.arange(len(raw))
        for exit in self.exits:
            if not len(left):
                break
            found = self(raw[left], exit)
            assert found.confidence is not None
            sure = (found.confidence >= threshold) | (exit == self.exits[-1])
            scores[left[sure]], exits[left[sure]] = found.scores[sure], exit
            left = left[~sure]
        return self._told(scores, exits)

    def raw(self, inputs: Any) -> np.ndarray:
        """Inputs `(N, ...)` of the type that the network was trained on; see `__call__`."""
        about = self.about
        if about.words is not None and _are_texts(inputs):
            texts = [inputs] if isinstance(inputs, str) else list(inputs)
            return text.encode([text.tokens(each) for each in texts], about.words, about.shape[0])
        found = np.asarray(checked_inputs(inputs, "inputs"))
        columns = columns_of(inputs) or (row_names(inputs) if found.shape == about.shape else None)
        if columns is not None and about.columns is not None:
            found = in_order(found.reshape(-1, found.shape[-1]), columns, about.columns, "inputs")
        if found.shape == about.shape:
            found = found[None]
        if about.shape[-1:] == (1,) and found.shape in (about.shape[:-1], (len(found), *about.shape[:-1])):
            found = found.reshape(-1, *about.shape)  # grey pictures without a last axis
        if found.shape[1:] != about.shape or not len(found):
            raise ValueError(f"inputs are {found.shape}; this network takes (N, {', '.join(map(str, about.shape))}).")
        found = as_trained(found, about.raw_dtype, "inputs")
        if about.words is not None and (found.min() < 0 or found.max() >= len(about.words)):
            raise ValueError(
                f"inputs run from {found.min()} to {found.max()}; the numbers of words are 0 to {len(about.words) - 1}."
            )
        return found

    def _checked(self, exit: int | None) -> int:
        if exit is None:
            return self.exits[-1]
        if exit not in self.exits:
            raise ValueError(f"exit {exit} does not exist: there are exits {', '.join(map(str, self.exits))}.")
        return exit

    def _told(self, scores: np.ndarray, exits: np.ndarray) -> Predictions:
        task, names = self.about.task, self.about.label_names
        wide = scores.astype(np.float64)
        if task == "multilabel":
            chances = expit(wide)
            sure = np.maximum(chances, 1 - chances).min(axis=-1)
            return Predictions(scores, (scores > 0).astype(int), chances, sure, exits, names)
        if task in ("classification", "tokens"):
            chances = softmax(wide, axis=-1)
            return Predictions(scores, scores.argmax(axis=-1), chances, chances.max(axis=-1), exits, names)
        return Predictions(scores, scores, None, None, exits)


def make_predictor(model: Model, states: Sequence[BlockState], about: About) -> Predictor:
    """A predictor of a model whose states are given.

    Args:
      model: without trials.
      states: one `BlockState` a block.
      about: what the network must be told besides.

    Raises:
      ValueError: a model of several trials.
    """
    if model.trials is not None:
        raise ValueError(f"a model of {model.trials} trials: predict with one of them.")
    program = jax.jit(scoring(model, about), static_argnums=2)
    states = tuple(states)
    return Predictor(about, model.exits, lambda x, exit: program(states, x, exit), model, states)


def scoring(model: Model, about: About) -> Callable[[Sequence[BlockState], jax.Array, int], jax.Array]:
    """`(states, raw inputs, exit) -> scores`, with all that is done to inputs."""
    mean, std = about.stats or (None, None)
    dtype = model.x_spec.dtype
    kind, scale = scaling(about.like(), mean, std, dtype if jnp.issubdtype(dtype, jnp.floating) else None)

    def scores(states: Sequence[BlockState], x: jax.Array, exit: int) -> jax.Array:
        x = x.astype(dtype) if kind is None else normalised(scale, x, kind)
        return model.predict(tuple(states), x, exit)

    return scores


def _are_texts(inputs: npt.ArrayLike | str) -> bool:
    return isinstance(inputs, str) or (
        isinstance(inputs, list | tuple) and all(isinstance(each, str) for each in inputs)
    )
