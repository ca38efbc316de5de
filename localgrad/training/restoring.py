"""Finds and restores a checkpoint of a run, for evaluation or to begin a longer network with."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

from localgrad.base import Spec
from localgrad.report import goodness
from localgrad.training.checkpoint_reader import Checkpoint, CheckpointReader
from localgrad.training.config_file import check_same, config_of, saved_config
from localgrad.training.workdir import folder_of


def restore(
    like: Sequence[Spec], workdir: str | PathLike, *, best: bool = False, log: Callable[[str], None] = print
) -> Checkpoint:
    """The newest sound checkpoint of a run, or the best on validation.

    Args:
      like: has the structure and shapes of the states, as `job.specs` or `pipeline.specs(model)[0]`.
      workdir: the run's folder; nothing in it is changed, so the run may go on meanwhile.
      best: the epoch that `summary.json` names, the first of equals; with batched trials that of their mean.
      log: takes a line for each checkpoint that cannot be used.

    Raises:
      FileNotFoundError: if it has none yet, or none that can be used.
      ValueError: if it is of another network.
    """
    checkpoints, manifest = find_checkpoint(workdir, best=best, log=log)
    if manifest is None:
        raise FileNotFoundError(f"{workdir} has no checkpoint of an epoch that was validated.")
    return checkpoints.load(manifest["step"], like)


def find_checkpoint(
    workdir: str | PathLike, *, best: bool, log: Callable[[str], None]
) -> tuple[CheckpointReader, dict[str, Any] | None]:
    """The checkpoints of a run, and the manifest of the one to restore; None where no best was validated.

    Args:
      workdir, best, log: as for `restore`.

    Raises:
      FileNotFoundError: if it has none yet, or none that can be used.
    """
    folder, saved = folder_of(workdir), saved_config(workdir)

    def accept(found: dict[str, Any]) -> None:
        if saved is not None:
            check_same(config_of(saved), found.get("config", saved), folder)

    checkpoints = CheckpointReader(folder / "checkpoints", log, accept)
    found = checkpoints.find(best=best)
    if best and found is not None:
        _check_best(checkpoints, found["step"], log)
    some = checkpoints.steps()
    if found is None and best and any(checkpoints.usable(step) for step in some):
        return checkpoints, None
    if found is None and some:
        raise FileNotFoundError(f"{workdir} has no checkpoint that can be used; it has {', '.join(map(str, some))}.")
    if found is None:
        raise FileNotFoundError(f"{workdir} has no checkpoint yet: let the run reach its first one.")
    return checkpoints, found


def _check_best(checkpoints: CheckpointReader, step: int, log: Callable[[str], None]) -> None:
    """Says so if the best on validation, by the newest records, is gone, and another stands in for it."""
    newest = checkpoints.find()
    records = [] if newest is None else checkpoints.meta(newest["step"])["records"]
    found = {record["step"]: goodness(record) for record in records if record["split"] == "validation"}
    best = max(found, key=lambda step: (found[step], -step), default=step)
    if best != step:
        log(f"the best on validation was checkpoint {best}, which is lost; {step} is the best of those that are left")
