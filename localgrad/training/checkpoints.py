"""Checkpoints: the canonical tree, one `BlockState` a block, and where the run stood."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from localgrad.base import BlockState, PyTree, Spec
from localgrad.pipeline.packing import is_key, to_data


class Checkpoint(NamedTuple):
    """`states` after exactly `step` batches, as host arrays, and the JSON object saved with them.

    `live` is the engine's own state, with the batches in flight; None where it was not asked for.
    """

    step: int
    states: tuple[BlockState, ...]
    meta: dict[str, Any]
    live: PyTree = None


class Checkpoints:
    """The checkpoints of a run: the last two, and the best on validation.

    They hold no trace of the engine, so one made on four stages restores on any number.  Where nothing is late, nothing
    else is needed for a run to go on with the same bits: batches in flight were finished in the copy that was saved.
    Where updates are late, the engine's own state is saved beside it.  Writing goes on in the background; a write that
    was cut off is not seen again.

    Args:
      folder: where they are; made if missing.
    """

    def __init__(self, folder: Path):
        keep = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(2),
                checkpoint_managers.BestN(
                    get_metric_fn=lambda metrics: metrics["validation"], n=1, keep_checkpoints_without_metrics=False
                ),
            ]
        )
        options = ocp.CheckpointManagerOptions(preservation_policy=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    @staticmethod
    def any(folder: Path) -> bool:
        """Whether a folder holds a checkpoint."""
        return bool(Checkpoints.steps(folder))

    @staticmethod
    def steps(folder: Path) -> list[int]:
        """The steps of the whole checkpoints in a folder, ascending."""
        return sorted(int(child.name) for child in folder.iterdir() if child.name.isdigit()) if folder.is_dir() else []

    def save(
        self,
        step: int,
        states: Sequence[BlockState],
        meta: dict[str, Any],
        validation: float | None = None,
        live: PyTree = None,
    ) -> None:
        """Saves the state after `step` batches, and the engine's own if given; nothing if that is saved already."""
        if step in self._manager.all_steps():
            return
        items = {"blocks": ocp.args.StandardSave(tuple(jax.device_get(states))), "meta": ocp.args.JsonSave(meta)}
        if live is not None:
            items["live"] = ocp.args.StandardSave([jnp.copy(to_data(x)) for x in jax.tree.leaves(live)])
        args = ocp.args.Composite(**items)
        metrics = None if validation is None else {"validation": validation}
        self._manager.save(step, args=args, metrics=metrics)

    def restore(self, like: Sequence[Spec], before: int | None = None, live: PyTree = None) -> Checkpoint | None:
        """The newest checkpoint (at or before a step), or None.

        Args:
          like: has the structure and shapes of the states.
          before: the last step that will do.
          live: an engine state such as the one that was saved; None does without.

        Raises:
          ValueError: if the checkpoint is of another network or optimizer.
        """
        steps = [step for step in self._manager.all_steps() if before is None or step <= before]
        if not steps:
            return None
        items = {"blocks": ocp.args.StandardRestore(tuple(like)), "meta": ocp.args.JsonRestore()}
        if live is not None and "live" in dict(self._manager.item_metadata(max(steps)).items()):
            specs = [
                jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in map(to_data, jax.tree.leaves(live))
            ]
            items["live"] = ocp.args.StandardRestore(specs)
        found = self._manager.restore(max(steps), args=ocp.args.Composite(**items))
        wrong = [
            f"{jax.tree_util.keystr(path)} is {x.shape} there and {spec.shape} here"
            for (path, x), spec in zip(
                jax.tree_util.tree_leaves_with_path(found.blocks), jax.tree.leaves(like), strict=True
            )
            if x.shape != spec.shape
        ]
        if wrong:
            raise ValueError(f"the checkpoint of step {max(steps)} is of another network: {'; '.join(wrong[:3])}.")
        flying = None
        if "live" in items:
            leaves, structure = jax.tree.flatten(live)
            back = [_like(old, new) for old, new in zip(leaves, found.live, strict=True)]
            flying = jax.tree.unflatten(structure, back)
        return Checkpoint(max(steps), found.blocks, found.meta, flying)

    def close(self) -> None:
        """Waits for writes under way."""
        self._manager.wait_until_finished()
        self._manager.close()


def _like(old: jax.Array, new: jax.Array) -> jax.Array:
    return jax.random.wrap_key_data(new, impl=jax.random.key_impl(old)) if is_key(old) else new
