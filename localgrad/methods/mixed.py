"""Mixed errors: any local rule, whose blocks learn from a share of the error at the network's output as well.

    gradient at a block's output = (1 - w) that of its own loss + w e B_l      e = d loss / d scores

w = 0 is the rule itself, and w = 1 direct feedback alignment (`dfa`).  What reads a block's output (classifiers,
projections) keeps the whole of its own gradient, and so does a last block that makes the scores: its own is the true
one.

References:
  NOTES, a researcher's log (an error mixed of a block's own and the last layer's)
  Nokland, Direct Feedback Alignment Provides Learning in Deep Neural Networks, https://arxiv.org/abs/1609.01596
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from localgrad.base import BlockState, Forward, Key, LocalBlock, Message, Model
from localgrad.blocks.sequences import summarised
from localgrad.methods.feedback import Feedback, back, feedbacks
from localgrad.methods.parts import Answer, Run, local_block, waiting_block
from localgrad.tasks import Task


def mixed_error(model: Model, share: float, *, form: str = "dense", fan: str = "out", kernel: int = 3) -> Model:
    """Mixes a share of the output's error into every block of a local rule, through a fixed random matrix to each.

    Args:
      model: of a rule whose blocks wait for nothing, and whose last block makes the scores.
      share: w, in [0, 1].  Above 0 the blocks wait for the error (`signal='top'`).
      form, fan, kernel: of the feedback, see `dfa`.

    Returns:
      The model; above 0 with a fixed group feedback in every block but the last.

    Raises:
      ValueError: for a share outside [0, 1], a rule that is not as above (`bp`, `dfa`, `al`, `ff`, `noprop`, `gim`), a
        model of several trials or with frozen blocks, or an unknown form or fan.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is in [0, 1]; got {share}.")
    message = jax.eval_shape(model.enter, model.x_spec, model.y_spec)
    head = _checked(model, message)
    inner = model.blocks[:-1]
    fs = [block.made_of.parts["f"] for block in inner]
    found = feedbacks("mixed", fs, message["x"], model.task.outputs, form, fan, kernel) if fs else []
    if not share:
        return model
    blocks = [_mixing_block(block, feedback, share) for block, feedback in zip(inner, found, strict=True)]
    return model._replace(blocks=(*blocks, _error_block(model.blocks[-1], head, model.task)))


def _checked(model: Model, message: Mapping[str, jax.ShapeDtypeStruct]) -> str:
    """The group that makes the scores, in the last block.

    Raises:
      ValueError: as `mixed_error`.
    """
    heads = model.effective[-1] - {"f"}
    local = model.trials is None and all(b.made_of is not None and b.signal == "none" for b in model.blocks)
    chained = local and "x" in message and all("f" in block.made_of.parts for block in model.blocks[:-1])
    if not chained or len(heads) != 1 or len({message[name].shape[0] for name in "xy"}) != 1:
        raise ValueError(
            f"mixed errors are for rules whose blocks learn from losses of their own and whose last block makes the "
            f"scores of all rows, before they are frozen or run in several trials; method {model.method!r} is not so "
            "here."
        )
    return next(iter(heads))


def _mixing_block(block: LocalBlock, feedback: Feedback, share: float) -> LocalBlock:
    parts, own_step, tx, fixed = block.made_of

    def step(run: Run, message: Message, key: Key):
        outputs: dict[str, jax.Array] = {}

        def watched(group: str, x: jax.Array) -> jax.Array:
            y = run(group, x)
            if group == "f":
                outputs["features"] = parts["f"].summary(y)
                run("feedback", y)  # tells the feedback its shape; nothing uses the projection
                still = jax.lax.stop_gradient(y)
                y = still + (1 - share) * (y - still)  # the same numbers, of which gradients are a share
            return y

        passed, metrics = own_step(watched, message, key)
        return passed, {**outputs, "loss": metrics["loss"]}, metrics

    def answer(params: Mapping[str, Any], outputs: dict[str, jax.Array], kept: dict, signal: dict) -> Answer:
        error = share * back(feedback.expand(params["feedback"]), signal["error"])
        return Answer({"features": error, "loss": jax.numpy.ones_like(outputs["loss"])}, kept)

    whole = {**parts, "feedback": summarised(parts["f"], feedback.block)}
    return waiting_block(block.name, whole, step, answer, tx, through=tuple(parts), fixed=(*fixed, "feedback"))


def _error_block(block: LocalBlock, head: str, task: Task) -> LocalBlock:
    """The last block, which learns as it did and hands the error at its scores down."""
    parts, own_step, tx, fixed = block.made_of

    def step(run: Run, message: Message, key: Key):
        scores: list[jax.Array] = []

        def watched(group: str, x: jax.Array) -> jax.Array:
            y = run(group, x)
            if group == head:
                scores.append(y)
            return y

        passed, metrics = own_step(watched, message, key)
        return {**passed, "scores": scores[0]}, metrics

    inner = local_block(block.name, parts, step, tx, fixed=fixed)
    forward: Callable[[BlockState, Message, Key], Forward] = inner.forward

    def with_error(state: BlockState, message: Message, key: Key) -> Forward:
        found = forward(state, message, key)
        passed = dict(found.message)
        loss, error = jax.value_and_grad(task.loss)(passed.pop("scores"), message["y"])
        return found._replace(message=passed, down={"error": error, "loss": loss})

    return inner._replace(forward=with_error, made_of=None)
