"""What every run is told, be its model and data named on a command line or given in a program.

The loop, the checkpoints and the placement read these fields and no others; `Config` adds the names, `OwnConfig` says
what was given.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, Self

from localgrad.pipeline import STALENESS, WEIGHTS
from localgrad.training.fields import Option, check_fields, option, options

INIT_KEY, TRAIN_KEY = 0, 1  # what `fold_in` makes of the seed's key: for the first states, and for training

_training = partial(option, group="Training")
_pipeline = partial(option, group="Pipeline", placement=True)
_files = partial(option, group="Files", placement=True)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A training run: how long, from which seed, on which devices, and where its files are."""

    batch_size: int = _training(64, "examples a batch, over all data shards", least=1)
    epochs: int = _training(
        5,
        "passes over the training set; more of them go on with a workdir whose rates do not depend on how many",
        least=1,
    )
    stop_after: int | None = _training(
        None,
        "epochs without a better validation after which training ends; None goes through all of them",
        least=1,
        placement=True,
    )
    seed: int = option(
        0,
        "seeds initialisation, order, augmentation and dropout; trial r has `seed + r`",
        least=0,
        group="Repetition",
    )
    stages: int = _pipeline(1, "of the pipeline: devices that blocks are spread over", least=1)
    data_parallel: int = _pipeline(1, "shards of a batch, each with a pipeline of its own", least=1)
    cuts: tuple[int, ...] | None = _pipeline(None, "block indices at which stages begin and end; None balances them")
    engine: str = _pipeline(
        "auto",
        "`spmd` is the pipeline, `mpmd` the same with programs of its own for each stage, of one process, "
        "`sequential` the reference on one device, with the delays that the stages would have; `auto` takes `spmd` "
        "where there is more than one device",
        choices=("auto", "sequential", "spmd", "mpmd"),
    )
    staleness: str = _pipeline(
        "delayed",
        "of methods that wait for the error at the output; `delayed` streams a batch a tick, `locked` lets "
        "each go through first",
        choices=STALENESS,
        placement=False,
    )
    asynchronous: str | None = _pipeline(
        None,
        "of backpropagation over stages; streams a batch a tick, stages learn late, and the way back uses the weights "
        "`stashed` in the pass or the `current` ones; None waits for each batch",
        choices=WEIGHTS,
        placement=False,
    )
    micro_batches: int | None = _pipeline(
        None,
        "of backpropagation over stages; parts of a batch that follow each other; None is up to 4 a stage, "
        "none too small to learn from",
        least=1,
    )
    replay: int | None = _pipeline(
        None,
        "of methods whose blocks wait for nothing; blocks have their turns in a drawn order, and each learns from a "
        "buffer of the last so many batches of the block below; on one device",
        least=1,
        placement=False,
    )
    replay_shares: tuple[float, ...] | None = _pipeline(
        None,
        "with --replay: the chance of each block to have a turn, in proportion to the others'; None is the same for "
        "all",
        placement=False,
    )
    new_delays: bool = _pipeline(False, "go on with a `delayed` run on other stages, which changes its delays")
    batches_per_call: int = _pipeline(64, "most batches that one call of the engine trains on", least=1)
    resident: bool | None = option(
        None, "keep the training set on the device; None decides by its size", group="Data", placement=True
    )
    checkpoint_every_steps: int = _files(
        0, "batches between checkpoints besides the one at each epoch's end; 0 is none besides", least=0
    )
    workdir: str = _files("runs/latest", "folder of everything the run writes")
    tensorboard: bool = _files(False, "write events for TensorBoard into the workdir; needs tensorboardX")
    trace: tuple[int, ...] | None = _files(
        None, "FROM,TO: write what the devices do between these batches, for TensorBoard's profiler"
    )

    def __post_init__(self):
        check_fields(self)
        self._load()
        for name, about in self.options().items():
            about.check(name, getattr(self, name))
        if self.trace is not None and (len(self.trace) != 2 or not 0 <= self.trace[0] < self.trace[1]):
            raise ValueError(
                f"--trace is the numbers of two batches, FROM,TO, the first below the second; got {self.trace}."
            )
        if self.replay_shares is not None and self.replay is None:
            raise ValueError("--replay_shares say whose turn is drawn how often, which is drawn with --replay alone.")

    def _load(self) -> None:
        """What must happen before the fields are checked against their choices."""

    @classmethod
    def options(cls) -> Mapping[str, Option]:
        """What is known of each field."""
        return options(cls)

    @property
    def grows(self) -> bool:
        """Whether more epochs go on with a run of fewer: where nothing in it was made for their number."""
        return True

    @classmethod
    def from_json(cls, saved: dict[str, Any], **changes: Any) -> Self:
        """The configuration of a `config.json`, with some fields changed.

        Raises:
          ValueError: for fields that this version does not know.
        """
        unknown = set(saved) - set(cls.options())
        if unknown:
            raise ValueError(f"a configuration of another version: it has the fields {', '.join(sorted(unknown))}.")
        tuples = {key: tuple(value) for key, value in saved.items() if isinstance(value, list)}
        return cls(**(saved | tuples | changes))

    def to_json(self) -> dict[str, Any]:
        """All fields, as they stand in `config.json`."""
        values = {name: getattr(self, name) for name in self.options()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
