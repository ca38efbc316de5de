"""Backpropagation through matrices that are not the weights: feedback alignment and its relatives.

    fa   delta_l = (delta_{l+1} B_{l+1}) * f'(h_l)     B fixed and random, of the shape of W^T
    kp   the same, and B_{l+1} descends delta_{l+1}^T a_l, the transpose of W's own gradient; weight decay on both
    usf  the same, with B_{l+1} = rms(W_{l+1}) sign(W_{l+1})^T: the signs of the weights, all of one size

The gradient that a block hands down goes back through feedback in place of the kernels of its dense and convolutional
Flax layers, and through norm and activation exactly.  In FA and KP a block has one such layer, whose feedback is a
parameter group in the kernel's own shape, so that B^T and W compare without transposing; in uSF it has any number of
them, and no other parameters than theirs, biases and norms.

References:
  Lillicrap et al., Random synaptic feedback weights support error backpropagation for deep learning (2016)
  Akrout et al., Deep learning without weight transport, https://arxiv.org/abs/1904.05391
  Webster et al., Learning the Connections in Direct Feedback Alignment (DKP), Eqs. 5 and 6
  Liao, Leibo and Poggio, How Important Is Weight Symmetry in Backpropagation? (uSF), https://arxiv.org/abs/1510.05067
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from localgrad.base import Block, Key, Model, PyTree
from localgrad.blocks import output_spec
from localgrad.blocks.in_linen import fast_convolution
from localgrad.blocks.layers import HE
from localgrad.methods.backprop import chained_block
from localgrad.methods.groups import Optimizers
from localgrad.methods.heads import classifier
from localgrad.methods.parts import check, classifying_model
from localgrad.tasks import Task

_LAYERS = (nn.Dense, nn.Conv)

Feedback = Callable[[nn.Module], jax.Array]  # a layer within its call -> what its input's gradient goes back through


def fa(network: Sequence[Block], x_spec: jax.ShapeDtypeStruct, classes: Task | int, *, tx: Optimizers) -> Model:
    """Feedback alignment: gradients come down through fixed random matrices.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, each with one dense or convolutional layer, without a classifier.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs.
      classes: number of classes C, of labels 0 .. C - 1; or another task, see `localgrad.tasks`.
      tx: any optax transform over the group f, and head in the last block; the group feedback never moves.

    Returns:
      A `Model` of `len(network) + 1` blocks whose only exit is the last.

    Raises:
      ValueError: for a block whose layer cannot be told: none, or several, as in residual, recurrent and attention
        blocks.
    """
    return _chained("fa", network, x_spec, classes, tx)


def kp(network: Sequence[Block], x_spec: jax.ShapeDtypeStruct, classes: Task | int, *, tx: Optimizers) -> Model:
    """Kolen-Pollack learning: feedback alignment whose matrices learn what the weights learn.

    Args:
      network, x_spec, classes: as `fa`.
      tx: any optax transform over the groups f (or head) and feedback.  With equal rates and equal decay the
        difference of B and W^T shrinks by the decay alone.

    Raises:
      ValueError: as `fa`.
    """
    return _chained("kp", network, x_spec, classes, tx)


def usf(network: Sequence[Block], x_spec: jax.ShapeDtypeStruct, classes: Task | int, *, tx: Optimizers) -> Model:
    """Uniform sign-concordant feedback: gradients come down through the signs of the weights.

    The paper's B is sign(W)^T and leaves its size to batch norm; here it has that of W, so that the rate of one layer
    means what it means in the others: each entry is the root mean square of the kernel as it is in that pass.

    Args:
      network: Blocks `(B, ...) -> (B, ...)` of Flax linen, without a classifier: dense and convolutional layers, any
        number a block and with residuals around them, norms and activations.
      x_spec, classes: as `fa`.
      tx: any optax transform over the group f, and head in the last block.

    Returns:
      A `Model` of `len(network) + 1` blocks whose only exit is the last.

    Raises:
      ValueError: for a block with kernels that are not of dense or convolutional layers.
    """
    return _chained("usf", network, x_spec, classes, tx)


def _chained(
    method: str, network: Sequence[Block], x_spec: jax.ShapeDtypeStruct, task: Task | int, tx: Optimizers
) -> Model:
    network, task = check(network, task, method)
    if task.per_token:
        raise ValueError(
            f"method {method!r} goes back through layers of vectors and images, and {task.name} are of every place of "
            "a sequence: use dfa or dkp, which reach a block at its output."
        )
    parts: list[dict[str, Block]] = []
    blocks = []
    given = x_spec
    for i, (group, block) in enumerate([*[("f", f) for f in network], ("head", classifier(task.outputs))]):
        part, way_back = {group: block}, None
        through: tuple[str, ...] = (group,)
        fixed: tuple[str, ...] = ()
        kernels, others = _kernels(block, given)
        if method == "usf":
            if others:
                raise ValueError(
                    f"method 'usf' goes back through the signs of dense and convolutional layers of Flax linen, and "
                    f"block {block.name!r} has kernels that are not of these: {', '.join(others)}. Use dfa or dkp, "
                    "which reach a block at its output."
                )
            way_back = _through_signs if i else None  # nobody is below the first
        else:
            _check_one(method, block, kernels)
            if i:
                part["feedback"] = _feedback(kernels[0])
                through, fixed = ((group, "feedback"), ()) if method == "kp" else (through, ("feedback",))
                way_back = _through_group
        parts.append(part)
        blocks.append(chained_block(part, task, tx, through=through, fixed=fixed, way_back=way_back))
        given = output_spec(block, given)
    return classifying_model(method, blocks, parts, [None] * len(network) + ["head"], x_spec, task)


def _feedback(kernel: jax.ShapeDtypeStruct) -> Block:
    """A Block that only has parameters: a kernel of the shape of another, He-normal as that is."""

    def init(key: Key, x_spec: jax.ShapeDtypeStruct) -> tuple[PyTree, PyTree]:
        return {"kernel": HE(key, kernel.shape, kernel.dtype)}, {}

    return Block(init, lambda params, model_state, x, *, key, train: (x, model_state), "feedback")


def _kernels(block: Block, x_spec: jax.ShapeDtypeStruct) -> tuple[list[jax.ShapeDtypeStruct], list[str]]:
    """Shapes and dtypes of the kernels of a block's dense and convolutional layers, and the paths of its others."""
    found: dict[tuple[Any, ...], jax.ShapeDtypeStruct] = {}  # by module and path: one that is called twice is one
    roots: list[Any] = []  # kept, so that no two have the same id

    def watch(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        y = call(*args, **kwargs)
        if _is_layer(context):
            kernel = context.module.variables["params"]["kernel"]
            roots.append(getattr(context.module.scope, "root", None))
            found[id(roots[-1]), context.module.path] = jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)
        return y

    params, model_state = jax.eval_shape(lambda key: block.init(key, x_spec), jax.random.key(0))
    with nn.intercept_methods(watch):
        run = lambda *args: block.apply(*args, key=jax.random.key(0), train=True)
        jax.eval_shape(run, params, model_state, x_spec)
    kernels = [jax.tree_util.keystr(path) for path, x in jax.tree_util.tree_leaves_with_path(params) if x.ndim > 1]
    return list(found.values()), kernels if len(kernels) > len(found) else []


