"""Which optax transform is for which groups of a block's parameters, and which parameters decay."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeAlias

import jax
import optax

from localgrad.base import Key, LocalBlock, PyTree, Transforms
from localgrad.keys import fold_in, is_key, over_keys

# What a method takes: one transform of all groups that learn, or one by groups, None being for those that are fixed.
Optimizers: TypeAlias = optax.GradientTransformation | Mapping[str, optax.GradientTransformation | None]

_NOISE = 0x6E6F6973  # sets the keys of optimizers' noise apart from those of parameters
_NO_KERNELS = ("bias", "scale", "embedding")
# Where masks of kernels, which optax hides in its transforms, tell `check_kernels` the groups that they name.
_asked: ContextVar[set[str] | None] = ContextVar("asked", default=None)


def transforms(tx: Optimizers, *moments: Sequence[str]) -> Transforms:
    """The transforms of a block, each with the groups that it updates together.

    Args:
      tx: a transform, of which every moment gets one state; or a mapping of groups, joined by `+`, to transforms, such
        as `{"f+b": optax.adam(1e-3), "g+h": optax.adam(2e-3)}`: norms and clips span the groups of a key. None is for
        groups that are fixed. Groups that the block does not have are passed over, so that one mapping serves blocks
        of different groups.
      moments: the block's groups that learn, at each of its moments; others are fixed.

    Raises:
      ValueError: for a group that is named twice or not at all, or a key of groups that learn at different moments.
      TypeError: for anything but a transform or a mapping of such.

    Examples:
      >>> sorted(transforms({"f+head": optax.sgd(0.1), "feedback": None}, ("f", "feedback")))
      ['f']
      >>> sorted(transforms(optax.sgd(0.1), ("f",), ("critic",)))
      ['critic', 'f']
    """
    if not isinstance(tx, Mapping):
        _check_transform(tx)
        return {"+".join(groups): tx for groups in moments if groups}
    named = _check_named_once(tx)
    learning = [group for groups in moments for group in groups]
    if not set(learning) <= set(named):
        raise ValueError(
            f"the optimizer has transforms for the groups {sorted(named)}, but the block's parameters are in the "
            f"groups {sorted(learning)}: name each of those exactly once; None is the transform of one that is fixed."
        )
    found = {}
    for key, transform in tx.items():
        own = [[group for group in key.split("+") if group in groups] for groups in moments]
        if transform is None or not any(own):
            continue
        _check_transform(transform)
        if sum(map(bool, own)) > 1:
            raise ValueError(
                f"the optimizer of the groups {key!r} spans groups that learn at different moments, "
                f"{' and '.join('+'.join(groups) for groups in own if groups)}: give each moment one of its own."
            )
        found["+".join(group for groups in own for group in groups)] = transform
    return found


def by_group(
    transforms: Mapping[str, optax.GradientTransformation | None],
) -> Mapping[str, optax.GradientTransformation | None]:
    """Transforms by groups, looked at at once: the mapping itself, which every method takes as its `tx`.

    Raises:
      ValueError: for a group that is named twice.
      TypeError: for what is no transform.
    """
    _check_named_once(transforms)
    for one in transforms.values():
        if one is not None:
            _check_transform(one)
    return transforms


def _check_named_once(tx: Mapping[str, Any]) -> list[str]:
    named = [group for key in tx for group in key.split("+")]
    if len(set(named)) != len(named):
        raise ValueError(f"a parameter group is named twice in the keys {list(tx)} of the optimizer.")
    return named


def _check_transform(tx: Any) -> None:
    if not (hasattr(tx, "init") and hasattr(tx, "update")):
        raise TypeError(f"tx is an optax transform, or a mapping of groups to such; got {tx!r}.")


def first_states(tx: Transforms, params: Mapping[str, PyTree], key: Key) -> dict[str, PyTree]:
    """The first state of each of a block's transforms.

    Keys in a state, such as that of `optax.add_noise`, are made the block's own, moment by moment: one transform is
    for all blocks of a model, and all would draw the same noise.

    Args:
      tx: of the block.
      params: by group.
      key: of the block, or one a trial, as its `init` is given.
    """
    found = {}
    for i, (names, one) in enumerate(tx.items()):
        first = one.init({group: params[group] for group in names.split("+")})
        found[names] = jax.tree.map(partial(_own_keys, key, _NOISE + i), first)
    return found


def _own_keys(key: Key, number: int, leaf: Any) -> Any:
    """A leaf of a state as it is, but for keys: those follow from them, a block's key and its moment."""
    if not is_key(leaf):
        return leaf

    def folded(leaf: Key, words: jax.Array) -> Key:
        if leaf.ndim:
            return over_keys(lambda one: folded(one, words), leaf)
        for word in words:
            leaf = jax.random.fold_in(leaf, word)
        return leaf

    words = jax.random.key_data(fold_in(key, number))
    return folded(leaf, words) if words.ndim == 1 else over_keys(folded, leaf, words)  # of trials, each by its own


