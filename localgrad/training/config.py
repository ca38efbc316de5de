"""The configuration of a run: one place for each field's default, meaning, choices and bounds, checked at the door.

Flags and `--help` (`localgrad.cli.config_flags`), the checks below and the set of fields that say where a run is
carried out are all made from this.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial

from localgrad import plugins
from localgrad.blocks import NETWORKS
from localgrad.data import DATASETS, PADDINGS, VOCABULARY
from localgrad.methods import METHODS
from localgrad.training.fields import Option, option
from localgrad.training.optimizers import OF_WHOLE_RUN, OPTIMIZERS, SCHEDULES
from localgrad.training.run_config import RunConfig

# By the heading in `--help`.
_method = partial(option, group="Method")
_network = partial(option, group="Network")
_data = partial(option, group="Data")
_training = partial(option, group="Training")
_feedback = partial(option, group="Feedback that learns")
_growth = partial(option, group="Growth")
_repetition = partial(option, group="Repetition")

# The headings of `--help`, in order.
GROUPS = (
    "Method", "Network", "Data", "Training", "Feedback that learns", "Growth", "Repetition", "Pipeline", "Files",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """One training run, by names; what each field is stands beside it, and in `localgrad train --help`."""

    method: str = _method("al", "name of the learning rule", choices=METHODS)
    profile: str | None = _method(
        None, "the published form of the method; None is the method's default", argument_of="method"
    )
    target_width: int | None = _method(
        None, "Associated Learning's target width; None is the method's default", least=1, argument_of="method"
    )
    bridge: tuple[int, ...] | None = _method(
        None,
        "hidden widths of Associated Learning's bridges, in units of the target width; None is the profile's",
        argument_of="method",
    )
    codes: str | None = _method(
        None,
        "Associated Learning's codes of the targets: `learned` beside the features, learnt `first`, or `fixed`; None "
        "is the method's default",
        argument_of="method",
    )
    method_options: tuple[str, ...] = _method((), "more of the method's options, each `name=value`")
    double_buffered: int | None = _method(
        None,
        "of backpropagation; learn once in so many batches, from their mean gradient at weights that are one update "
        "old; with --asynchronous=stashed there is no bubble (2BW), and it is at least 2 (stages - 1)",
        least=1,
    )
    coarse_labels: tuple[str, ...] = _method(
        (),
        "of methods whose blocks learn from labels: for each block, from the first on, the coarse class of each class, "
        "such as `0:0:1:1`, or how many coarse classes neighbouring classes make, such as `2`",
    )
    net: str = _network("mlp", "name of the network", choices=NETWORKS)
    widths: tuple[int, ...] | None = _network(
        None, "features of each layer; None is the network's default", argument_of="net"
    )
    blocks: tuple[int, ...] | None = _network(
        None, "layers in each block, or how many blocks; None is one layer a block", argument_of="net"
    )
    activation: str | None = _network(
        None, "of every layer, see `localgrad.blocks`; None is the network's default", argument_of="net"
    )
    norm: bool | None = _network(None, "normalisation of every layer; None is the network's default", argument_of="net")
    dropout: float | None = _network(
        None, "share of every layer's features that training drops; None is the network's default", argument_of="net"
    )
    net_options: tuple[str, ...] = _network((), "more of the network's options, each `name=value`")
    dataset: str = _data("digits", f"what to train on: {', '.join(DATASETS)}, or a set of tensorflow-datasets")
    data_dir: str | None = _data(None, "folder of the data's files; None looks in the usual places", placement=True)
    max_length: int | None = _data(
        None, "of texts, the tokens that are kept; None is as many as the longest has", least=1
    )
    vocabulary: int = _data(
        VOCABULARY, "of texts, how many of the training split's commonest words have a token of their own", least=1
    )
    word_vectors: str | None = _data(
        None, "of texts, a file of word vectors to begin with (GloVe's form); None begins at random"
    )
    label_noise: float = _data(
        0.0,
        "share of the training labels that are drawn again, uniformly over the classes; the same in every run",
        least=0,
        most=1,
    )
    limit: int | None = _data(None, "train on the first so many examples only; None is all of them", least=1)
    augment: tuple[str, ...] = _data(
        (),
        "names of augmentations, in order: crop, flip, jitter, rescale, brightness; `name=amount` is one of another "
        "amount",
    )
    padding: str | None = _data(
        None, "what stands beside a picture that is cropped or jittered; None is zeros", choices=PADDINGS
    )
    scaling: str | None = _data(
        None,
        "the range that inputs are brought into, [-1, 1] or [0, 1]; None is a mean of 0 and a deviation of 1 of each "
        "channel",
        choices=("symmetric", "unit"),
    )
    optimizer: str = _training("adam", "of the weights", choices=OPTIMIZERS)
    learning_rate: float = _training(1e-3, "peak learning rate")
    schedule: str = _training("constant", "of the learning rate, over the whole run", choices=SCHEDULES)
    warmup_epochs: int = _training(
        0, "epochs in which the rate grows linearly from 0; the schedule begins after them", least=0
    )
    step_epochs: tuple[int, ...] | None = _training(
        None, "of --schedule=step: every how many epochs the rate falls, or several epochs after which it does"
    )
    step_factor: float | None = _training(None, "of --schedule=step: what the rate is multiplied by there; None is 0.1")
    weight_decay: float = _training(0.0, "decay; decoupled for adamw, L2 for the others")
    decay_on: str = _training(
        "recipe",
        "what decays: `recipe` is the kernels (no biases, no norms' scales) of the groups that the method's "
        "papers decay; `kernels` those of all groups, `all` every parameter; or groups joined by `+`, whose "
        "kernels do",
    )
    decay_times_rate: bool = _training(
        True, "the decay is multiplied by the rate; without, each step takes that share of the parameters away"
    )
    clip_norm: float | None = _training(None, "largest global norm of a gradient")
    feedback_optimizer: str | None = _feedback(
        None, "of what learns beside the weights; None is the method's, or else the weights'", choices=OPTIMIZERS
    )
    feedback_learning_rate: float | None = _feedback(None, "of the same; None is the method's, or else the weights'")
    feedback_schedule: str | None = _feedback(
        None, "of the same; None is the method's, or else the weights'", choices=SCHEDULES
    )
    feedback_weight_decay: float | None = _feedback(None, "of the same; None is the method's, or else the weights'")
    grow_from: str | None = _growth(
        None, "workdir of a run of a shorter network, whose newest checkpoint this one begins with"
    )
    begin_from: str | None = _growth(
        None,
        "workdir of a run whose best network's layers this one begins with where they fit, for other data or classes; "
        "heads and optimizers begin anew",
    )
    heads_alone: bool = _growth(False, "layers do not learn, what reads them does")
    frozen: int = _growth(0, "number of lower blocks that do not learn", least=0)
    greedy_epochs: int | None = _growth(
        None,
        "of methods whose blocks wait for nothing; each block learns for so many epochs, with the blocks below it "
        "frozen by then, one after another; None is all at once",
        least=1,
    )
    trials: int = _repetition(1, "independent repetitions", least=1)
    trials_by: str = _repetition(
        "vmap", "`vmap` trains trials as one batched model, `loop` one after another", choices=("vmap", "loop")
    )
    dtype: str = _training(
        "float32",
        "of parameters and arithmetic; `bfloat16` is of the blocks' arithmetic and messages alone, and parameters, "
        "statistics and losses are float32",
        choices=("float32", "float64", "bfloat16"),
    )
    plugin: tuple[str, ...] = _method((), "modules to import first: they register methods, networks and data sets")

    @property
    def long_dtype(self) -> str:
        """The dtype of parameters, inputs and losses."""
        return "float32" if self.dtype == "bfloat16" else self.dtype

    @property
    def grows(self) -> bool:
        """Whether more epochs go on with a run of fewer: not where a rate falls over the whole run."""
        return not {self.schedule, self.feedback_schedule} & OF_WHOLE_RUN

    def __post_init__(self):
        super().__post_init__()
        if self.grow_from is not None and self.begin_from is not None:
            raise ValueError(
                "--grow_from begins a longer network and --begin_from one of other data: say one of the two."
            )
        if self.padding is not None and not any(name.startswith(("crop", "jitter")) for name in self.augment):
            raise ValueError(f"--padding={self.padding} stands beside pictures that --augment=crop or jitter moves.")
        steps = self.step_epochs is not None or self.step_factor is not None
        if steps and "step" not in (self.schedule, self.feedback_schedule):
            raise ValueError(
                f"--step_epochs and --step_factor are of --schedule=step; the schedule is {self.schedule!r}."
            )
        if self.greedy_epochs is not None and self.stop_after is not None:
            raise ValueError(
                "--stop_after looks at the last exit, which begins to learn last with --greedy_epochs: leave one out."
            )
        if self.seed + self.trials > 2**32:
            raise ValueError(f"--seed plus --trials must stay below 2**32; got {self.seed} and {self.trials}.")

    @classmethod
    def options(cls) -> Mapping[str, Option]:
        """What is known of each field, in the order of the headings."""
        found = super().options()
        return dict(sorted(found.items(), key=lambda item: GROUPS.index(item[1].group)))

    def _load(self) -> None:
        plugins.load(self.plugin)  # before names are checked, which a plugin may register


OPTIONS = Config.options()