def _check_one(method: str, block: Block, kernels: Sequence[jax.ShapeDtypeStruct]) -> None:
    """Refuses a block that has no layer, or several.

    Raises:
      ValueError: naming it.
    """
    if len(kernels) != 1:
        raise ValueError(
            f"method {method!r} goes back through a feedback in place of a block's kernel, so every block must have "
            f"one dense or convolutional layer of Flax linen; {block.name!r} has {len(kernels) or 'none'}. Cut the "
            "network finer (blocks=), or use dfa or dkp, which reach a block at its output."
        )


def _through_group(params: PyTree) -> AbstractContextManager:
    """The way back through the block's group feedback."""
    return _way_back(lambda layer: params["feedback"]["kernel"])


def _through_signs(params: PyTree) -> AbstractContextManager:
    """The way back through the signs of the kernels themselves, each as large as its kernel's root mean square."""

    def signs(layer: nn.Module) -> jax.Array:
        kernel = jax.lax.stop_gradient(layer.variables["params"]["kernel"])
        return jnp.sqrt(jnp.mean(kernel**2)) * jnp.sign(kernel)

    return _way_back(signs)


@contextmanager
def _way_back(feedback: Feedback) -> Iterator[None]:
    """Within it, the gradient along the input of a layer goes back through another kernel than its own."""
    busy = [False]

    def swap(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        if busy[0] or not _is_layer(context):
            return call(*args, **kwargs)
        bare = context.module.clone(parent=None, use_bias=False)

        def layer(kernel: jax.Array, x: jax.Array) -> Any:
            with nn.intercept_methods(fast_convolution):  # gradients are worked out later, outside of `from_linen`
                return bare.apply({"params": {"kernel": kernel}}, x)

        (x,) = args
        busy[0] = True
        try:
            back = _nothing_but_gradients(layer, feedback(context.module), x)
        finally:
            busy[0] = False
        return call(jax.lax.stop_gradient(x), **kwargs) + back

    with nn.intercept_methods(swap):
        yield


def _nothing_but_gradients(layer: Callable, kernel: jax.Array, x: jax.Array) -> jax.Array:
    """Zeros, with the gradients of `layer(kernel, x)`."""
    shape = jax.eval_shape(layer, kernel, x)

    @jax.custom_vjp
    def zeros(kernel: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.zeros(shape.shape, shape.dtype)

    zeros.defvjp(
        lambda kernel, x: (zeros(kernel, x), (kernel, x)), lambda kept, signal: jax.vjp(layer, *kept)[1](signal)
    )
    return zeros(kernel, x)


def _is_layer(context: nn.module.InterceptorContext) -> bool:
    return isinstance(context.module, _LAYERS) and context.method_name == "__call__"
