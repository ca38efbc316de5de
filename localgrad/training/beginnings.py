"""What a run's first states are made of: nothing, a shorter network, or a trained one's layers."""

from collections.abc import Callable, Sequence
from functools import partial

from localgrad.base import BlockState, Key, Model
from localgrad.methods import graft, transfer
from localgrad.pipeline import completed, drawn, hollow, init, specs
from localgrad.training.builders import build_model
from localgrad.training.config import Config
from localgrad.training.config_file import read_config
from localgrad.training.inputs import read_inputs
from localgrad.training.loading import load_states
from localgrad.training.restoring import restore

Beginning = Callable[[Key], tuple[BlockState, ...]]


def beginning(model: Model, config: Config) -> Beginning:
    """The first states of a run by names; what does not fit is refused at once.

    Args:
      model: the model.
      config: its configuration.

    Raises:
      ValueError, FileNotFoundError: a workdir to begin with that is none, or of another network.
    """
    if config.grow_from is not None:
        return _grown(model, config)
    if config.begin_from is not None:
        return transferred(model, load_states(config.begin_from))
    return partial(init, model)


def transferred(model: Model, states: Sequence[BlockState]) -> Beginning:
    """First states with the layers of a trained network in place of their own; heads and optimizers begin anew.

    Raises:
      ValueError: nothing of it fits.
    """
    transfer(hollow(tuple(specs(model)[0])), states)  # shapes alone: refused before anything is drawn
    return lambda key: completed(model, key, transfer(drawn(model, key), states))


def _grown(model: Model, config: Config) -> Beginning:
    """First states that go on from a shorter network."""
    shorter = read_config(str(config.grow_from))
    for name in ("method", "dataset", "trials", "dtype"):
        ours, theirs = getattr(config, name), getattr(shorter, name)
        if ours != theirs:
            raise ValueError(
                f"--grow_from={config.grow_from} has --{name}={theirs}, this run {ours!r}: they must agree."
            )
    like = specs(build_model(shorter, read_inputs(shorter)))[0]
    states = restore(like, shorter.workdir).states
    graft(specs(model)[0], states)
    return lambda key: completed(model, key, graft(drawn(model, key), states))
