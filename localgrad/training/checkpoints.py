"""Checkpoints: the canonical tree, one `BlockState` a block, and where the run stood."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from os import PathLike
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from localgrad.base import BlockState, PyTree, Spec
from localgrad.pipeline.packing import is_key, to_data
from localgrad.training import manifest
from localgrad.training.workdir import is_local

_ASIDE = "damaged"  # where checkpoints go that cannot be used
_UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of one that is being written


class Checkpoint(NamedTuple):
    """`states` after exactly `step` batches, as host arrays, and the JSON object saved with them.

    `live` is the engine's own state, with the batches in flight; None where it was not asked for.
    """

    step: int
    states: tuple[BlockState, ...]
    meta: dict[str, Any]
    live: PyTree = None


class SaveError(OSError):
    """A checkpoint could not be written; those before it are as they were."""


class _Keep:
    """Which checkpoints orbax keeps: the last two, and the first of the best on validation."""

    def __init__(self, validation: Callable[[int], float | None]):
        self._validation = validation  # of a step of an earlier process, from its manifest

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        validated = {}
        for info in checkpoints:
            found = info.metrics["validation"] if info.metrics else self._validation(info.step)
            if found is not None:
                validated[info.step] = found
        best = max(validated, key=lambda step: (validated[step], -step), default=None)
        kept = {best, *(info.step for info in checkpoints[-2:])}
        return [info.step in kept for info in checkpoints]


class Checkpoints:
    """The checkpoints of a run: the last two, and the best on validation (the first of equals).

    They hold no trace of the engine, so one made on four stages restores on any number.  Where nothing is late, nothing
    else is needed for a run to go on with the same bits: batches in flight were finished in the copy that was saved.
    Where updates are late, the engine's own state is saved beside it.

    Writing goes on in the background.  When all of a checkpoint is on the disk its manifest is written, with a digest
    of every file; one without, or that is not what it says, is named and passed over.  A write that failed is told of
    at the next `save`, or by `close`.  Nothing is moved or deleted before the first `save`.

    Args:
      folder: where they are; made at the first `save`.
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
        self._orbax: ocp.CheckpointManager | None = None
        self._thread = ThreadPoolExecutor(1)
        self._writing: tuple[int, Future] | None = None
        self._damaged: dict[int, str] = {}

    # --- what is there ---------------------------------------------------------------------------------------------

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
            if not (_is_step(child.name) or child.name == _ASIDE or _UNFINISHED in child.name):
                self._log(f"{child} is no checkpoint: the name of one is its number of batches, and nothing else")

    def find(self, before: int | None = None, *, best: bool = False) -> dict[str, Any] | None:
        """The manifest of the newest sound checkpoint, at or before a step, or None; damaged ones are named.

        Args:
          before: the last step that will do.
          best: the best on validation instead, the first of equals.
        """
        self.wait()
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
        found = {step: self._validation(step) for step in steps}
        return sorted((s for s in steps if found[s] is not None), key=lambda s: (-found[s], s))  # type: ignore[operator]

    def _validation(self, step: int) -> float | None:
        with suppress(manifest.DamagedError, OSError):
            return manifest.read(self.folder / str(step)).get("validation")
        return None

    def config(self) -> dict[str, Any] | None:
        """The configuration that the newest checkpoint was made with, of those whose manifest can be read."""
        for step in self.steps():
            with suppress(manifest.DamagedError, OSError):
                return manifest.read(self.folder / str(step)).get("config")
        return None

    # --- there and back --------------------------------------------------------------------------------------------

    def save(
        self,
        step: int,
        states: Sequence[BlockState],
        meta: dict[str, Any],
        validation: float | None = None,
        live: PyTree = None,
        digest: Callable[[tuple[BlockState, ...]], list[str]] = lambda states: [],
        **facts: Any,
    ) -> None:
        """Saves the state after `step` batches, and the engine's own if given; nothing if that is saved already.

        Args:
          step, states, meta, live: see `Checkpoint`.
          validation: accuracy, of a step at the end of an epoch.
          digest: of the states, for the manifest; worked out in the background.
          facts: more for the manifest.

        Raises:
          SaveError: if this one cannot be written, or the one before could not.
        """
        self.wait()
        try:
            manager = self._manager
            if step in manager.all_steps():
                return
            host = tuple(jax.device_get(states))
            items = {"blocks": ocp.args.StandardSave(host), "meta": ocp.args.JsonSave(meta)}
            if live is not None:
                items["live"] = ocp.args.StandardSave([jnp.copy(to_data(x)) for x in jax.tree.leaves(live)])
            metrics = None if validation is None else {"validation": validation}
            manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)
        except Exception as error:  # orbax and its storage raise errors of many kinds
            raise self._failed(step, error) from error

        def finish() -> None:
            manager.wait_until_finished()
            if jax.process_index() == 0:
                content = {"validation": validation, "params_sha256": digest(host), **facts}
                manifest.write(self.folder / str(step), step, **content)

        self._writing = step, self._thread.submit(finish)

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
                raise ValueError(f"the checkpoint of step {step} is of another network: {_line(error)}") from error
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

    def wait(self) -> None:
        """Waits for the write under way.

        Raises:
          SaveError: if it failed.
        """
        if self._writing is None:
            return
        (step, written), self._writing = self._writing, None
        try:
            written.result()
        except Exception as error:
            raise self._failed(step, error) from error

    def close(self) -> None:
        """Waits for the write under way, and lets go of everything.

        Raises:
          SaveError: if it failed.
        """
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            if self._orbax is not None:
                self._orbax.close()
                self._orbax = None

    @property
    def _manager(self) -> ocp.CheckpointManager:
        """Orbax's manager, made when something is to be written; what cannot be used is moved out of its way first."""
        if self._orbax is None:
            if jax.process_index() == 0:
                self._set_aside()
            if jax.process_count() > 1:
                from jax.experimental import multihost_utils

                multihost_utils.sync_global_devices("localgrad: damaged checkpoints are out of the way")
            options = ocp.CheckpointManagerOptions(
                preservation_policy=_Keep(self._validation), cleanup_tmp_directories=True
            )
            self._orbax = ocp.CheckpointManager(self.folder, options=options)
        return self._orbax

    def _set_aside(self) -> None:
        for step in self.steps():
            folder = self.folder / str(step)
            try:
                manifest.read(folder)
            except (manifest.DamagedError, OSError) as error:
                self._damaged.setdefault(step, str(error))
            if step in self._damaged:
                aside = self.folder / _ASIDE / str(step)
                aside.rmtree(missing_ok=True)
                aside.parent.mkdir(parents=True, exist_ok=True)
                folder.rename(aside)
                del self._damaged[step]

    def _failed(self, step: int, error: Exception) -> SaveError:
        """What to raise for a write that failed; its remains go, so that the step can be written again."""
        if self._orbax is not None:
            with suppress(Exception):  # it would tell of the same failure once more
                self._orbax.close()
            self._orbax = None
        if jax.process_index() == 0:
            with suppress(OSError):
                folder = self.folder / str(step)
                if folder.exists() and not (folder / manifest.NAME).exists():
                    folder.rmtree()
        return SaveError(f"the checkpoint of step {step} could not be written to {self.folder}: {_line(error)}")


def _is_step(name: str) -> bool:
    """Whether a folder's name is that of a checkpoint: a whole number as Python writes it, so not `036` or `³`."""
    return name.isdecimal() and str(int(name)) == name


def _line(error: BaseException) -> str:
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
