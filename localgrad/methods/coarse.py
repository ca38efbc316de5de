"""Coarse labels low and fine labels high: lower blocks learn to tell groups of classes apart.

    loss of a coarse block = its rule's own, of m(y) in the place of y      m: class -> coarse class
    p(coarse class) = sum of p(c) over the classes c in it

A block's classifier keeps a score for each class, and what it learns is the probability of the group: the sum of those
of its classes.  So every exit has scores of the same form; those of a coarse block do not tell the classes of a group
apart.  Losses that compare labels (`predsim`, `scl`) compare groups there.

References:
  NOTES, a researcher's log: easier tasks for earlier layers, such as two classes instead of ten
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import Key, LocalBlock, Message, Model
from localgrad.methods.parts import Run, local_block, needs_classes

_CLASSIFIERS = ("probe", "pred", "aux", "head")  # what the methods call the group that makes an exit's scores


def coarse_to_fine(model: Model, coarse: Sequence[Sequence[int] | None]) -> Model:
    """Gives the lower blocks of a local rule coarser labels.

    Args:
      model: of a rule whose blocks wait for nothing and learn from labels, such as `early_exit`, `dgl`, `predsim`,
        `scl` or `auglocal`.
      coarse: for each block from the first on the coarse class of each class, such as `[(0, 0, 1, 1)]`; None, and
        blocks that are not named, learn the classes themselves.

    Returns:
      The model; its message, its exits and its parameters are as before.

    Raises:
      ValueError: for a rule that is not as above, a task without classes, more blocks than lie below the last, or what
        gives no coarse class to each class, or one and the same to all.
    """
    needs_classes(model.task, model.method, "coarse labels are of classes")
    classes = int(model.task.classes)
    if len(coarse) >= len(model.blocks):
        raise ValueError(
            f"coarse labels are of blocks below the last, {len(model.blocks) - 1} here; got {len(coarse)} of them."
        )
    message = jax.eval_shape(model.enter, model.x_spec, model.y_spec)
    blocks = list(model.blocks)
    for i, groups in enumerate(coarse):
        if groups is None:
            continue
        _check_learns(model, i, message)
        blocks[i] = _coarse_block(model, i, representatives(groups, classes))
    return model._replace(blocks=tuple(blocks))


def representatives(groups: Sequence[int], classes: int) -> np.ndarray:
    """Of each class the first class of its group, int32 `(C,)`.

    Raises:
      ValueError: see `coarse_to_fine`.

    Examples:
      >>> representatives((5, 5, 0, 5), 4).tolist()
      [0, 0, 2, 0]
    """
    groups = list(groups)
    if len(groups) != classes or not all(isinstance(group, int | np.integer) for group in groups):
        raise ValueError(f"coarse labels are a whole number for each of {classes} classes; got {groups}.")
    if len(set(groups)) < 2:
        raise ValueError(f"coarse labels of one group leave nothing to tell apart; got {groups}.")
    return np.array([groups.index(group) for group in groups], np.int32)


def _check_learns(model: Model, i: int, message: Mapping[str, Any]) -> None:
    block = model.blocks[i]
    parts = () if block.made_of is None else block.made_of.parts
    classifies = i + 1 not in model.exits or any(group in parts for group in _CLASSIFIERS)
    if block.signal != "none" or not {"x", "y"} <= set(message) or "f" not in parts or not classifies:
        raise ValueError(
            "coarse labels are for rules whose blocks learn from labels and losses of their own, before they are "
            f"frozen or run in several trials; method {model.method!r} is not so here."
        )


def _coarse_block(model: Model, i: int, first: np.ndarray) -> LocalBlock:
    """A block that is shown of each label the first of its group, and of the scores those of groups."""
    parts, own_step, tx, fixed = model.blocks[i].made_of
    classifier = next((group for group in _CLASSIFIERS if group in parts and i + 1 in model.exits), None)

    def coarse(y: jax.Array) -> jax.Array:
        known = (y >= 0) & (y < len(first))  # the rule itself notices one that is none
        return jnp.where(known, jnp.asarray(first)[jnp.where(known, y, 0)], y)

    def step(run: Run, message: Message, key: Key):
        def watched(group: str, x: jax.Array) -> jax.Array:
            y = run(group, x)
            return _of_groups(y, first) if group == classifier else y

        passed, metrics = own_step(watched, {**message, "y": coarse(message["y"])}, key)
        return {**passed, "y": message["y"]}, metrics

    return local_block(model.blocks[i].name, parts, step, tx, fixed=fixed)


def _of_groups(scores: jax.Array, first: np.ndarray) -> jax.Array:
    """Scores `(N, C)` whose softmax has the probability of a group at its first class, and none at the others."""
    inside = jnp.asarray(first[None, :] == first[:, None])  # of each class, which are in its group
    none = jnp.finfo(scores.dtype).min / 4  # finite: a target of 0 is multiplied by its logarithm
    of_group = jax.nn.logsumexp(jnp.where(inside[None], scores[:, None, :], -jnp.inf), axis=-1)
    return jnp.where(jnp.asarray(first == np.arange(len(first)))[None], of_group, none)
