"""Local critic training (`critic`): a small network beside every block learns what loss the network above will have.

    h_i = f_i(h_{i-1})      l_i = loss(c_i(h_i), y)      l_L is the network's own
    f_i descends mean l_i                       at once
    c_i descends mean |sg(l_{i+1}) - l_i|       when the next block has passed, over its own parameters only

The losses are those of single examples, so that B numbers come down a hop.  Critics read as exits, and the sum of the
exits' scores is an ensemble.

References:
  Lee and Lee, Local Critic Training for Model-Parallel Learning of Deep Neural Networks, https://arxiv.org/abs/2102.01963,
    Eqs. 5 to 8, and released code
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from localgrad.base import Block, Key, LocalBlock, Message, Model
from localgrad.blocks.flax import from_linen
from localgrad.blocks.layers import pool_to
from localgrad.blocks.sequences import summarised
from localgrad.methods.ensemble import ensemble as ensemble_of
from localgrad.methods.groups import Optimizers
from localgrad.methods.heads import classifier
from localgrad.methods.parts import Parts, Run, check, classifying_model
from localgrad.methods.relayed import relay_block
from localgrad.tasks import Task


class Critic(nn.Module):
    """c: so many layers with ReLU, 3x3 convolutions of images and dense ones of vectors, and a dense layer of scores.

    Attributes:
      outputs: width of the scores.
      layers: hidden ones; the released code has one.
      hidden: their channels or units.
      pool: images are averaged to at most so many features before the last layer, see `pool_to`.
    """

    outputs: int
    layers: int = 1
    hidden: int = 128
    pool: int | None = None

    @nn.compact
    def __call__(self, x):
        for _ in range(self.layers):
            x = nn.relu(nn.Conv(self.hidden, (3, 3))(x) if x.ndim == 4 else nn.Dense(self.hidden)(x))
        return nn.Dense(self.outputs)(pool_to(x, self.pool))


def critic(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    layers: int = 1,
    hidden: int = 128,
    pool: int | None = None,
    ensemble: bool = False,
) -> Model:
    """Local critic training: every block but the last descends the loss that its critic expects of the network above.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs.
      classes: number of classes C, of labels 0 .. C - 1; or another task, see `localgrad.tasks`.
      tx: any optax transform over the groups f and critic, of which each gets a state of its own; the last block has f
        and head.  Published: Nesterov 0.9 at 0.1, 0.01 and 0.001 with L2 5e-4 for f and head, Adam at 1e-4 for critics.
      layers: hidden layers of a critic; 0 makes it linear.
      hidden: their channels or units.
      pool: critics average images down to at most so many features before their last layer.
      ensemble: exit k predicts by the sum of the scores of the exits up to it, see `localgrad.methods.ensemble`.

    Returns:
      A `Model` whose every block is an exit.

    Raises:
      ValueError: for layers below 0, or units or features below 1.
    """
    network, task = check(network, classes, "critic", pool)
    for name, size, least in (("layers", layers, 0), ("hidden", hidden, 1)):
        if type(size) is not int or size < least:
            raise ValueError(f"{name} of method 'critic' is a whole number of at least {least}; got {size!r}.")
    parts: list[dict[str, Block]] = []
    for f in network[:-1]:
        beside = from_linen(Critic(task.outputs, layers, hidden, pool), name="critic")
        parts.append({"f": f, "critic": summarised(f, beside)})
    parts.append({"f": network[-1], "head": summarised(network[-1], classifier(task.outputs, pool=pool))})
    blocks = [_criticised_block(part, task, tx) for part in parts]
    heads = ["critic"] * len(parts[:-1]) + ["head"]
    model = classifying_model("critic", blocks, parts, heads, x_spec, task)
    return ensemble_of(model, heads) if ensemble else model


def losses_of_examples(task: Task, scores: jax.Array, y: jax.Array) -> jax.Array:
    """The task's loss of each row of scores `(N, C)` alone: `(N,)`, of which the loss is the mean."""
    rows = y.reshape(len(scores), *y.shape[2:]) if task.per_token else y
    return jax.vmap(lambda scores, y: task.loss(scores[None], y[None]))(scores, rows)


def _criticised_block(parts: Parts, task: Task, tx: Optimizers) -> LocalBlock:
    """A block with a critic, or the last one with the network's head, whose loss is itself."""
    reader = "critic" if "critic" in parts else "head"

    def losses(run: Run, features: jax.Array, y: jax.Array) -> jax.Array:
        return losses_of_examples(task, run(reader, features), y)

    def step(run: Run, message: Message, key: Key):
        features = run("f", message["x"])
        own = losses(run, features, message["y"])
        kept = {"features": features, "y": message["y"], "losses": own}
        return {**message, "x": features}, {"loss": jnp.mean(own), "classification": jnp.mean(own)}, kept

    def learn(run: Run, kept: dict[str, jax.Array], signal: jax.Array):
        apart = jnp.mean(jnp.abs(signal - losses(run, kept["features"], kept["y"])))
        return {"loss": apart, "critic": apart}

    later = {"critic": learn} if reader == "critic" else None
    return relay_block(parts["f"].name, parts, step, lambda kept, gradient: kept["losses"], tx, later=later)
