"""What a page of reports is made of: values, gathered elsewhere, of one run each."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from localgrad.base import Plan
from localgrad.report.ledger import Ledger
from localgrad.report.scores import form_of, with_unit


class Epochs(NamedTuple):
    """A run's records as arrays, an entry an epoch; what was not written down is NaN.

    Attributes:
      epoch: `(E,)`, of training.
      loss: `(E, blocks, trials)`, of training.
      more: other numbers of training by name, `(E, blocks, trials)` each.
      rate: `(E,)` examples a second.
      evaluated: epochs of each of `validation` and `test`, `(V,)`.
      scores: of `validation` and `test`, `(V, exits, trials)` each: the task's first score.
      score: its name.
      percent: whether it is in percent.
      last: of `validation` and `test`, `(exits, trials)` each: the same at each trial's own last epoch; of trials that
        ended at different epochs those above are the ones that all have.  None takes the last row of those.
      done: epochs of training of each trial that ended by itself, or of all trials together.
      steps: batches of the same.
    """

    epoch: np.ndarray
    loss: np.ndarray
    more: dict[str, np.ndarray]
    rate: np.ndarray
    evaluated: dict[str, np.ndarray]
    scores: dict[str, np.ndarray]
    score: str = "accuracy"
    percent: bool = True
    last: Mapping[str, np.ndarray] | None = None
    done: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()

    @property
    def ended(self) -> np.ndarray:
        """The scores of `split` at each trial's own last epoch, `(exits, trials)`; for runs that have such scores."""
        return self.shown[-1] if self.last is None else self.last[self.split]

    @property
    def epochs_done(self) -> str:
        """How many epochs were trained; of trials that ended at different ones, how many each had."""
        several = len(set(self.done)) > 1
        return ", ".join(map(str, self.done)) if several else f"{self.epoch[-1]:g}"

    @property
    def split(self) -> str:
        """The split that scores are shown of: `test`, or `validation` where nobody gave a test split."""
        return "test" if self.scores["test"].size else "validation"

    @property
    def shown(self) -> np.ndarray:
        """The scores of that split, `(V, exits, trials)`; empty where there are none."""
        return self.scores[self.split]

    @property
    def words(self) -> str:
        """What the score is called, with its unit."""
        return with_unit(self.score, self.percent)

    @property
    def form(self) -> str:
        """How a number of it is written."""
        return f",{form_of(self.percent)}"


class Example(NamedTuple):
    """An example that the network predicts wrongly, and is sure about.

    Attributes:
      number: which of its split, from 0.
      label, predicted: names of classes.
      confidence: probability of what was predicted, from 0 to 1.
      picture: a `data:` address, or "" where the input is no image.
      words: the input as text; "" of an image.
    """

    number: int
    label: str
    predicted: str
    confidence: float
    picture: str
    words: str


class Seen(NamedTuple):
    """What predictions on the test split show.

    Attributes:
      confusion: `(C, C)` counts, a row a label and a column a prediction, at the last exit.
      classes: their names.
      worst: examples, the surest first.
    """

    confusion: np.ndarray
    classes: tuple[str, ...]
    worst: tuple[Example, ...]


class Run(NamedTuple):
    """A run as the page shows it.

    Attributes:
      name: short, and no other run's on the page.
      workdir: its folder, as the user gave it.
      config: the fields of its configuration.
      command: what trains it again.
      versions: of what made its last states.
      epochs: its records.
      summary: the object of `summary.json`, {} where it is not finished.
      blocks: names of its blocks; () where the model could not be built.
      exits: numbers of its exits.
      ledger, plan: None where the model could not be built.
      batches: in the whole run.
      measured: what `localgrad evaluate` found, by its names: `exits`, `anytime`, `cosine` and so on.
      seen: what predictions show, or None.
      notes: what is not on the page, and why, a sentence each.
    """

    name: str
    workdir: str
    config: dict[str, Any]
    command: str
    versions: dict[str, str]
    epochs: Epochs
    summary: dict[str, Any]
    blocks: tuple[str, ...] = ()
    exits: tuple[int, ...] = ()
    ledger: Ledger | None = None
    plan: Plan | None = None
    batches: int = 0
    measured: Mapping[str, Any] = MappingProxyType({})
    seen: Seen | None = None
    notes: tuple[str, ...] = ()
