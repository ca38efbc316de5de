"""The supervised contrastive loss, in the three reductions that are in use."""

from typing import Literal, get_args

import chex
import jax
import jax.numpy as jnp

Reduction = Literal["supcon", "paper", "listing"]
_NORM_FLOOR = 1e-12
REDUCTIONS: tuple[str, ...] = get_args(Reduction)


def normalised(z: jax.Array) -> jax.Array:
    """Rows `(B, D)` at length one; one of length zero stays.

    Examples:
      >>> normalised(jnp.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
      [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    return z / jnp.sqrt(jnp.maximum(jnp.sum(z**2, axis=1, keepdims=True), _NORM_FLOOR))


def supervised_contrastive(
    z: jax.Array,
    labels: jax.Array,
    *,
    temperature: float = 0.1,
    reduction: Reduction = "supcon",
    base_temperature: float | None = None,
) -> jax.Array:
    r"""Pulls representations of one class together and pushes those of others apart.

    With P(i) the other examples of i's class and the denominators over all j != i,

    .. math:: \ell_{ip} = -\log \frac{\exp(z_i \cdot z_p / \tau)}{\sum_{j \ne i} \exp(z_i \cdot z_j / \tau)}

    `supcon` is the mean over anchors i of the mean over p in P(i), zero where P(i) is empty; `paper` the sum over
    anchors of that mean (Delog-SCL, Eq. 2); `listing` divides the sum over all pairs by B times the number of pairs of
    equal label, self-pairs included (Delog-SCL, Algorithm 1).  On a batch of B with n of each class `listing` is
    `supcon * (n - 1) / (n B)`.

    Args:
      z: `(B, D)`, rows of length one.
      labels: integers `(B,)`.
      temperature: tau.
      reduction: one of `REDUCTIONS`.
      base_temperature: if given, the loss is multiplied by `temperature / base_temperature` (SupContrast uses 0.07).

    Returns:
      A scalar.

    Raises:
      ValueError: for an unknown reduction.

    References:
      Khosla et al., Supervised Contrastive Learning, https://arxiv.org/abs/2004.11362
      Delog-SCL: Cutting Long Gradient Flows: Decoupling End-to-End Backpropagation Based on Supervised Contrastive
        Learning, Eq. 2, Algorithm 1

    Examples:
      >>> z = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> loss = supervised_contrastive(z, jnp.array([0, 0, 1]), temperature=1.0)
      >>> round(float(loss), 4)  # 2/3 log(1 + 1/e)
      0.2088
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"unknown reduction {reduction!r} of the contrastive loss; there are {', '.join(REDUCTIONS)}.")
    chex.assert_rank([z, labels], [2, 1])
    batch = z.shape[0]
    others = ~jnp.eye(batch, dtype=bool)
    same = labels[:, None] == labels[None, :]
    similarity = z @ z.T / temperature
    log_denominator = jax.nn.logsumexp(jnp.where(others, similarity, -jnp.inf), axis=1, keepdims=True)
    of_pairs = jnp.where(same & others, log_denominator - similarity, 0.0)
    if reduction == "listing":
        loss = jnp.sum(of_pairs) / (jnp.sum(same) * batch).astype(z.dtype)
    else:
        positives = jnp.sum(same & others, axis=1).astype(z.dtype)
        of_anchors = jnp.sum(of_pairs, axis=1) / jnp.maximum(positives, 1.0)
        loss = jnp.sum(of_anchors) if reduction == "paper" else jnp.mean(of_anchors)
    return loss if base_temperature is None else loss * (temperature / base_temperature)