class Decayed(optax.GradientTransformationExtraArgs):
    """`optax.chain(*steps, decay)`, whose decay is the same share of the parameters at whatever rate they learn.

    Attributes:
      steps: what is made of the gradients, the optimizer last.
      decay: what is taken away besides.
    """

    steps: tuple[optax.GradientTransformation, ...]
    decay: optax.GradientTransformation


def decayed(steps: Sequence[optax.GradientTransformation], decay: optax.GradientTransformation) -> Decayed:
    """See `Decayed`: what multiplies updates, `scaled`, leaves the decay as it is."""
    found = Decayed(*optax.with_extra_args_support(optax.chain(*steps, decay)))
    found.steps, found.decay = tuple(steps), decay
    return found


def scaled(tx: Optimizers, scales: Mapping[str, float]) -> Optimizers:
    """Transforms whose updates of some groups are multiplied: with one at a rate, by twice the rate and so on.

    Args:
      tx: see `transforms`.
      scales: group -> factor; other groups' updates stay as they are, and so does a decay apart, see `decayed`.

    Examples:
      >>> import jax.numpy as jnp
      >>> tx = scaled(optax.sgd(1.0), {"g": 2.0})
      >>> ones = {"f": jnp.ones(()), "g": jnp.ones(())}
      >>> updates, _ = tx.update(ones, tx.init(ones), ones)
      >>> {group: float(x) for group, x in updates.items()}
      {'f': -1.0, 'g': -2.0}
    """
    if isinstance(tx, Mapping):
        return {key: None if one is None else _scaled(one, scales) for key, one in tx.items()}
    return _scaled(tx, scales)


def _scaled(tx: optax.GradientTransformation, scales: Mapping[str, float]) -> optax.GradientTransformation:
    _check_transform(tx)
    if isinstance(tx, Decayed):
        return decayed([*tx.steps[:-1], _scaled(tx.steps[-1], scales)], tx.decay)
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
        keys = (step.key for step in reversed(path) if isinstance(step, jax.tree_util.DictKey))
        name = str(next(keys, path[-1])).rpartition("/")[2]  # a boxed array's path ends in .value
        return (not groups or path[0].key in groups) and x.ndim > 1 and name not in _NO_KERNELS

    def mask(params: Mapping[str, Any]) -> Any:
        if (asked := _asked.get()) is not None:
            asked.update(groups)
        return jax.tree_util.tree_map_with_path(decays, params)

    return mask


def check_kernels(blocks: Sequence[LocalBlock], groups: Collection[str]) -> None:
    """Refuses `kernels` of a group that no block of a model has: nothing would decay, without a word.

    A group that some block has is fine, for one transform serves blocks of different groups.

    Args:
      blocks: of the model.
      groups: of parameters, of all its blocks.

    Raises:
      ValueError: naming those that there are.
    """
    params = {group: {"kernel": jax.ShapeDtypeStruct((1, 1), "float32")} for group in groups}
    asked: set[str] = set()
    token = _asked.set(asked)
    try:
        for one in {id(one): one for block in blocks for one in block.tx.values()}.values():
            with suppress(Exception):  # one that wants other parameters than these is looked at no further
                jax.eval_shape(one.init, params)
    finally:
        _asked.reset(token)
    if unknown := sorted(asked - set(groups)):
        raise ValueError(
            f"kernels({', '.join(map(repr, unknown))}): the model has no parameters of that name, so nothing would "
            f"decay; its groups are {', '.join(map(repr, sorted(groups)))}."
        )
