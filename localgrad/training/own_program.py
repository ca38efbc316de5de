"""What the functions of a given model compute, as digests: a name, a shape or a dtype does not show it.

What a Python function computes that a program calls back (`jax.pure_callback`) cannot be known, and is in no digest.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from localgrad import data
from localgrad.base import BlockState, LocalBlock, Model
from localgrad.data.source import traced_augment
from localgrad.keys import is_key
from localgrad.pipeline import specs
from localgrad.pipeline.jaxprs import constants
from localgrad.pipeline.specs import key_spec
from localgrad.pipeline.transformed import transformed
from localgrad.training.own_config import model_digest

_BY = "made by"
# Addresses, and what functions are called, which says nothing of what they compute.
_NO_MATTER = re.compile(r"0x[0-9a-f]+|\bname=\S+")


def program_of(model: Model, augment: data.Augment | None = None, train: data.Dataset | None = None) -> str:
    """A JSON text of a digest of each block's pass, and of each block's optimizer, and of what traced them.

    Args:
      model: the model.
      augment, train: what is done to training inputs, and a set like them; its digest is added.
    """
    by = [f"{name} {version(name)}" for name in ("jax", "flax", "optax", "localgrad")]
    by += [jax.default_backend(), str(jax.dtypes.canonicalize_dtype(np.float64))]
    found = {_BY: " ".join(by)}
    states, messages = specs(model)
    for i, (block, state, message) in enumerate(zip(model.blocks, states, messages, strict=False)):
        found[f"block {i + 1}"] = _digest(jax.make_jaxpr(block.forward)(state, message, key_spec(model)))
        updates = jax.make_jaxpr(lambda state, own=block: _updates(own, state, model.trials))(state)
        found[f"optimizer {i + 1}"] = _digest(updates, _begun(block, state))
    if augment is not None:
        assert train is not None
        found["augmentation"] = _digest(traced_augment(augment, train, model.batch_size))
    return json.dumps(found)


def version(name: str) -> str:
    """The version of an installed package; of one that is not installed, "of a checkout"."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "of a checkout"


def or_saved(program: str, saved: Any) -> str:
    """This program; or the saved run's where other versions traced it, so that the two cannot be compared."""
    try:
        theirs = json.loads(saved["program"])[_BY]
    except (TypeError, KeyError, ValueError):
        return program
    return program if theirs == json.loads(program)[_BY] else saved["program"]


def changed_blocks(model: Model, saved: dict[str, Any]) -> list[int]:
    """Numbers from 1 of the blocks that compute something else than those that a run was begun with.

    Args:
      model: the one that was trained, made again.
      saved: the run's configuration.

    Returns:
      The numbers; [] too where the two cannot be compared, because they have other optimizers or another batch size,
      or were traced by other versions.
    """
    if "program" not in saved or saved.get("model") != model_digest(model):
        return []
    ours, theirs = program_of(model), saved["program"]
    if or_saved(ours, saved) != ours:
        return []
    here, there = json.loads(ours), json.loads(theirs)
    return [i + 1 for i in range(len(model.blocks)) if here[f"block {i + 1}"] != there.get(f"block {i + 1}")]


def _updates(block: LocalBlock, state: BlockState, trials: int | None) -> list[Any]:
    """What the transforms of a block make of gradients that are the parameters themselves."""
    found, loss = [], jnp.float32(1) if trials is None else jnp.ones(trials, jnp.float32)
    with jax.numpy_dtype_promotion("standard"):  # as where it learns
        for names in block.tx:
            params = {name: state.params[name] for name in names.split("+")}
            updates, _ = transformed(block, names, params, state.opt_state[names], params, loss)
            found.append(jax.tree.leaves(updates))
    return found


def _begun(block: LocalBlock, state: BlockState) -> list[Any]:
    """What a block's optimizers begin with, besides zeros: `optax.inject_hyperparams` keeps a rate there."""
    found = []
    with jax.numpy_dtype_promotion("standard"):
        for names, tx in block.tx.items():
            params = {name: state.params[name] for name in names.split("+")}
            first = tx.init(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), params))
            named = ((jax.tree_util.keystr(path), x) for path, x in jax.tree_util.tree_leaves_with_path(first))
            found += [part for path, x in named if _values(x).any() for part in (path, x)]
    return found


def _digest(traced: Any, more: Sequence[Any] = ()) -> str:
    """A digest of a program, of all its constants, and of more arrays and texts."""
    digest = hashlib.sha256(_NO_MATTER.sub("", traced.jaxpr.pretty_print(source_info=False)).encode())
    for value in (*constants(traced), *more):
        digest.update(value.encode() if isinstance(value, str) else _values(value).tobytes())
    return digest.hexdigest()[:12]


def _values(x: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(x) if is_key(x) else x)
