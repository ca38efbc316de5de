"""The checkpoints in a folder, looked at and read: which there are, which are sound, and what they hold."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from os import PathLike
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from localgrad.base import BlockState, PyTree, Spec
from localgrad.keys import is_key
from localgrad.pipeline.packing import to_data
from localgrad.report.scores import better
from localgrad.training import manifest
from localgrad.training.workdir import is_local

ASIDE = "damaged"  # where checkpoints go that cannot be used
_UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of one that is being written


class Checkpoint(NamedTuple):
    """`states` after exactly `step` batches, as host arrays, and the JSON object saved with them.

    `live` is the engine's own state, with the batches in flight; None where it was not asked for.
    """

    step: int
    states: tuple[BlockState, ...]
    meta: dict[str, Any]
    live: PyTree = None


class CheckpointReader:
    """The checkpoints of a run, of which nothing is changed; one that is not what it says is named and passed over.

    Args:
      folder: where they are.
      log: takes a line of text for the user.
      accept: raises a ValueError for the manifest of a checkpoint that is whole, but of another run.
    """

    def __init__(
        self,
        folder: str | PathLike,
        log: Callable[[str], None] = lambda line: None,
        accept: Callable[[dict[str, Any]], None] = lambda found: None,
    ):
        self.folder = epath.Path(folder)
        if is_local(self.folder):
            self.folder = self.folder.resolve()  # orbax wants the whole path
        self._log, self._accept = log, accept
        self._damaged: dict[int, str] = {}

    def steps(self) -> list[int]:
        """The steps that there are folders for, sound or not, the newest first."""
        if not self.folder.is_dir():
            return []
        return sorted((int(child.name) for child in self.folder.iterdir() if _is_step(child.name)), reverse=True)

    def review(self, sound: int | None = None) -> None:
        """Names each checkpoint that cannot be used, and whatever is none; `find` looks no further than it must.

        Args:
          sound: a step that was found sound just now.
        """
        for step in self.steps():
            if step != sound:
                self._sound(step)
        for child in sorted(self.folder.iterdir()) if self.folder.is_dir() else []:
            if not (_is_step(child.name) or child.name == ASIDE or _UNFINISHED in child.name):
                self._log(f"{child} is no checkpoint: the name of one is its number of batches, and nothing else")

    def find(self, before: int | None = None, *, best: bool = False) -> dict[str, Any] | None:
        """The manifest of the newest sound checkpoint, at or before a step, or None; damaged ones are named.

        Args:
          before: the last step that will do.
          best: the best on validation instead, the first of equals.
        """
        if jax.process_count() == 1:
            return self._find(before, best)
        from jax.experimental import multihost_utils  # one process looks, all use what it found

        found = self._find(before, best) if jax.process_index() == 0 else None
        step = int(multihost_utils.broadcast_one_to_all(np.int32(-1 if found is None else found["step"])))
        return None if step < 0 else manifest.read(self.folder / str(step))

    def _find(self, before: int | None, best: bool) -> dict[str, Any] | None:
        steps = [step for step in self.steps() if before is None or step <= before]
        if best:
            steps = self._by_validation(steps)
        for step in steps:
            found = self._sound(step)
            if found is not None:
                return found
        if steps:
            self._log(f"no checkpoint in {self.folder} can be used")
        return None

    def _sound(self, step: int) -> dict[str, Any] | None:
        """The manifest of a checkpoint that can be used; one that cannot is named, once."""
        try:
            found = manifest.check(self.folder / str(step))
            self._accept(found)
        except (ValueError, OSError) as error:  # of which `DamagedError` is one
            if step not in self._damaged:
                self._log(f"checkpoint {step} in {self.folder} cannot be used: {error}")
            self._damaged[step] = str(error)
            return None
        return found

    def _by_validation(self, steps: Sequence[int]) -> list[int]:
        found = {step: self.validation(step) for step in steps}
        return sorted((s for s in steps if found[s] is not None), key=lambda s: (-found[s], s))  # type: ignore[operator]

    def validation(self, step: int) -> float | None:
        """How good a step is on validation, higher is better, by its manifest; None where it was not evaluated."""
        with suppress(manifest.DamagedError, OSError):
            found = manifest.read(self.folder / str(step)).get("validation")
            return None if found is None else better(found, "max")  # an earlier version wrote a NaN as it was
        return None

    def newest(self) -> dict[str, Any]:
        """The manifest of the newest checkpoint, of those whose manifest can be read; {} where there is none."""
        for step in self.steps():
            with suppress(manifest.DamagedError, OSError):
                return manifest.read(self.folder / str(step))
        return {}

    def config(self) -> dict[str, Any] | None:
        """The configuration that the newest checkpoint was made with, of those whose manifest can be read."""
        return self.newest().get("config")

    def restore(
        self, like: Sequence[Spec], before: int | None = None, live: PyTree = None, *, best: bool = False
    ) -> Checkpoint | None:
        """The newest sound checkpoint (at or before a step, or the best on validation), or None.

        Args:
          like: has the structure and shapes of the states.
          before, best: see `find`.
          live: an engine state, or its specs, such as the one that was saved; None does without.

        Raises:
          ValueError: if the checkpoint is of another network or optimizer.
        """
        found = self.find(before, best=best)
        return None if found is None else self.load(found["step"], like, live)

    def usable(self, step: int) -> bool:
        """Whether a step is sound; one that is not is named."""
        return self._sound(step) is not None

    def raw_states(self, step: int) -> tuple[BlockState, ...]:
        """The states of a checkpoint that was found, as host arrays, for whoever has no model; without optimizers."""
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            found = reader.restore(
                self.folder / str(step), args=ocp.args.Composite(blocks=ocp.args.StandardRestore())
            ).blocks
        return tuple(BlockState(block["params"], block["model_state"], {}) for block in found)

    def load(self, step: int, like: Sequence[Spec], live: PyTree = None) -> Checkpoint:
        """A checkpoint that was found; see `restore`."""
        folder = self.folder / str(step)
        items = {"blocks": ocp.args.StandardRestore(tuple(like)), "meta": ocp.args.JsonRestore()}
        if live is not None and (folder / "live").exists():
            items["live"] = ocp.args.StandardRestore([_spec(x) for x in jax.tree.leaves(live)])
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            try:
                found = reader.restore(folder, args=ocp.args.Composite(**items))
            except ValueError as error:
                raise ValueError(f"the checkpoint of step {step} is of another network: {one_line(error)}") from error
        wrong = [
            f"{jax.tree_util.keystr(path)} is {x.shape} there and {spec.shape} here"
            for (path, x), spec in zip(
                jax.tree_util.tree_leaves_with_path(found.blocks), jax.tree.leaves(like), strict=True
            )
            if x.shape != spec.shape
        ]
        if wrong:
            raise ValueError(f"the checkpoint of step {step} is of another network: {'; '.join(wrong[:3])}.")
        flying = None
        if "live" in items:
            leaves, structure = jax.tree.flatten(live)
            back = [_like(old, new) for old, new in zip(leaves, found.live, strict=True)]
            flying = jax.tree.unflatten(structure, back)
        return Checkpoint(step, found.blocks, found.meta, flying)

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON object of a checkpoint that was found."""
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            return reader.restore(self.folder / str(step), args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta


def _is_step(name: str) -> bool:
    """Whether a folder's name is that of a checkpoint: a whole number as Python writes it, so not `036` or `³`."""
    return name.isdecimal() and str(int(name)) == name


def one_line(error: BaseException) -> str:
    """What an error says, in one line; the operating system's own words where they are at the bottom of it."""
    while not isinstance(error, OSError) and (error.__cause__ or error.__context__):
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 600 else f"{text[:300]} ... {text[-300:]}"


def _spec(leaf: Any) -> jax.ShapeDtypeStruct:
    data = jax.eval_shape(to_data, leaf) if isinstance(leaf, jax.ShapeDtypeStruct) else to_data(leaf)
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        sharding = data.sharding
    return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=sharding)


def _like(old: Any, new: jax.Array) -> jax.Array:
    if not is_key(old):
        return new
    if isinstance(old, jax.ShapeDtypeStruct):
        return jax.random.wrap_key_data(new)
    return jax.random.wrap_key_data(new, impl=jax.random.key_impl(old))
