"""A trained network in files that others read: weights as safetensors, programs as StableHLO of any batch."""

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import BlockState
from localgrad.data.files import expanded, told
from localgrad.prediction.about import About
from localgrad.prediction.predictor import Predictor, scoring

WEIGHTS, PROGRAMS, ABOUT = "weights.safetensors", "exit_{}.stablehlo", "export.json"
_REMEDY = "Export the network again"


def export(
    predictor: Predictor,
    path: str | PathLike,
    *,
    exits: Sequence[int] | None = None,
    platforms: Sequence[str] | None = None,
) -> Path:
    """Writes a network so that it runs without this library and without the code of its modules.

    The folder holds `weights.safetensors`, every parameter and running average by its path; for each exit
    `exit_K.stablehlo`, a program `(weights, raw inputs (B, ...)) -> scores` of any B, serialized by `jax.export`, with
    the scaling of inputs within; and `export.json`, which says what inputs and outputs are.  What was written is opened
    again and must give the scores of the predictor.

    Args:
      predictor: of a model, as `load` or `fit` give it.
      path: the folder; files of an export that is there already are replaced.
      exits: which exits; None is the last.
      platforms: such as `("cpu", "cuda", "tpu")`; None is the one of this process.

    Returns:
      The folder.

    Raises:
      ValueError: a predictor that was exported already, an exit that there is not, or a network that does not take a
        batch of any size.
      ImportError: safetensors is not installed.
    """
    if predictor.model is None or predictor.states is None:
        raise ValueError("this predictor was opened from an export: copy that folder.")
    chosen = [predictor._checked(exit) for exit in exits or predictor.exits[-1:]]
    folder, flax = Path(expanded(str(path))), _safetensors()
    folder.mkdir(parents=True, exist_ok=True)
    weights = flat_weights(predictor.states)
    flax.save_file(weights, folder / WEIGHTS, metadata={"format": "flax"})
    for exit in chosen:
        (folder / PROGRAMS.format(exit)).write_bytes(_program(predictor, weights, exit, platforms))
    content = {
        "format": 1,
        "jax": jax.__version__,
        "method": predictor.model.method,
        "exits": chosen,
        "platforms": None if platforms is None else list(platforms),
        "about": predictor.about.to_json(),
    }
    (folder / ABOUT).write_text(json.dumps(content, indent=1))
    _check(predictor, open_export(folder), platforms)
    return folder


def open_export(path: str | PathLike) -> Predictor:
    """The predictor of a folder that `export` wrote.

    Raises:
      FileNotFoundError: it is none, or a file of it is missing.
      ValueError: it is damaged.
      ImportError: safetensors is not installed.
    """
    folder = Path(expanded(str(path)))
    with told(folder / ABOUT, _REMEDY, ValueError):
        content = json.loads((folder / ABOUT).read_text())
        exits = tuple(int(exit) for exit in content["exits"])
    about = About.from_json(content["about"], folder / ABOUT)
    flax = _safetensors()
    with told(folder / WEIGHTS, _REMEDY, Exception):
        weights = flax.load_file(folder / WEIGHTS)
    programs = {}
    for exit in exits:
        file = folder / PROGRAMS.format(exit)
        with told(file, _REMEDY, Exception):
            programs[exit] = jax.export.deserialize(bytearray(file.read_bytes()))
    return Predictor(about, exits, lambda x, exit: programs[exit].call(weights, x))


def is_export(path: str | PathLike) -> bool:
    """Whether a folder is one that `export` wrote."""
    return (expanded(str(path)) / ABOUT).is_file()


def flat_weights(states: Sequence[BlockState]) -> dict[str, jax.Array]:
    """Every parameter and running average of a network, by its path: block from 1, kind, group, and so on.

    Args:
      states: one `BlockState` a block.
    """
    found = {}
    for i, state in enumerate(states):
        tree = {"params": state.params, "model_state": state.model_state}
        for path, x in jax.tree_util.tree_leaves_with_path(tree):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            found[f"block{i + 1}/{name}"] = jnp.asarray(x)
    return found


def _program(
    predictor: Predictor, weights: Mapping[str, jax.Array], exit: int, platforms: Sequence[str] | None
) -> bytes:
    """The serialized program of an exit."""
    assert predictor.model is not None and predictor.states is not None
    scores, like = scoring(predictor.model, predictor.about), predictor.states

    def run(weights: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
        return scores(_states(weights, like), x, exit)

    (batch,) = jax.export.symbolic_shape("b")
    x = jax.ShapeDtypeStruct((batch, *predictor.about.shape), np.dtype(predictor.about.raw_dtype))
    specs = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in weights.items()}
    try:
        exported = jax.export.export(jax.jit(run), platforms=None if platforms is None else list(platforms))(specs, x)
    except Exception as error:  # whatever the modules' own code raises where a size is no number
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"exit {exit} cannot be written as a program of any batch ({type(error).__name__}: {reason}). Its modules "
            "must not use the batch's size as a Python number: reshape to (x.shape[0], -1), for example."
        ) from error
    return bytes(exported.serialize())


def _states(weights: Mapping[str, Any], like: Sequence[BlockState]) -> tuple[BlockState, ...]:
    """The states of a network whose arrays are given by their paths."""
    found = []
    for i, state in enumerate(like):

        def take(path: tuple[Any, ...], _: Any, i: int = i) -> Any:
            return weights[f"block{i + 1}/{jax.tree_util.keystr(path, simple=True, separator='/')}"]

        tree = jax.tree_util.tree_map_with_path(take, {"params": state.params, "model_state": state.model_state})
        found.append(BlockState(tree["params"], tree["model_state"], {}))
    return tuple(found)


def _check(predictor: Predictor, opened: Predictor, platforms: Sequence[str] | None) -> None:
    """Compares what was written with what it was written from, on batches of two sizes.

    Raises:
      ValueError: they differ.
    """
    if platforms is not None and jax.default_backend().replace("gpu", "cuda") not in platforms:
        return  # a program of other platforms does not run here
    about, rng = predictor.about, np.random.default_rng(0)
    for size in (1, 3):
        shape = (size, *about.shape)
        if np.issubdtype(np.dtype(about.raw_dtype), np.integer):
            high = len(about.words) if about.words is not None else 2
            inputs = rng.integers(0, high, shape).astype(about.raw_dtype)
        else:
            inputs = rng.normal(size=shape).astype(about.raw_dtype)
        for exit in opened.exits:
            ours, theirs = predictor.scores(inputs, exit), opened.scores(inputs, exit)
            if not np.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * max(1.0, float(np.abs(ours).max()))):
                raise ValueError(
                    f"the program of exit {exit} gives other scores than the network: {theirs} and {ours}."
                )


def _safetensors() -> Any:
    try:
        from safetensors import flax
    except ImportError:
        raise ImportError("weights are written by safetensors: `pip install safetensors`.") from None
    return flax
