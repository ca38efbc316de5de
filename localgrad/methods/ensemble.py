"""Exits as an ensemble: prediction at exit k by the scores of all exits up to it."""

from collections.abc import Sequence

import jax

from localgrad.base import BlockState, Model
from localgrad.methods.parts import checked_exit


def ensemble(model: Model, heads: Sequence[str], weights: Sequence[float] | None = None) -> Model:
    """A model that trains as before, and whose exit k predicts by the weighted sum of the scores of the exits up to it.

    Args:
      model: a model with several exits.
      heads: the group that each exit reads with; they count as effective.
      weights: one an exit; by default all are 1.

    Returns:
      A `Model` with the same exits.

    Raises:
      ValueError: for a model of one exit, or heads or weights that are not one an exit.

    References:
      Lee and Lee, Local Critic Training, https://arxiv.org/abs/2102.01963, section 4.3: the sum
      Belilovsky et al., Greedy Layerwise Learning Can Scale to ImageNet, https://arxiv.org/abs/1812.11446: 2^k
    """
    if len(model.exits) < 2:
        raise ValueError(f"an ensemble is of several exits, and method {model.method!r} has one.")
    chosen = [1.0] * len(model.exits) if weights is None else list(weights)
    for name, each in (("heads", heads), ("weights", chosen)):
        if len(each) != len(model.exits):
            raise ValueError(f"{name} are one an exit, of which there are {len(model.exits)}; got {len(each)}.")

    def predict(states: tuple[BlockState, ...], x: jax.Array, exit: int | None = None) -> jax.Array:
        last = checked_exit(model.exits, exit)
        pairs = [(weight, each) for weight, each in zip(chosen, model.exits, strict=True) if each <= last]
        scores = [weight * model.predict(states, x, each) for weight, each in pairs]
        return sum(scores[1:], scores[0])

    read = dict(zip(model.exits, heads, strict=True))
    effective = tuple(own | ({read[i]} if i in read else set()) for i, own in enumerate(model.effective, 1))
    return model._replace(predict=predict, effective=effective)
