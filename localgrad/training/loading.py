"""A trained network from its workdir, without its data; a run by names needs no more, one of `fit` its model again."""

import dataclasses
from os import PathLike
from typing import Any

import jax
import numpy as np

from localgrad.base import BlockState, Model
from localgrad.pipeline import specs
from localgrad.prediction import About, Predictor, about, make_predictor, open_export
from localgrad.prediction.exporting import is_export
from localgrad.training.builders import build_model
from localgrad.training.config import Config
from localgrad.training.config_file import config_of, is_own, saved_config
from localgrad.training.inputs import Inputs
from localgrad.training.own_program import changed_blocks
from localgrad.training.restoring import find_checkpoint
from localgrad.training.workdir import folder_of, read_json


def load(
    workdir: str | PathLike,
    *,
    best: bool = True,
    model: Model | None = None,
    trial: int | None = None,
    log: Any = print,
) -> Predictor:
    """A predictor of a run's network, or of a folder that `export` wrote.

    Args:
      workdir: the folder of a run, finished or not; nothing in it is changed.
      best: the best epoch on validation; where there was no validation, and for False, the newest checkpoint.
      model: of a run of `fit`, the model that was trained, made again; that of a run by names is made of its
        `config.json`.
      trial: which of several trials that were trained as one model, from 0.
      log: takes a line for each checkpoint that cannot be used, and one where the blocks of `model` compute something
        else than when they were trained.

    Returns:
      A `Predictor`.

    Raises:
      FileNotFoundError: it is no run, has no checkpoint yet, or none that can be used.
      ValueError: it needs a model and none is given, or the model is another one than was trained.
    """
    if is_export(workdir):
        if model is not None or trial is not None:
            raise ValueError(
                f"{workdir} is an export, of one network and with its programs: leave out model and trial."
            )
        return open_export(workdir)
    folder, saved = folder_of(workdir), saved_config(workdir)
    if saved is None:
        raise FileNotFoundError(f"{workdir} is not the workdir of a run: it has no config.json.")
    known = known_of(workdir)
    if known is None:
        if (folder / "trial0").exists():
            raise ValueError(f"{workdir} holds several trials: load one of them, such as {folder / 'trial0'}.")
        raise FileNotFoundError(f"{folder / about.NAME} is missing: start the run again, which makes it anew.")
    states = load_states(workdir, best=best, log=log)
    own = model if model is not None else _named(saved, known, workdir)
    trials = config_of(saved).trials  # type: ignore[attr-defined]  # of both kinds
    if trials > 1:
        if trial is None or not 0 <= trial < trials:
            raise ValueError(f"{workdir} holds {trials} trials: choose one, trial=0 to {trials - 1}.")
        states = jax.tree.map(lambda x: x[trial], states)
    elif trial:  # the first of one is all there is
        raise ValueError(f"{workdir} holds one network and no trials: leave out trial={trial}.")
    states = fitted_states(own, states, saved)
    changed = changed_blocks(own, saved) if is_own(saved) else []
    if changed:
        numbers = ", ".join(map(str, changed))
        log(
            f"{workdir}: of the model that is given, these blocks compute something else than when it was trained: "
            f"{numbers}. Is their code as it was?"
        )
    return make_predictor(own, states, known)


def known_of(workdir: str | PathLike) -> About | None:
    """What a run wrote of its network besides weights; None of one whose blocks were never made.

    Raises:
      ValueError: it is damaged.
    """
    path = folder_of(workdir) / about.NAME
    return About.from_json(read_json(path), path) if path.exists() else None


def load_states(workdir: str | PathLike, *, best: bool = True, log: Any = print) -> tuple[BlockState, ...]:
    """The parameters and running averages of a run, one `BlockState` a block, without its optimizers.

    Args:
      workdir, best, log: as for `load`.

    Raises:
      FileNotFoundError: it has no checkpoint that can be used.
    """
    checkpoints, found = find_checkpoint(workdir, best=best, log=log)
    if best and found is None:
        checkpoints, found = find_checkpoint(workdir, best=False, log=log)
    assert found is not None
    return checkpoints.raw_states(found["step"])


def fitted_states(model: Model, states: tuple[BlockState, ...], saved: dict[str, Any]) -> tuple[BlockState, ...]:
    """States of a checkpoint in the form that a model has them.

    Raises:
      ValueError: they are of another model, naming the first block and array that differ.
    """
    like = specs(model)[0]
    other = f"the run is of another model ({saved['method']} of {saved['net']})"
    if len(like) != len(states):
        raise ValueError(f"{other}: it has {len(states)} blocks, and the one that is given {len(like)}.")
    found = []
    for i, (ours, theirs) in enumerate(zip(like, states, strict=True)):
        groups = []
        for wanted, there in ((ours.params, theirs.params), (ours.model_state, theirs.model_state)):
            arrays = {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(there)}
            shapes = {jax.tree_util.keystr(path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(wanted)}
            for name in sorted({*arrays, *shapes}):
                if name not in arrays or name not in shapes or np.shape(arrays[name]) != shapes[name]:
                    here, gone = shapes.get(name, "nothing"), np.shape(arrays[name]) if name in arrays else "nothing"
                    raise ValueError(f"{other}: {name} of block {i + 1} is {gone} there and {here} here.")
            take = lambda path, _, arrays=arrays: jax.numpy.asarray(arrays[jax.tree_util.keystr(path)])
            groups.append(jax.tree_util.tree_map_with_path(take, wanted))
        found.append(BlockState(groups[0], groups[1], {}))
    return tuple(found)


def _named(saved: dict[str, Any], known: About, workdir: Any) -> Model:
    """The model of a run by names, made of its configuration and of what is known of its data."""
    if is_own(saved):
        raise ValueError(
            f"{workdir} holds a run of a model that was given to fit ({saved['method']} of {saved['net']}): give it, "
            "made again, as model=; or export the network once, and load that folder."
        )
    config = dataclasses.replace(Config.from_json(saved), trials=1, word_vectors=None, workdir=str(workdir))
    augment = (lambda keys, images: images) if config.augment else None  # of training alone
    train = known.like()
    return build_model(config, Inputs({"train": train}, known.lengths, known.stats, augment, known.epoch_steps))
