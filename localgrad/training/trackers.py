"""Trackers: who is told how a run goes, a row a call of the engine and a row an epoch.

A tracker is anything with the four methods of `Tracker`.  The loop writes to any number of them;
`JsonLines` is always one.  What a run computes never depends on them.
"""

import json
from collections.abc import Sequence
from os import PathLike
from typing import Any, Protocol, runtime_checkable

import numpy as np

from localgrad.training.json_lines import Row
from localgrad.training.workdir import folder_of


@runtime_checkable
class Tracker(Protocol):
    """Told how a run goes; rows are JSON objects, see `localgrad.training.rows`."""

    def start(self, run: Row, step: int) -> None:
        """Before training: what is known of the run, and the batch it begins or goes on at; later rows come again."""

    def call(self, row: Row) -> None:
        """After a call of the engine."""

    def epoch(self, row: Row) -> None:
        """After an epoch."""

    def close(self) -> None:
        """After the last row, however the run ended."""


def flat(row: Row, blocks: Sequence[str] = ()) -> dict[str, float]:
    """A row as names and numbers: of lists one name a block or an exit, of trials their mean.

    Examples:
      >>> flat({"step": 8, "block_loss": [0.5, [0.1, 0.3]], "test_accuracy": [80, 90]}, ["conv", "dense"])
      {'step': 8.0, 'block_loss/1 conv': 0.5, 'block_loss/2 dense': 0.2, 'test_accuracy': 85.0}
    """
    found = {}
    for name, value in row.items():
        by_exit, of_split = "exit_" in name, name.startswith(("validation_", "test_"))
        if isinstance(value, list) and (by_exit or not of_split):
            wide = len(str(len(value)))
            for i, each in enumerate(value):
                if each is not None:
                    own = f" {blocks[i]}" if not by_exit and i < len(blocks) else ""
                    found[f"{name}/{i + 1:0{wide}}{own}"] = float(np.mean(each))
        elif isinstance(value, list | bool | int | float):
            found[name] = float(np.mean(value))
    return found


class TensorBoard:
    """Event files for TensorBoard, by tensorboardX; no TensorFlow.

    Args:
      folder: where they are written.

    Raises:
      ImportError: tensorboardX is not installed.
    """

    def __init__(self, folder: str | PathLike):
        try:
            import tensorboardX  # noqa: F401
        except ImportError:
            raise ImportError("events for TensorBoard need tensorboardX: `pip install tensorboardX`.") from None
        self.folder = str(folder_of(folder))
        self._writer: Any = None
        self._blocks: Sequence[str] = ()

    def start(self, run: Row, step: int) -> None:
        from tensorboardX import SummaryWriter

        self._blocks = run.get("blocks", ())
        self._writer = SummaryWriter(self.folder, purge_step=step + 1 if step else None)
        self._writer.add_text("configuration", f"```\n{json.dumps(run, indent=1)}\n```", step)

    def call(self, row: Row) -> None:
        self._write("call", row)

    def epoch(self, row: Row) -> None:
        self._write("epoch", row)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, kind: str, row: Row) -> None:
        for name, value in flat(row, self._blocks).items():
            if name not in ("step", "epoch"):
                self._writer.add_scalar(f"{kind}/{name}", value, int(row["step"]))


class WeightsAndBiases:
    """Weights & Biases, or whatever speaks as it does, such as trackio: `init`, and of a run `log` and `finish`.

    Args:
      run: a module (`import wandb`), whose `init` is called with the configuration, or a run that is under way, which
        is not finished at the end.
      options: for `init`: `project`, `name`, `mode="offline"` and so on.

    Raises:
      TypeError: for what is neither.
    """

    def __init__(self, run: Any, **options: Any):
        if not (hasattr(run, "log") or hasattr(run, "init")):
            raise TypeError(f"give wandb, trackio, or a run of theirs; got {run!r}, which has neither init nor log.")
        self._given, self._options = run, options
        self._run: Any = None
        self._blocks: Sequence[str] = ()

    def start(self, run: Row, step: int) -> None:
        self._blocks = run.get("blocks", ())
        self._run = self._given.init(config=dict(run), **self._options) if hasattr(self._given, "init") else self._given

    def call(self, row: Row) -> None:
        self._log("call", row)

    def epoch(self, row: Row) -> None:
        self._log("epoch", row)

    def close(self) -> None:
        if self._run is not None and self._run is not self._given:
            self._run.finish()
        self._run = None

    def _log(self, kind: str, row: Row) -> None:
        found = {f"{kind}/{name}": value for name, value in flat(row, self._blocks).items() if name != "step"}
        self._run.log(found, step=int(row["step"]))
