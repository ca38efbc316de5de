"""What a run's first states are made of: nothing, a shorter network, or a trained one's layers."""

from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from typing import NamedTuple

import jax
import numpy as np

from localgrad.base import BlockState, Key, Model
from localgrad.methods import fitting, graft, transfer
from localgrad.pipeline import completed, drawn, hollow, init, specs
from localgrad.prediction import About
from localgrad.training.builders import build_model
from localgrad.training.config import Config
from localgrad.training.config_file import read_config
from localgrad.training.inputs import read_inputs
from localgrad.training.loading import known_of, load_states
from localgrad.training.restoring import restore


class Trained(NamedTuple):
    """A trained network to begin with.

    Attributes:
      states: one `BlockState` a block.
      about: what is known of it besides; None where only states are given.
      name: what it is called in lines for the user.
    """

    states: tuple[BlockState, ...]
    about: About | None = None
    name: str = "the trained network"


class Beginning(NamedTuple):
    """How a run begins.

    Attributes:
      draw: key -> the first states of the blocks.
      notes: lines for the user, said when it does.
    """

    draw: Callable[[Key], tuple[BlockState, ...]]
    notes: tuple[str, ...] = ()


def beginning(model: Model, config: Config, about: About) -> Beginning:
    """The first states of a run by names; what does not fit is refused at once.

    Args:
      model: the model.
      config: its configuration.
      about: what is known of its data.

    Raises:
      ValueError, FileNotFoundError: a workdir to begin with that is none, or of another network.
    """
    if config.begin_from is not None:
        trained = trained_in(config.begin_from)
        begun = transferred(model, trained, about)
    elif config.grow_from is not None:
        trained = _shorter(config)
        begun = grown(model, trained, about)
    else:
        return Beginning(partial(init, model))
    if config.word_vectors is not None and fitting(specs(model)[0], trained.states)[0]:
        line = f"the vectors of the words are those of {trained.name}, and not of --word_vectors={config.word_vectors}"
        begun = begun._replace(notes=(*begun.notes, line))
    return begun


def trained_in(workdir: str | PathLike) -> Trained:
    """The best network of a run.

    Raises:
      FileNotFoundError: there is none.
    """
    return Trained(load_states(workdir), known_of(workdir), str(workdir))


def transferred(model: Model, trained: Trained, about: About) -> Beginning:
    """First states with the layers of a trained network in place of their own; heads and optimizers begin anew.

    Blocks in which nothing learns (`freeze`) are taken over with their heads, which would else stay as they are drawn,
    unless those say something else than is to be learnt here.

    Args:
      model: the new network.
      trained: the old one.
      about: what is known of the new one's data.

    Raises:
      ValueError: nothing of it fits, or its columns or words are numbered otherwise.
    """
    check_numbered(trained, about)
    like = hollow(tuple(specs(model)[0]))
    frozen = [i for i, block in enumerate(model.blocks) if not block.tx]
    whole = frozen if _say_the_same(trained.about, about) else []
    taken_over(like, trained.states, whole)  # shapes alone: refused before anything is drawn
    has = lambda i, groups: {group for group in groups if jax.tree.leaves(like[i].params.get(group))}
    layers, everything = fitting(like, trained.states), fitting(like, trained.states, None)
    taken = [everything[i] if i in whole else layers[i] for i in range(len(like))]
    anew = [i + 1 for i, groups in enumerate(taken) if "f" not in groups and has(i, ["f"])]
    still = [i + 1 for i in frozen if has(i, like[i].params) - set(taken[i])]
    which = "all its layers" if not anew else f"its layers, but for those of {_blocks(anew)}, which differ,"
    notes = [f"beginning with {trained.name}: {which} are taken over; all else begins anew"]
    if still:
        notes.append(f"of {_blocks(still)}, where nothing learns, some is not taken over and stays as it is drawn")
    draw = lambda key: completed(model, key, taken_over(drawn(model, key), trained.states, whole))
    return Beginning(draw, (*notes, *scaled(trained, about)))


