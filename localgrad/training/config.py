"""The configuration of a run: what a command line fills in, checked at the door."""

import dataclasses
from os import PathLike
from typing import Any

from localgrad.data import VOCABULARY
from localgrad.pipeline import STALENESS
from localgrad.training.kinds import shown, wrong

# Fields that say where and how a run is carried out: a workdir may be resumed with others where they do not change what
# it computes, see `localgrad.training.placement`.
PLACEMENT = (
    "workdir", "data_dir", "stages", "data_parallel", "cuts", "batches_per_call", "checkpoint_every_steps", "resident",
    "engine", "micro_batches", "new_delays",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """One training run.

    Attributes:
      method: name of the learning rule.
      profile: the published form of the method; None is the method's default.
      target_width: Associated Learning's target width; None is the method's default.
      bridge: hidden widths of Associated Learning's bridges, in units of the target width; None is the profile's.
      method_options: more of the method's options, each `name=value`.
      net: name of the network.
      widths: features of each layer; None is the network's default.
      blocks: layers in each block, or how many blocks; None is one layer a block.
      activation, norm, dropout: of every layer, see `localgrad.blocks`; None is the network's default.
      net_options: more of the network's options, each `name=value`.
      dataset, data_dir: what to train on, see `localgrad.data.get`.
      max_length: of texts, the tokens that are kept; None is as many as the longest has.
      vocabulary: of texts, how many of the training split's commonest words are told apart.
      word_vectors: of texts, a file of word vectors to begin with (GloVe's form); None begins at random.
      label_noise: share of the training labels that are drawn anew, uniformly over the classes; the same in every run.
      limit: train on the first `limit` examples only; None is all of them.
      augment: names of augmentations, in order.
      resident: keep the training set on the device; None decides by its size.
      batch_size: examples a batch, over all data shards.
      epochs: passes over the training set.
      optimizer, learning_rate, schedule, weight_decay, clip_norm: see `localgrad.training.optimizers`.
      decay_on: what decays: `recipe` is the kernels (no biases, no norms' scales) of the groups that the method's
        papers decay; `kernels` those of all groups, `all` every parameter; or groups joined by `+`, whose kernels do.
      decay_times_rate: the decay is times the rate; without, each step takes that share of the parameters away.
      feedback_optimizer, feedback_learning_rate, feedback_schedule, feedback_weight_decay: of feedback that learns
        (dkp, kp); None is the weights' own.
      grow_from: workdir of a run of a shorter network, whose newest checkpoint this one begins with.
      frozen: number of lower blocks that do not learn.
      seed: seeds initialisation, order, augmentation and dropout; trial r has `seed + r`.
      trials: independent repetitions.
      trials_by: `vmap` trains them as one batched model, `loop` one after another.
      dtype: float32 or float64.
      stages, data_parallel: the mesh.
      cuts: block indices at which stages begin and end; None balances them.
      engine: `spmd` is the pipeline, `sequential` the reference on one device, with the delays that the stages would
        have; `auto` takes the pipeline where there is more than one device.
      staleness: of methods that wait for the error at the output; `delayed` streams a batch a tick, `locked` lets each
        go through first.
      micro_batches: of backpropagation over stages; parts of a batch that follow each other; None is up to 4 a stage,
        none too small to learn from.
      new_delays: go on with a `delayed` run on other stages, which changes its delays.
      batches_per_call: most batches that one call of the engine trains on.
      checkpoint_every_steps: batches between checkpoints besides the one at each epoch's end; 0 is none besides.
      workdir: folder of everything the run writes.
    """

    method: str = "al"
    profile: str | None = None
    target_width: int | None = None
    bridge: tuple[int, ...] | None = None
    method_options: tuple[str, ...] = ()
    net: str = "mlp"
    widths: tuple[int, ...] | None = None
    blocks: tuple[int, ...] | None = None
    activation: str | None = None
    norm: bool | None = None
    dropout: float | None = None
    net_options: tuple[str, ...] = ()
    dataset: str = "digits"
    data_dir: str | None = None
    max_length: int | None = None
    vocabulary: int = VOCABULARY
    word_vectors: str | None = None
    label_noise: float = 0.0
    limit: int | None = None
    augment: tuple[str, ...] = ()
    resident: bool | None = None
    batch_size: int = 64
    epochs: int = 5
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    weight_decay: float = 0.0
    decay_on: str = "recipe"
    decay_times_rate: bool = True
    clip_norm: float | None = None
    feedback_optimizer: str | None = None
    feedback_learning_rate: float | None = None
    feedback_schedule: str | None = None
    feedback_weight_decay: float | None = None
    grow_from: str | None = None
    frozen: int = 0
    seed: int = 0
    trials: int = 1
    trials_by: str = "vmap"
    dtype: str = "float32"
    stages: int = 1
    data_parallel: int = 1
    cuts: tuple[int, ...] | None = None
    engine: str = "auto"
    staleness: str = "delayed"
    micro_batches: int | None = None
    new_delays: bool = False
    batches_per_call: int = 64
    checkpoint_every_steps: int = 0
    workdir: str = "runs/latest"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            expected = wrong(field.type, getattr(self, field.name))
            if expected:
                raise ValueError(f"--{field.name} is {expected}; got {shown(getattr(self, field.name))}.")
        for name, least in (
            ("batch_size", 1), ("epochs", 1), ("trials", 1), ("stages", 1), ("data_parallel", 1),
            ("batches_per_call", 1), ("checkpoint_every_steps", 0), ("seed", 0),
            ("frozen", 0), ("limit", 1), ("target_width", 1), ("micro_batches", 1),
            ("max_length", 1), ("vocabulary", 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name} must be at least {least}; got {value}.")
        if not 0 <= self.label_noise <= 1:
            raise ValueError(f"--label_noise is a share in [0, 1]; got {self.label_noise}.")
        for name, known in (
            ("dtype", ("float32", "float64")),
            ("trials_by", ("vmap", "loop")),
            ("engine", ("auto", "sequential", "spmd")),
            ("staleness", STALENESS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"--{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}.")
        if self.seed + self.trials > 2**32:
            raise ValueError(f"--seed plus --trials must stay below 2**32; got {self.seed} and {self.trials}.")

    @classmethod
    def from_json(cls, saved: dict[str, Any], **changes: Any) -> "Config":
        """The configuration of a `config.json`, with some fields changed.

        Raises:
          ValueError: for fields that this version does not know.
        """
        unknown = set(saved) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"a configuration of another version: it has the fields {', '.join(sorted(unknown))}.")
        tuples = {key: tuple(value) for key, value in saved.items() if isinstance(value, list)}
        return cls(**(saved | tuples | changes))

    def to_json(self) -> dict[str, Any]:
        """The fields as they stand in `config.json`."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}


def check_same(config: Config, saved: dict[str, Any], folder: PathLike) -> None:
    """Refuses a workdir that was made by a run of another configuration.

    Raises:
      ValueError: naming every field that differs, with both values.
    """
    ours = config.to_json()
    theirs = {**Config().to_json(), **saved}  # a field that an older version did not have was at its default
    differing = [
        f"{name} is {theirs[name]!r} there and {value!r} here"
        for name, value in ours.items()
        if name not in PLACEMENT and theirs[name] != value
    ]
    if differing:
        raise ValueError(
            f"{folder} holds a run of another configuration: {'; '.join(differing)}. Give this run another "
            "--workdir, or repeat the command that made that one."
        )
