"""What a network learns: the targets, their loss, and how good a prediction is.

Nothing outside of a `Task` knows what a label is.  Wherever a method takes one, a whole number stands for
`classification` of so many classes.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from localgrad.losses import cross_entropy, mean_squared_error, unless_known


class Score(NamedTuple):
    """How good predictions are.

    Attributes:
      of: `(scores, y) -> (B,)`, a number for each example.
      best: `max` or `min`.
      percent: it is shown times 100.
    """

    of: Callable[[jax.Array, jax.Array], jax.Array]
    best: str = "max"
    percent: bool = False

    def shown(self, mean: Any) -> Any:
        """A mean over examples, in the unit of records and tables."""
        return 100.0 * mean if self.percent else 1.0 * mean


class Task(NamedTuple):
    """A kind of targets y.

    Attributes:
      name: what messages call it.
      outputs: width C of the scores.
      y_spec: shape and dtype of a batch of inputs -> of its targets.
      encode: `(y, dtype) -> (N, C)`: the targets in the space of the scores; what Associated Learning calls t_0.
      loss: `(scores (N, C), y) -> ` a scalar, a mean over examples; NaN where a target is none.
      check: `(y, dtype) -> ` zero, or NaN if any target is none, to be added to losses that do without `loss`.
      scores: by name; the first chooses the best epoch.
      classes: number of classes, or None where there are none.
      per_token: N is B T: scores and targets are for every place of a sequence, and heads read every place.
      ahead: targets are what comes next, so that a network which looks ahead would copy them.
    """

    name: str
    outputs: int
    y_spec: Callable[[jax.ShapeDtypeStruct], jax.ShapeDtypeStruct]
    encode: Callable[[jax.Array, Any], jax.Array]
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    check: Callable[[jax.Array, Any], jax.Array]
    scores: Mapping[str, Score]
    classes: int | None = None
    per_token: bool = False
    ahead: bool = False

    def shaped(self, scores: jax.Array, x: jax.Array) -> jax.Array:
        """Scores `(N, C)` of inputs x as they are predicted: per token `(B, T, C)`."""
        return scores.reshape(len(x), -1, scores.shape[-1]) if self.per_token else scores


def classification(classes: int) -> Task:
    """Integer labels 0 .. C - 1, one for each example: cross-entropy, accuracy.

    Raises:
      ValueError: for fewer than two classes.

    Examples:
      >>> task = classification(3)
      >>> task.encode(jnp.array([2]), jnp.float32).tolist()
      [[0.0, 0.0, 1.0]]
    """
    _check_size("classes", classes, 2)
    hot = lambda y, dtype: jax.nn.one_hot(y, classes, dtype=dtype)
    check = lambda y, dtype: unless_known(y, classes, dtype)
    return Task(
        "classification",
        classes,
        lambda x: jax.ShapeDtypeStruct(x.shape[:1], jnp.int32),
        hot,
        lambda scores, y: cross_entropy(scores, hot(y, scores.dtype)) + check(y, scores.dtype),
        check,
        {"accuracy": Score(lambda scores, y: jnp.argmax(scores, axis=-1).astype(y.dtype) == y, percent=True)},
        classes,
    )


def regression(outputs: int = 1) -> Task:
    """Vectors of finite numbers `(B, D)`: mean squared error.

    Raises:
      ValueError: for fewer than one output.
    """
    _check_size("outputs", outputs, 1)
    away = lambda scores, y: jnp.mean(jnp.square(scores - y), axis=-1)
    check = lambda y, dtype: _nan_unless(jnp.all(jnp.isfinite(y)), dtype)
    return Task(
        "regression",
        outputs,
        lambda x: jax.ShapeDtypeStruct((x.shape[0], outputs), _float_of(x)),
        lambda y, dtype: y.astype(dtype),
        lambda scores, y: mean_squared_error(scores, y.astype(scores.dtype)) + check(y, scores.dtype),
        check,
        {"mean_squared_error": Score(away, "min")},
    )


def multilabel(labels: int) -> Task:
    """Any number of labels for each example, 0 or 1 each, `(B, L)`: binary cross-entropy.

    Its scores: the share of labels that are right, and of examples all of whose labels are.

    Raises:
      ValueError: for fewer than one label.
    """
    _check_size("labels", labels, 1)
    check = lambda y, dtype: _nan_unless(jnp.all((y == 0) | (y == 1)), dtype)
    right = lambda scores, y: (scores > 0) == (y > 0)

    def loss(scores: jax.Array, y: jax.Array) -> jax.Array:
        entropies = optax.losses.sigmoid_binary_cross_entropy(scores, y.astype(scores.dtype))
        return jnp.mean(entropies) + check(y, scores.dtype)

    return Task(
        "multilabel",
        labels,
        lambda x: jax.ShapeDtypeStruct((x.shape[0], labels), jnp.int32),
        lambda y, dtype: y.astype(dtype),
        loss,
        check,
        {
            "label_accuracy": Score(lambda scores, y: jnp.mean(right(scores, y), axis=-1), percent=True),
            "exact": Score(lambda scores, y: jnp.all(right(scores, y), axis=-1), percent=True),
        },
    )


def tokens(vocabulary: int, *, ahead: bool = False) -> Task:
    """A token id for every place of a sequence, `(B, T)`: cross-entropy, accuracy by token.

    Blocks hand on `(B, T, D)`.

    Args:
      vocabulary: number of ids.
      ahead: the targets are the next tokens, which blocks must not see: `localgrad.blocks.looks_ahead` finds one that
        does, and a run by the command line refuses it.

    Raises:
      ValueError: for a vocabulary below two.
    """
    _check_size("vocabulary", vocabulary, 2)
    flat = classification(vocabulary)
    return flat._replace(
        name="tokens",
        y_spec=lambda x: jax.ShapeDtypeStruct(x.shape[:2], jnp.int32),
        encode=lambda y, dtype: flat.encode(y.reshape(-1), dtype),
        loss=lambda scores, y: flat.loss(scores, y.reshape(-1)),
        check=lambda y, dtype: flat.check(y.reshape(-1), dtype),
        scores={
            "token_accuracy": Score(
                lambda s, y: jnp.mean(jnp.argmax(s, axis=-1).astype(y.dtype) == y, axis=-1), percent=True
            ),
        },
        per_token=True,
        ahead=ahead,
    )


def as_task(task: Task | int) -> Task:
    """A task; a whole number is that of a classification.

    Raises:
      TypeError: for anything else.
    """
    if isinstance(task, Task):
        return task
    if isinstance(task, bool) or not hasattr(task, "__index__"):
        raise TypeError(f"a task is one of `localgrad.tasks`, or a number of classes; got {task!r}.")
    return classification(int(task))


def _check_size(name: str, size: int, least: int) -> None:
    if isinstance(size, bool) or not hasattr(size, "__index__") or size < least:
        raise ValueError(f"{name} must be at least {least}; got {size}.")


def _nan_unless(fine: jax.Array, dtype: Any) -> jax.Array:
    """Zero, or NaN; a constant beside the loss, so that the gradient is computed as without it."""
    return jax.lax.stop_gradient(jnp.where(fine, 0, jnp.nan).astype(dtype))


def _float_of(x: jax.ShapeDtypeStruct) -> Any:
    return x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.zeros(0).dtype
