"""What a run is told and would pass over in silence, or end by before it has learnt: refused at the door.

A flag at its default is not given.  A run that an earlier version began with such a flag goes on as it is.
"""

from collections.abc import Collection, Mapping
from typing import Any

from localgrad.base import Model
from localgrad.pipeline import signal_of
from localgrad.training.config import Config
from localgrad.training.inputs import Inputs
from localgrad.training.run_config import RunConfig


def check_heard(
    config: RunConfig, model: Model, splits: Collection[str], batches: int, saved: Mapping[str, Any] | None
) -> None:
    """Refuses what nothing of this model, these splits or a run of so many batches would heed.

    Args:
      config: as the user gave it.
      model: the model.
      splits: the names of those that there are.
      batches: in the whole run.
      saved: the configuration of a run that is in the workdir already, or None.

    Raises:
      ValueError: naming the flag, and what to do.
    """
    given = _given(config, saved)
    if "stop_after" in given:
        _check_stop(config.stop_after, model, splits)
    _check_turns(model, batches)
    if "trace" in given and config.trace is not None and config.trace[0] >= batches:
        first, last = config.trace
        raise ValueError(
            f"--trace={first},{last} is beyond the run, whose batches are 0 to {batches - 1}: give numbers of those."
        )
    signal = signal_of(model)
    if "staleness" in given and signal == "none":
        raise ValueError(
            f"--staleness={config.staleness} is of methods that wait for the error at the output; the blocks of "
            f"{model.method!r} wait for nothing: leave it out."
        )
    if "micro_batches" in given and config.micro_batches != 1 and signal != "above":
        raise ValueError(
            f"--micro_batches={config.micro_batches} is of backpropagation over stages, and the blocks of "
            f"{model.method!r} learn from whole batches: leave it out."
        )


def check_heard_of_names(config: Config, model: Model, inputs: Inputs, saved: Mapping[str, Any] | None) -> None:
    """Refuses the flags of a run by names that its data or its blocks would not heed.

    Args:
      config, model, saved: as for `check_heard`.
      inputs: its data.

    Raises:
      ValueError: naming the flag, and what to do.
    """
    given = _given(config, saved)
    for name in ("max_length", "vocabulary"):
        if name in given and inputs.train.words is None:
            raise ValueError(
                f"--{name}={getattr(config, name)} is of texts that are made of words, and {inputs.train.name} has "
                "none: leave it out."
            )
    groups = {group for block in model.blocks for names in block.tx for group in names.split("+")}
    still = [group for group in config.decay_on.split("+") if group not in groups]
    if "decay_on" in given and config.decay_on not in ("recipe", "kernels", "all") and still:
        raise ValueError(
            f"--decay_on={config.decay_on}: nothing of {still[0]} learns in this run, and what does not learn does not "
            f"decay; choose of {', '.join(sorted(groups))}."
        )


def _given(config: RunConfig, saved: Mapping[str, Any] | None) -> set[str]:
    """The fields that are not at their defaults, without those that a run in the workdir was begun with."""
    here, default = config.to_json(), type(config)().to_json()
    return {name for name, value in here.items() if value != default[name] and (saved or {}).get(name) != value}


def _check_stop(epochs: int | None, model: Model, splits: Collection[str]) -> None:
    """Refuses to stop after the best on validation where there is none, or before all blocks have begun."""
    if "validation" not in splits:
        raise ValueError(
            f"--stop_after={epochs} waits for a better validation, and there is none: give validation, or leave it out."
        )
    if model.turn is not None:
        raise ValueError(
            f"--stop_after={epochs} looks at the last exit, which begins to learn last where blocks learn one after "
            "another: leave one out."
        )


def _check_turns(model: Model, batches: int) -> None:
    """Refuses a run that ends before the turn of its last block."""
    learning = sum(bool(block.tx) for block in model.blocks)
    if model.turn is not None and (learning - 1) * model.turn >= batches:
        raise ValueError(
            f"{learning} blocks learn one after another, from {model.turn} batches each, and the run has {batches}: "
            f"the last would not begin. Give it more than {(learning - 1) * model.turn}, by --epochs, or shorter turns."
        )