def taken_over(
    states: tuple[BlockState, ...], trained: tuple[BlockState, ...], whole: Sequence[int]
) -> tuple[BlockState, ...]:
    """States with the layers of trained ones, and of some blocks with all that fits."""
    everything = transfer(states, trained, None)
    return tuple(everything[i] if i in whole else state for i, state in enumerate(transfer(states, trained)))


def _say_the_same(theirs: About | None, ours: About) -> bool:
    """Whether the numbers of two networks' scores mean the same, as far as that is known."""
    if theirs is None:
        return True
    named = theirs.label_names is not None and ours.label_names is not None
    same = not named or theirs.label_names == ours.label_names
    return same and (theirs.task, theirs.outputs) == (ours.task, ours.outputs)


def check_numbered(trained: Trained, about: About) -> None:
    """Refuses data whose columns or words are numbered otherwise than those that a network was trained on."""
    known = trained.about
    if known is None:
        return
    for theirs, ours, what, how in (
        (known.columns, about.columns, "columns", "Put them in its order."),
        (known.words, about.words, "words", "Number them as it does, or take another number of words (--vocabulary)."),
    ):
        if theirs and ours and len(theirs) == len(ours) and tuple(theirs) != tuple(ours):
            at = next(i for i, (old, new) in enumerate(zip(theirs, ours, strict=True)) if old != new)
            raise ValueError(
                f"{trained.name} was trained on other {what}: number {at} is {theirs[at]!r} there and {ours[at]!r} "
                f"in these data, so that the same numbers mean something else. {how}"
            )


def scaled(trained: Trained, about: About) -> tuple[str, ...]:
    """A line where inputs are scaled otherwise than those of a network: by a tenth of their deviation, or more."""
    known = trained.about
    if known is None or not _apart(known.stats, about.stats):
        return ()
    return (
        f"{trained.name} was trained on inputs scaled by {_scaling(known)}, and these are by {_scaling(about)}: "
        "the same input is another number to it",
    )


def _apart(theirs: tuple[np.ndarray, np.ndarray] | None, ours: tuple[np.ndarray, np.ndarray] | None) -> bool:
    if theirs is None or ours is None or theirs[0].shape != ours[0].shape:
        return theirs is not ours
    return bool(np.any(np.abs([ours[0] - theirs[0], ours[1] - theirs[1]]) > 0.1 * theirs[1]))


def _scaling(about: About) -> str:
    if about.mean is None or about.std is None:
        return "nothing"
    show = lambda values: ", ".join(f"{value:.4g}" for value in values[:3]) + (", ..." if len(values) > 3 else "")
    return f"mean {show(about.mean)} and deviation {show(about.std)}"


def _blocks(numbers: Sequence[int]) -> str:
    return ("block " if len(numbers) == 1 else "blocks ") + ", ".join(map(str, numbers))


def grown(model: Model, trained: Trained, about: About) -> Beginning:
    """First states that go on from a shorter network."""
    graft(specs(model)[0], trained.states)
    check_numbered(trained, about)
    return Beginning(
        lambda key: completed(model, key, graft(drawn(model, key), trained.states)), scaled(trained, about)
    )


def _shorter(config: Config) -> Trained:
    """The network of the run that a run grows from."""
    shorter = read_config(str(config.grow_from))
    for name in ("method", "dataset", "trials", "dtype"):
        ours, theirs = getattr(config, name), getattr(shorter, name)
        if ours != theirs:
            raise ValueError(
                f"--grow_from={config.grow_from} has --{name}={theirs}, this run {ours!r}: they must agree."
            )
    like = specs(build_model(shorter, read_inputs(shorter)))[0]
    return Trained(restore(like, shorter.workdir).states, known_of(shorter.workdir), shorter.workdir)
