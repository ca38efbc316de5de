"""Checkpoints: the canonical tree, one `BlockState` a block, and where the run stood."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from localgrad.base import BlockState, PyTree
from localgrad.pipeline.packing import to_data
from localgrad.report.scores import better
from localgrad.training import manifest
from localgrad.training.checkpoint_reader import ASIDE, CheckpointReader, one_line


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
                validated[info.step] = better(found, "max")
        best = max(validated, key=lambda step: (validated[step], -step), default=None)
        kept = {best, *(info.step for info in checkpoints[-2:])}
        return [info.step in kept for info in checkpoints]


class Checkpoints(CheckpointReader):
    """The checkpoints of a run: the last two, and the best on validation (the first of equals).

    They hold no trace of the engine, so one made on four stages restores on any number.  Where no update is late,
    nothing else is needed for a run to go on with the same bits: batches in flight were finished in the copy that was
    saved.  Where updates are late, the engine's own state is saved beside it.

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
        super().__init__(folder, log, accept)
        self._orbax: ocp.CheckpointManager | None = None
        self._thread = ThreadPoolExecutor(1)
        self._writing: tuple[int, Future] | None = None

    def find(self, before: int | None = None, *, best: bool = False) -> dict[str, Any] | None:
        """As `CheckpointReader.find`, once the write under way is done."""
        self.wait()
        return super().find(before, best=best)

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
          validation: how good it is, larger is better, of a step at the end of an epoch (`goodness`).
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
                preservation_policy=_Keep(self.validation), cleanup_tmp_directories=True
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
                aside = self.folder / ASIDE / str(step)
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
        return SaveError(f"the checkpoint of step {step} could not be written to {self.folder}: {one_line(error)}")
