"""One optax transform from several, one for each named group of a block's parameters."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

_NO_KERNELS = ("bias", "scale", "embedding")


def by_group(transforms: Mapping[str, optax.GradientTransformation]) -> optax.GradientTransformation:
    """Joins transforms of parameter groups into one.

    A key names the groups that a transform updates together, joined by `+`: norms and clips span them.

    Args:
      transforms: for example `{"f+b": optax.adam(1e-3), "g+h": optax.adam(2e-3)}`.

    Returns:
      A transform of a dict with exactly those groups.

    Groups that a block does not have are passed over, so one transform serves blocks of different groups.

    Raises:
      ValueError: if a group is named twice; at `init`, if a group of the block is not named.

    Examples:
      >>> import jax.numpy as jnp
      >>> tx = by_group({"f": optax.sgd(1.0), "g+h": optax.sgd(2.0)})
      >>> ones = {"f": jnp.ones(()), "g": jnp.ones(()), "h": jnp.ones(())}
      >>> updates, _ = tx.update(ones, tx.init(ones), ones)
      >>> {group: float(x) for group, x in updates.items()}
      {'f': -1.0, 'g': -2.0, 'h': -2.0}
    """
    pairs = [(group, key) for key in transforms for group in key.split("+")]
    labels = dict(pairs)
    if len(labels) != len(pairs):
        raise ValueError(f"a parameter group is named twice in the keys {list(transforms)}.")

    def label(params: Mapping[str, Any]) -> dict[str, str]:
        if not set(params) <= set(labels):
            raise ValueError(
                f"the optimizer has transforms for the groups {sorted(labels)}, but the block's parameters are in the "
                f"groups {sorted(params)}: name each of those exactly once."
            )
        return {group: labels[group] for group in params}

    return optax.multi_transform(dict(transforms), label)


def scaled(tx: optax.GradientTransformation, scales: Mapping[str, float]) -> optax.GradientTransformation:
    """A transform whose updates of some groups are multiplied: with one at a rate, by twice the rate and so on.

    Args:
      tx: any transform of a dict of groups.
      scales: group -> factor; other groups' updates stay as they are.

    Examples:
      >>> import jax.numpy as jnp
      >>> tx = scaled(optax.sgd(1.0), {"g": 2.0})
      >>> ones = {"f": jnp.ones(()), "g": jnp.ones(())}
      >>> updates, _ = tx.update(ones, tx.init(ones), ones)
      >>> {group: float(x) for group, x in updates.items()}
      {'f': -1.0, 'g': -2.0}
    """
    inner = optax.with_extra_args_support(tx)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        updates, state = inner.update(updates, state, params, **extra)
        times = lambda scale, tree: tree if scale == 1 else jax.tree.map(lambda x: scale * x, tree)
        return {group: times(scales.get(group, 1), tree) for group, tree in updates.items()}, state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def kernels(*groups: str) -> Callable[[Mapping[str, Any]], Any]:
    """The mask of weight decay: True for kernels, False for biases, norms' scales, word vectors and other groups.

    A kernel is an array of at least two axes whose name is none of those.

    Args:
      groups: whose kernels; of all groups by default.

    Returns:
      `params -> mask`, as `optax.adamw(1e-3, mask=kernels("f"))` takes it.

    Examples:
      >>> import jax.numpy as jnp
      >>> dense = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones((2,))}
      >>> kernels("f")({"f": dense, "g": dense})
      {'f': {'bias': False, 'kernel': True}, 'g': {'bias': False, 'kernel': False}}
    """

    def decays(path: tuple[Any, ...], x: Any) -> bool:
        name = str(getattr(path[-1], "key", path[-1])).rpartition("/")[2]
        return (not groups or path[0].key in groups) and x.ndim > 1 and name not in _NO_KERNELS

    return lambda params: jax.tree_util.tree_map_with_path(decays, params)


def all_but(group: str, tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """A transform of all groups but one, which it leaves as it is: neither decay nor momentum touches it.

    Args:
      group: the group that is fixed; gradients need not hold it.
      tx: a transform of the others.

    Examples:
      >>> import jax.numpy as jnp
      >>> tx = all_but("feedback", optax.add_decayed_weights(0.5))
      >>> params = {"f": jnp.ones(()), "feedback": jnp.ones(())}
      >>> updates, _ = tx.update({"f": jnp.ones(())}, tx.init(params), params)
      >>> {group: float(x) for group, x in updates.items()}
      {'f': 1.5, 'feedback': 0.0}
    """
    inner = optax.with_extra_args_support(tx)
    others = lambda tree: {name: part for name, part in tree.items() if name != group}

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        found, state = inner.update(others(updates), state, others(params), **extra)
        return {**found, group: jax.tree.map(jnp.zeros_like, params[group])}, state

    return optax.GradientTransformationExtraArgs(lambda params: inner.init(others(params)), update)
