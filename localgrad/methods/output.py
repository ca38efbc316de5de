"""The classifier on top of a network as a block of its own, which sees detached features."""

from collections.abc import Sequence

import jax

from localgrad.base import BlockState, Forward, Key, LocalBlock, Message, PyTree
from localgrad.methods.groups import Optimizers, transforms
from localgrad.methods.parts import Parts, Run, init_of, local_block, moving_run
from localgrad.tasks import Task


def output_block(parts: Parts, task: Task, tx: Optimizers, weight: float = 1.0) -> LocalBlock:
    """A block without features of its own: `weight` times the task's loss of its `head`."""

    def step(run: Run, message: Message, key: Key):
        scores = run("head", message["x"])
        return {**message, "x": scores}, {"loss": weight * task.loss(scores, message["y"])}

    return local_block("output", parts, step, tx)


def error_block(
    name: str,
    parts: Parts,
    head: str,
    task: Task,
    tx: Optimizers,
    also: Sequence[str] = (),
    *,
    scores: bool = False,
) -> LocalBlock:
    """The last block, which learns from its own error at once and hands it down to all blocks below (`top`).

    Its `down` is `{"error": d loss / d scores (B, C), "loss": the loss}`, and perhaps the scores.

    Args:
      name, parts, tx: as `local_block`.
      head: the group that makes the scores, of what `f` makes where there is one.
      task: what is learnt.
      also: other names of its loss among the metrics.
      scores: `down` has `scores` too.
    """
    own_tx, hands_scores = transforms(tx, tuple(parts)), scores

    def forward(state: BlockState, message: Message, key: Key) -> Forward:
        def scores_of(params: dict[str, PyTree]):
            run, model_state = moving_run(parts, params, state, key)
            x = jax.lax.stop_gradient(message["x"])
            features = run("f", x) if "f" in parts else x
            scores = run(head, features)
            return scores, ({**message, "x": features if "f" in parts else scores}, model_state)

        scores, vjp, (passed, model_state) = jax.vjp(scores_of, state.params, has_aux=True)
        loss, error = jax.value_and_grad(task.loss)(scores, message["y"])
        (grads,) = vjp(error)
        down = {"error": error, "loss": loss, **({"scores": scores} if hands_scores else {})}
        return Forward(
            jax.lax.stop_gradient(passed), model_state, grads, dict.fromkeys(("loss", *also), loss), down=down
        )

    def step(run: Run, message: Message, key: Key):
        return run(head, run("f", message["x"]) if "f" in parts else message["x"])

    return LocalBlock(name, "none", init_of(parts, step, own_tx), forward, own_tx)
