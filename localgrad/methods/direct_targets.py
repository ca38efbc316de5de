"""Direct target propagation (`direct_tp`): every block's target comes straight from the top.

    h_l = f_l(h_{l-1})      s the scores, e = d loss / d s      G_l is learnt to make h_l of s      B: of a batch
    hhat_l = h_l + G_l(s - eta B e) - G_l(s)
    f_l descends 1/B sum |h_l - sg(hhat_l)|^2, G_l descends 1/B sum |G_l(s) - h_l|^2      when s and e have come

The classifier on top learns by its own gradient.  Sums are over units.  Meulemans' direct form has the same targets;
its inverses learn from noise that is sent through all blocks above, where these learn from the scores as they are.

References:
  Meulemans et al., A Theoretical Framework for Target Propagation, https://arxiv.org/abs/2006.14331, section 3.3
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from localgrad.base import Block, Key, LocalBlock, Message, Model, PyTree
from localgrad.blocks import output_spec
from localgrad.blocks.flax import from_linen
from localgrad.blocks.sequences import summarised
from localgrad.methods.groups import Optimizers
from localgrad.methods.heads import classifier
from localgrad.methods.inverses import Inverse, check_numbers, squares, undone
from localgrad.methods.output import error_block
from localgrad.methods.parts import Answer, Parts, Run, check, classifying_model, waiting_block
from localgrad.tasks import Task


def direct_tp(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    activation: str = "linear",
    eta: float = 0.3277,
) -> Model:
    """Direct target propagation: every block's target comes straight from the top, through an inverse of its own.

    With linear inverses the rule is that of `dfa` with 2 eta times their kernels as feedback, and those learn.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier.
      x_spec, classes, eta: as `dtp`; eta is that of the scores.
      tx: any optax transform over the groups f and inverse, and head in the output block.
      activation: of the inverses, which go from the scores to a block's output (of a sequence its summary): `linear` as
        Meulemans has it, or one of the network's.

    Returns:
      A `Model` of `len(network) + 1` blocks whose only exit is the last.

    Raises:
      ValueError: for an unknown activation, or an eta that is not above 0.
    """
    network, task = check(network, classes, "direct_tp")
    check_numbers("direct_tp", activation, eta)
    parts: list[dict[str, Block]] = []
    given = x_spec
    for f in network:
        given = output_spec(f, given)
        shape = jax.eval_shape(f.summary, given).shape[1:]
        parts.append({"f": f, "inverse": from_linen(Inverse(shape, activation), name="inverse")})
    parts.append({"head": summarised(network[-1], classifier(task.outputs))})
    blocks = [_direct_block(part, task, tx, eta) for part in parts[:-1]]
    blocks.append(error_block("output", parts[-1], "head", task, tx, scores=True))
    return classifying_model("direct_tp", blocks, parts, [None] * len(network) + ["head"], x_spec, task)


def _direct_block(parts: Parts, task: Task, tx: Optimizers, eta: float) -> LocalBlock:
    """A block of `direct_tp`."""

    def step(run: Run, message: Message, key: Key):
        features = run("f", message["x"])
        summary = parts["f"].summary(features)
        run("inverse", jnp.zeros((len(summary), task.outputs), summary.dtype))  # tells the inverse its shape
        return {**message, "x": features}, summary, ()

    def answer(params: dict[str, PyTree], h: jax.Array, kept: tuple, signal: dict[str, jax.Array]) -> Answer:
        scores, error = signal["scores"], signal["error"]
        undo = lambda scores: undone(parts, params["inverse"], scores)
        target = h + undo(scores - eta * len(error) * error) - undo(scores)
        loss, away = jax.value_and_grad(lambda h: squares(h - target))(h)
        inverse, grads = jax.value_and_grad(lambda own: squares(undone(parts, own, scores) - h))(params["inverse"])
        return Answer(away, {"loss": loss + inverse, "target": loss, "inverse": inverse}, {"inverse": grads})

    return waiting_block(parts["f"].name, parts, step, answer, tx, through=("f",))
