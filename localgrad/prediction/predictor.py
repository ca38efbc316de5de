"""Prediction on inputs as they come from outside, at any exit, or at the first one that is sure enough."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit, softmax

from localgrad.base import BlockState, Model
from localgrad.data.scaling import normalised, scaling
from localgrad.prediction.about import About
from localgrad.prediction.naming import as_text, check_label_names, class_names, plain_number
from localgrad.prediction.raw import raw_inputs

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
      label_names: what each class or label is called.
    """

    scores: np.ndarray
    values: np.ndarray
    probabilities: np.ndarray | None
    confidence: np.ndarray | None
    exits: np.ndarray
    label_names: tuple[str, ...] | None = None

    @property
    def plain_values(self) -> list[Any]:
        """What is predicted of each example, as JSON has it.

        Of a class its name, or its number where classes have no names; of labels the list of the names of those that
        are on, or of 0 or 1 each; of tokens a list of such; of a regression a number, or a list of several.
        """
        names = None if self.label_names is None else class_names(self.label_names, self.scores.shape[-1])
        if names is not None and self.of_named_labels:
            return [[name for name, on in zip(names, row, strict=True) if on] for row in self.values]
        one = plain_number if names is None else lambda value: names[value]
        regression = self.probabilities is None and self.values.shape[1:] == (1,)
        values = self.values[:, 0] if regression else self.values
        return [one(value) if np.ndim(value) == 0 else [one(each) for each in np.ravel(value)] for value in values]

    @property
    def names(self) -> list[str]:
        """What is predicted of each example as text: names, or numbers where there are none."""
        return [as_text(value) for value in self.plain_values]

    @property
    def of_named_labels(self) -> bool:
        """Whether an example may have several labels, which have names."""
        return self.label_names is not None and self.values.ndim == 2 and self.values.shape == self.scores.shape


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

    def __post_init__(self) -> None:
        check_label_names(self.about.label_names, self.about.task, self.about.outputs)

    def __call__(self, inputs: Any, exit: int | None = None) -> Predictions:
        """Predicts.

        Args:
          inputs: raw, `(N, ...)` of the type that the network was trained on: bytes of pictures, rows of a table; or
            texts, a list, an array or a column of them.  One example alone is an N of 1.
          exit: counts blocks from 1; None is the last.

        Raises:
          ValueError: inputs of another shape or type, or beyond it; scores that are not finite; or an exit that there
            is not.
        """
        scores = self.scores(inputs, exit)
        _check_finite(scores, np.arange(len(scores)))
        return self._told(scores, np.full(len(scores), self._checked(exit)))

    def scores(self, inputs: Any, exit: int | None = None) -> np.ndarray:
        """Scores `(N, C)` of raw inputs, finite or not; arguments and other errors as `__call__`."""
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
            here = self.scores(raw[left], exit)
            _check_finite(here, left)
            found = self._told(here, np.full(len(left), exit))
            assert found.confidence is not None
            sure = (found.confidence >= threshold) | (exit == self.exits[-1])
            scores[left[sure]], exits[left[sure]] = found.scores[sure], exit
            left = left[~sure]
        return self._told(scores, exits)

    def raw(self, inputs: Any) -> np.ndarray:
        """Inputs `(N, ...)` of the type that the network was trained on; see `__call__`."""
        return raw_inputs(inputs, self.about)

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


def _check_finite(scores: np.ndarray, rows: np.ndarray) -> None:
    """Refuses scores by which nothing can be predicted.

    Args:
      scores: `(n, ...)`.
      rows: which inputs they are of, `(n,)`.

    Raises:
      ValueError: naming the inputs whose scores are not finite.
    """
    bad = rows[~np.isfinite(scores).reshape(len(scores), -1).all(axis=1)].tolist()
    if bad:
        some = ", ".join(f"inputs[{row}]" for row in bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        raise ValueError(
            f"the network's scores of {some} are not finite. Where inputs are far larger than those of training, give "
            "them in its units; where the weights are not finite, load another checkpoint."
        )
