"""Direct feedback: the error at the network's output reaches every block at once, through a matrix of its own.

    h_l = W_l a_{l-1}      a_l = f(norm(h_l))      e = d loss / d scores
    dfa   the gradient at a_l is e B_l             B_l: C x n_l, fixed and random
    dkp   the same, and B_l descends e^T a_l
    drtp  the gradient at a_l is onehot(y) B_l / batch: nothing comes back from above

The feedback replaces the gradient at a block's *output* (of a sequence, at its summary); from there to its parameters
runs the block's own exact vjp, through activation, norm and whatever else it holds.  The classifier on top learns by
its own gradient.

References:
  Nokland, Direct Feedback Alignment Provides Learning in Deep Neural Networks, https://arxiv.org/abs/1609.01596
  Webster et al., Learning the Connections in Direct Feedback Alignment (DKP), Eqs. 3, 7 and 8
  Frenkel et al., Learning without feedback: direct random target projection, https://arxiv.org/abs/1909.01311
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import Block, Key, LocalBlock, Message, Model, PyTree
from localgrad.blocks import output_spec
from localgrad.blocks.sequences import summarised
from localgrad.methods.groups import Optimizers
from localgrad.methods.heads import classifier
from localgrad.methods.output import error_block, output_block
from localgrad.methods.parts import Answer, Run, check, classifying_model, local_block, waiting_block
from localgrad.registry import check_known
from localgrad.tasks import Task

FORMS = ("dense", "broadcast", "slice")
FANS = ("in", "out")


def dfa(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    form: str = "dense",
    fan: str = "out",
    kernel: int = 3,
) -> Model:
    """Direct feedback alignment: the output error through a fixed random matrix to each block.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs.
      classes: number of classes C, of labels 0 .. C - 1; or another task, see `localgrad.tasks`.
      tx: any optax transform over the group f, and head in the output block; the group feedback never moves.
      form: of the feedback to images (B, H, W, C'); that to vectors is always a matrix, which `slice` shares too.
        `dense`: a matrix C x (H W C'); `broadcast`: the error spread over space, through a transposed convolution;
        `slice`: the first columns of one matrix U[-1, 1) that all blocks share, divided by the square root of the
        number of features of the widest block.
      fan: Kaiming initialisation, a normal of variance 2 / fan, with the fan `in` (of the error) or `out` (of the
        block).  The paper states none; `out` was chosen on validation, see `experiments/results/feedback_fan.md`.
      kernel: size of the transposed convolution.

    Returns:
      A `Model` of `len(network) + 1` blocks whose only exit is the last.

    Raises:
      ValueError: for an unknown form or fan, or a kernel below 1.
    """
    return _direct("dfa", network, x_spec, classes, tx, form, fan, kernel, learns=False)


def dkp(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    form: str = "dense",
    fan: str = "out",
    kernel: int = 3,
) -> Model:
    """Direct Kolen-Pollack learning: direct feedback whose matrices learn, each from the error and its own block alone.

    B_l descends e^T a_l, the transpose of what a matrix from a_l to the scores would learn; weight decay on both sides
    makes them agree.  With `broadcast`, a tap descends the sum of that over the places of the image that it reaches.

    Args:
      network, x_spec, classes, form, fan, kernel: as `dfa`; `slice` has no matrices of its own that could learn.
      tx: any optax transform over the groups f and feedback, and head in the output block.

    Raises:
      ValueError: as `dfa`, and for `slice`.
    """
    if form == "slice":
        raise ValueError("method 'dkp' trains a feedback for each block, and form='slice' is one that all share.")
    return _direct("dkp", network, x_spec, classes, tx, form, fan, kernel, learns=True)


def drtp(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    form: str = "dense",
    fan: str = "out",
    kernel: int = 3,
    divide: bool = True,
) -> Model:
    """Direct random target projection: the labels themselves through a fixed random matrix; every block is local.

    A block's loss is the product of its output with that projection, which is thus the gradient at the output.

    Args:
      network, x_spec, classes, form, fan, kernel: as `dfa`.
      tx: any optax transform over the group f, and head in the output block; the group feedback never moves.
      divide: the target is divided by the batch, as the gradient of a mean loss is; the released code does not.

    Raises:
      ValueError: as `dfa`.
    """
    network, task = check(network, classes, "drtp")
    found = feedbacks("drtp", network, x_spec, task.outputs, form, fan, kernel)

    def step(run: Run, message: Message, key: Key):
        features = run("f", message["x"])
        projected = run("feedback", features)
        target = task.encode(message["y"], projected.dtype)
        loss = jnp.sum(jax.lax.stop_gradient(target) * projected)
        loss = loss + task.check(message["y"], projected.dtype)
        return {**message, "x": features}, {"loss": loss / target.shape[0] if divide else loss}

    parts = [_with_feedback(f, b) for f, b in zip(network, found, strict=True)]
    blocks = [local_block(part["f"].name, part, step, tx, fixed=("feedback",)) for part in parts]
    parts.append({"head": summarised(network[-1], classifier(task.outputs))})
    blocks.append(output_block(parts[-1], task, tx))
    return classifying_model("drtp", blocks, parts, [None] * len(network) + ["head"], x_spec, task)


class Feedback(NamedTuple):
    """The matrix B of a block, or what stands for it.

    Attributes:
      block: a Block of one output `(B, ...)`: its params, and the projection a B^T `(B, C)` onto the scores.
      expand: params -> B as an array `(C, ...)`.
      descend: (error `(B, C)`, output `(B, ...)`) -> the gradient of the params.
    """

    block: Block
    expand: Callable[[PyTree], jax.Array]
    descend: Callable[[jax.Array, jax.Array], PyTree]


def back(matrix: jax.Array, error: jax.Array) -> jax.Array:
    """The error `(B, C)` through B `(C, ...)`: `(B, ...)`."""
    return jnp.tensordot(error, matrix, 1)


def feedbacks(
    method: str,
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    outputs: int,
    form: str = "dense",
    fan: str = "out",
    kernel: int = 3,
) -> list[Feedback]:
    """The feedback to each block of a network from its number of outputs; see `dfa` for the other arguments.

    Raises:
      ValueError: for an unknown form or fan, or a kernel below 1.
    """
    for name, value, known in (("form", form, FORMS), ("fan", fan, FANS)):
        check_known(name, value, known, of=f"method {method!r}")
    if kernel < 1:
        raise ValueError(f"kernel must be at least 1; got {kernel}.")
    shapes = []
    for block in network:
        x_spec = output_spec(block, x_spec)
        shapes.append(jax.eval_shape(block.summary, x_spec).shape[1:])
    widest = max(map(math.prod, shapes))
    make = {"dense": _dense, "broadcast": _broadcast, "slice": _slice}
    return [
        make["dense" if form == "broadcast" and len(shape) != 3 else form](shape, outputs, fan, kernel, widest)
        for shape in shapes
    ]


def _dense(shape: tuple[int, ...], classes: int, fan: str, kernel: int, widest: int) -> Feedback:
    scale = (2 / (classes if fan == "in" else math.prod(shape))) ** 0.5
    draw = lambda key, dtype: scale * jax.random.normal(key, (classes, *shape), dtype)
    return _feedback(draw, lambda matrix: matrix, lambda error, output: jnp.tensordot(error, output, ((0,), (0,))))


def _broadcast(shape: tuple[int, ...], classes: int, fan: str, kernel: int, widest: int) -> Feedback:
    """The kernel is `(C, channels, k, k)`; B is what an error of one class gives at each place."""
    height, width, channels = shape
    scale = (2 / ((classes if fan == "in" else channels) * kernel**2)) ** 0.5
    draw = lambda key, dtype: scale * jax.random.normal(key, (classes, channels, kernel, kernel), dtype)

    # Transposed convolution, no bias: place p of the input adds tap u to place p + u - k // 2.  An input of ones sums,
    # at each place, the taps that come from inside the image.
    def inside(size: int, dtype: jnp.dtype) -> np.ndarray:
        """1 where a tap reaches a place from inside, `(places, taps)`."""
        place, tap = np.arange(size)[:, None], np.arange(kernel)[None]
        source = place - tap + kernel // 2
        return ((source >= 0) & (source < size)).astype(dtype)

    def expand(taps: jax.Array) -> jax.Array:
        return jnp.einsum("ncuv,hu,wv->nhwc", taps, inside(height, taps.dtype), inside(width, taps.dtype))

    def descend(error: jax.Array, output: jax.Array) -> jax.Array:
        found = jnp.tensordot(error, output, ((0,), (0,)))  # e^T a: of B itself, and of its taps by expand's transpose
        return jnp.einsum("nhwc,hu,wv->ncuv", found, inside(height, found.dtype), inside(width, found.dtype))

    return _feedback(draw, expand, descend)


def _slice(shape: tuple[int, ...], classes: int, fan: str, kernel: int, widest: int) -> Feedback:
    size = math.prod(shape)

    def draw(key: Key, dtype: jnp.dtype) -> jax.Array:
        # a constant key: all blocks, and all trials, have the same matrix
        shared = jax.random.uniform(jax.random.key(0), (classes, widest), dtype, -1, 1)
        return (shared[:, :size] / widest**0.5).reshape(classes, *shape)

    return _feedback(draw, lambda matrix: matrix, lambda error, output: jnp.zeros((classes, *shape), output.dtype))


def _feedback(draw: Callable, expand: Callable, descend: Callable) -> Feedback:
    def init(key: Key, output: jax.ShapeDtypeStruct) -> tuple[PyTree, PyTree]:
        return {"kernel": draw(key, output.dtype)}, {}

    def apply(params: PyTree, model_state: PyTree, x: jax.Array, *, key: Key | None, train: bool):
        axes = list(range(1, x.ndim))
        return jnp.tensordot(x, expand(params["kernel"]), (axes, axes)), model_state

    return Feedback(
        Block(init, apply, "feedback"),
        lambda params: expand(params["kernel"]),
        lambda error, output: {"kernel": descend(error, output)},
    )


def _direct(
    method: str,
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    task: Task | int,
    tx: Optimizers,
    form: str,
    fan: str,
    kernel: int,
    *,
    learns: bool,
) -> Model:
    """`dfa`, or `dkp`, whose feedback learns."""
    network, task = check(network, task, method)
    found = feedbacks(method, network, x_spec, task.outputs, form, fan, kernel)
    parts = [_with_feedback(f, b) for f, b in zip(network, found, strict=True)]
    blocks = [_direct_block(part, b, learns, tx) for part, b in zip(parts, found, strict=True)]
    parts.append({"head": summarised(network[-1], classifier(task.outputs))})
    blocks.append(error_block("output", parts[-1], "head", task, tx))
    return classifying_model(method, blocks, parts, [None] * len(network) + ["head"], x_spec, task)


def _with_feedback(f: Block, feedback: Feedback) -> dict[str, Block]:
    return {"f": f, "feedback": summarised(f, feedback.block)}


def _direct_block(parts: dict[str, Block], feedback: Feedback, learns: bool, tx: Optimizers) -> LocalBlock:
    def step(run: Run, message: Message, key: Key):
        features = run("f", message["x"])
        run("feedback", features)  # tells the feedback its shape; nothing uses the projection
        return {**message, "x": features}, parts["f"].summary(features), ()

    def answer(params: dict[str, PyTree], features: jax.Array, kept: tuple, signal: dict[str, jax.Array]) -> Answer:
        error = signal["error"]
        grads = {"feedback": feedback.descend(error, features)} if learns else {}
        return Answer(back(feedback.expand(params["feedback"]), error), {"loss": signal["loss"]}, grads)

    fixed = () if learns else ("feedback",)
    return waiting_block(parts["f"].name, parts, step, answer, tx, through=("f",), fixed=fixed)
