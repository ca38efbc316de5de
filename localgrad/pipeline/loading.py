"""What an engine is given to begin with: states of its own model, and the key, or keys, that the model asks for.

Arrays of other shapes would fit into the slots of a stage and train as other weights, so they are looked at first.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import BlockState, Key, Model, Spec
from localgrad.keys import is_key

_OWN = "Load what lg.init makes of this very model, or what an engine of it gave"


def check_states(model: Model, specs: Sequence[Spec], states: Sequence[BlockState]) -> tuple[BlockState, ...]:
    """States of a model, in the very structure that the model's own have: a list may have stood for a tuple.

    Args:
      model: any model.
      specs: shapes and dtypes of its states, the first of the two that `specs` returns.
      states: what is to be loaded: arrays of jax or of NumPy.

    Raises:
      ValueError: naming the block and the leaf, if they are of another number of blocks, or if there is a leaf too
        many, too few, or of another shape or dtype.
    """
    if len(states) != len(specs):
        raise ValueError(
            f"the states are of {len(states)} blocks, and the model of method {model.method!r} has {len(specs)}. "
            f"{_OWN}."
        )
    return tuple(_checked(i, model, specs[i], state) for i, state in enumerate(states))


def checked(
    model: Model, specs: Sequence[Spec], states: Sequence[BlockState], key: Key
) -> tuple[tuple[BlockState, ...], Key]:
    """What every engine's `load` is given, as `check_states` and `check_key`: `(states, key)`."""
    return check_states(model, specs, states), check_key(model, key)


def _checked(i: int, model: Model, spec: Spec, state: BlockState) -> BlockState:
    """The state of block i, as `check_states`."""
    own, structure = jax.tree_util.tree_flatten_with_path(spec)
    expected = [(jax.tree_util.keystr(path).removeprefix("."), leaf) for path, leaf in own]
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    given = {jax.tree_util.keystr(path).removeprefix("."): leaf for path, leaf in leaves}
    named = f"block {i + 1} ({model.blocks[i].name})"
    for path, leaf in expected:
        if path not in given:
            raise ValueError(
                f"the states are not of this model: those of {named} have no {path}, which is {_told(leaf)} here; "
                f"perhaps its network, method or optimizer is another. {_OWN}."
            )
        if _kind(leaf) != _kind(given[path]):
            raise ValueError(
                f"the states are not of this model: {path} of {named} is {_told(given[path])}, and {_told(leaf)} is "
                f"expected. {_OWN}; where only the dtype is another, cast the states first."
            )
    if extra := sorted(set(given) - {path for path, _ in expected}):
        raise ValueError(
            f"the states are not of this model: those of {named} have {extra[0]}, {_told(given[extra[0]])}, which the "
            f"model has not; perhaps its network, method or optimizer is another. {_OWN}."
        )
    return jax.tree.unflatten(structure, [given[path] for path, _ in expected])


def check_key(model: Model, key: Key) -> Key:
    """The key of a model, or the keys of its trials.

    Raises:
      ValueError: for raw words such as those of `PRNGKey`, and for another number of keys.
    """
    shape = () if model.trials is None else (model.trials,)
    typed = is_key(key)
    if typed and key.shape == shape:
        return key
    wants = "one key" if model.trials is None else f"{model.trials} keys, one a trial"
    found = f"keys of shape {list(key.shape)}" if typed else f"no typed key ({_told(key)})"
    use = "jax.random.key(seed)" if model.trials is None else f"lg.trial_keys(seed, {model.trials})"
    raise ValueError(f"the model of method {model.method!r} wants {wants}; got {found}: use {use}.")


def check_context(engine: str, mesh: jax.sharding.Mesh | None = None) -> None:
    """Refuses to work under `jax.set_mesh` of another mesh, which would place what an engine places itself.

    Args:
      engine: its name, for the message.
      mesh: the engine's own, if it has one.

    Raises:
      ValueError: naming both meshes.
    """
    context = jax.sharding.get_abstract_mesh()
    if context.empty or (mesh is not None and context == mesh.abstract_mesh):
        return
    own = "devices of its own" if mesh is None else f"a mesh of its own, {dict(mesh.shape)}"
    raise ValueError(
        f"{engine} trains on {own}, and jax.set_mesh has set another, {dict(context.shape)}: load and run outside of "
        "that context."
    )


def _kind(leaf: Any) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of an array, a number or a spec, as jax takes it: without 64-bit types float64 is float32."""
    dtype = getattr(leaf, "dtype", None)
    dtype = jnp.result_type(leaf) if dtype is None else dtype
    if not jnp.issubdtype(dtype, jax.dtypes.extended):
        dtype = jax.dtypes.canonicalize_dtype(dtype)
    return np.shape(leaf) if not hasattr(leaf, "shape") else tuple(leaf.shape), dtype


def _told(leaf: Any) -> str:
    try:
        shape, dtype = _kind(leaf)
    except TypeError:
        return type(leaf).__name__
    return f"{dtype}{list(shape)}"
