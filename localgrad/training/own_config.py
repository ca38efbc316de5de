"""The configuration of a run whose model and data were given in a program, not named."""

import dataclasses
import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax

from localgrad.base import Model
from localgrad.pipeline import specs
from localgrad.training.fields import Option, option
from localgrad.training.run_config import RunConfig

_given = partial(option, group="What was given")


@dataclasses.dataclass(frozen=True)
class OwnConfig(RunConfig):
    """What is known of a run of `localgrad.fit`; by it a workdir knows its run again.

    Functions have no name that a file could hold.  `model` is a digest of what can be seen of one: its method, the
    names of its blocks, the shapes and dtypes of inputs, parameters and optimizer states, the groups that each
    optimizer is for, its task and its exits.  `program` is of what they compute, such as an activation, or the rate of
    an optimizer, and is compared where the same versions traced both.  `hyperparameters` are for what else the caller
    says of the run.
    """

    model: str = _given("", "digest of what is trained")
    program: str = _given("", "digests of what its blocks and its optimizers compute")
    method: str = _given("", "the method's name")
    net: str = _given("", "the blocks' names")
    task: str = _given("", "what is learnt")
    dataset: str = _given("", "the data's name")
    data: str = _given("", "what the training data are: shapes and digests")
    evaluated: str = _given("", "what the other splits are: shapes and digests")
    preprocessing: str = _given("", "what is done to inputs")
    begin: str = _given("", "digest of the parameters that training begins with; none where they are drawn")
    hyperparameters: dict[str, Any] = dataclasses.field(
        default_factory=dict, metadata={"option": Option("what else the caller says of the run", "What was given")}
    )
    trials: int = _given(1, "independent repetitions, as one batched model")


def model_digest(model: Model) -> str:
    """What can be seen of a model, as 16 hexadecimal digits; see `OwnConfig`.

    Args:
      model: any model.
    """
    seen = [model.method, _shape(model.x_spec), _shape(model.y_spec), model.task.name, model.task.outputs, model.exits]
    for block, state in zip(model.blocks, specs(model)[0], strict=True):
        leaves = [(jax.tree_util.keystr(path), _shape(x)) for path, x in jax.tree_util.tree_leaves_with_path(state)]
        seen.append((block.name, block.signal, sorted(block.tx), sorted(leaves)))
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]


def names_of(model: Model) -> str:
    """The names of a model's blocks in one word; a name that repeats is there once, with its count.

    Examples:
      >>> from types import SimpleNamespace as Some
      >>> names_of(Some(blocks=[Some(name="conv"), Some(name="dense"), Some(name="dense")]))
      'conv-dense(2)'
    """
    counts: list[tuple[str, int]] = []
    for block in model.blocks:
        if counts and counts[-1][0] == block.name:
            counts[-1] = (block.name, counts[-1][1] + 1)
        else:
            counts.append((block.name, 1))
    return "-".join(name if count == 1 else f"{name}({count})" for name, count in counts)


def checked_hyperparameters(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Hyperparameters that JSON has, by name.

    Raises:
      ValueError: for a name that is no text, or a value that is no number, text, truth value or None.
    """
    for name, value in (given or {}).items():
        if not isinstance(name, str) or not (value is None or isinstance(value, bool | int | float | str)):
            raise ValueError(
                f"hyperparameters are names with numbers, texts, True, False or None; got {name!r}: {value!r}."
            )
    return dict(given or {})


def _shape(spec: Any) -> str:
    return f"{spec.shape} {spec.dtype}"
