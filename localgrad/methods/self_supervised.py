"""Blocks that learn from images alone, and are read by a linear probe each: SimCLR and rotation, block by block.

    h_k = f_k(sg(h_{k-1}))          loss_k = the block's own, which no label enters, + CE(probe_k(sg(h_k)), y)
    simclr    normalised temperature-scaled cross-entropy: two views of an image against all others
    rotation  cross-entropy of four classes: by how many quarters an image was turned

No gradient reaches a block from its probe, which is there to be read: it makes every block an exit.

References:
  Chen et al., A Simple Framework for Contrastive Learning of Visual Representations (SimCLR),
    https://arxiv.org/abs/2002.05709, Eq. 1 and Algorithm 1
  Gidaris, Singh and Komodakis, Unsupervised Representation Learning by Predicting Image Rotations,
    https://arxiv.org/abs/1803.07728, Eqs. 2 and 3
  NOTES, a researcher's log: self-supervised losses of blocks
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from localgrad.base import Block, Key, Message, Model
from localgrad.blocks.flax import from_linen
from localgrad.blocks.sequences import summarised
from localgrad.losses.contrastive import normalised, supervised_contrastive
from localgrad.methods.groups import Optimizers
from localgrad.methods.heads import Dense, classifier
from localgrad.methods.parts import Parts, Run, check, classifying_model, local_block
from localgrad.tasks import Task

TURNS = 4


def simclr(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    temperature: float = 0.5,
    hidden: int = 512,
    width: int = 128,
    pool: int | None = None,
    views: int = 2,
) -> Model:
    """SimCLR on every block: two augmented views of an image attract each other, and repel all others of the batch.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs, one view each.
      classes: number of classes C, of labels 0 .. C - 1; or another task, see `localgrad.tasks`: what probes learn.
      tx: any optax transform over the groups f, head and probe.
      temperature: tau; the paper has 0.5 on CIFAR-10.
      hidden, width: of the projection before the loss, a hidden layer with ReLU and 128 outputs in the paper.
      pool: the projection averages images down to at most so many features first; None leaves them as they are.
      views: of each example; two, see `localgrad.data.source` and `--augment`.

    Returns:
      A `Model` whose every block is an exit, by its probe.

    Raises:
      ValueError: for a temperature or sizes that are not positive, or views other than two.
    """
    network, task = check(network, classes, "simclr", pool)
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite; got {temperature}.")
    if any(not isinstance(size, int) or size < 1 for size in (hidden, width)):
        raise ValueError(f"hidden and width are positive numbers of units; got {hidden!r} and {width!r}.")
    if views != 2:
        raise ValueError(f"method 'simclr' compares two views of an image: views is 2; got {views}.")

    def own(run: Run, features: jax.Array, key: Key) -> jax.Array:
        z = normalised(run("head", features))
        instances = jnp.repeat(jnp.arange(len(z) // views), views)
        return supervised_contrastive(z, instances, temperature=temperature)

    projection = from_linen(Dense((hidden, width), "relu", "linear", pool), name="projection")
    parts = [{"f": f, "head": summarised(f, projection)} for f in network]
    model = probed("simclr", parts, own, x_spec, task, tx, views=views)
    return model._replace(least_examples=2)  # two views of one image have only each other


def rotation(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    pool: int | None = None,
) -> Model:
    """Every block tells by how many quarters an image was turned; it sees each in all four ways, 4 B images a batch.

    Args:
      network, classes: as `simclr`.
      x_spec: shape `(B, H, H, C)` and dtype of a batch of square images.
      tx: any optax transform over the groups f, head and probe; probes learn from the images that are upright.
      pool: classifiers of turns average images down to at most so many features first; None leaves them as they are.

    Returns:
      A `Model` whose every block is an exit, by its probe.

    Raises:
      ValueError: for inputs that are no square images.
    """
    network, task = check(network, classes, "rotation", pool)
    if len(x_spec.shape) != 4 or x_spec.shape[1] != x_spec.shape[2]:
        raise ValueError(f"method 'rotation' turns square images (B, H, H, C); the inputs are {x_spec.shape}.")

    def turned(x: jax.Array, train: bool) -> jax.Array:
        if not train:
            return x
        return jnp.stack([jnp.rot90(x, k, axes=(1, 2)) for k in range(TURNS)], axis=1).reshape(-1, *x.shape[1:])

    def own(run: Run, features: jax.Array, key: Key) -> jax.Array:
        scores = run("head", features)
        log_shares = jax.nn.log_softmax(scores).reshape(-1, TURNS, TURNS)
        return -jnp.mean(jnp.diagonal(log_shares, axis1=1, axis2=2))

    parts = [{"f": f, "head": summarised(f, classifier(TURNS, pool=pool, name="turns"))} for f in network]
    return probed("rotation", parts, own, x_spec, task, tx, entered=turned, every=TURNS)


def probed(
    method: str,
    parts: Sequence[Parts],
    own: Callable[[Run, jax.Array, Key], jax.Array],
    x_spec: jax.ShapeDtypeStruct,
    task: Task,
    tx: Optimizers,
    *,
    views: int = 1,
    every: int = 1,
    read: Callable[[jax.Array], jax.Array] = lambda features: features,
    entered: Callable[[jax.Array, bool], jax.Array] | None = None,
) -> Model:
    """A Model of blocks with a loss of their own, each read by a linear probe through which no gradient comes.

    Args:
      method, x_spec, task, views, entered: as `classifying_model`.
      parts: of each block, f first and without its probe.
      own: `(run, output of f, key) -> the loss`.
      tx: one optax transform over the groups, or one by groups.
      every: in training the probe reads one row in so many.
      read: what the probe, a linear classifier, is given of the summary of f's output.
    """

    def step(run: Run, message: Message, key: Key):
        features = run("f", message["x"])
        loss = own(run, features, key)
        scores = run("probe", jax.lax.stop_gradient(features[::every]))
        probe = task.loss(scores, message["y"])
        return {**message, "x": features}, {"loss": loss + probe, "self_supervised": loss, "probe": probe}

    def seen_by_probe(f: Block) -> Block:
        return f._replace(summary=lambda y: read(f.summary(y)))

    reader = classifier(task.outputs, name="probe")
    whole: list[Parts] = [{**part, "probe": summarised(seen_by_probe(part["f"]), reader)} for part in parts]
    blocks = [local_block(part["f"].name, part, step, tx) for part in whole]
    heads = ["probe"] * len(whole)
    return classifying_model(method, blocks, whole, heads, x_spec, task, views=views, entered=entered)
