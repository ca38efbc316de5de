"""Training steps written by hand in plain jax and optax, without this library: what its own are timed against.

A chain of dense layers, or of 3x3 convolutions with stride 2 where the width grows, ELU after each; one jitted scan
over batches, or a batch a call, the state donated.  Parameters are the library's own, in its dicts, and after any
number of steps so are the numbers.  What the library does beside the mathematics is left out: keys for dropout, a look
at every loss whether it is finite, barriers between blocks.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Params = tuple[dict[str, Any], ...]  # one dict of named groups a block, as `BlockState.params`
Batch = tuple[jax.Array, jax.Array]
Loss = Callable[[dict[str, Any], int, Any, jax.Array], tuple[jax.Array, Any]]


class Network(NamedTuple):
    """How features are worked out.

    Attributes:
      strides: of each block, where it is a convolution.
      pool: heads average images down to at most so many features; None leaves them as they are.
      convolution: `jax.lax.conv_general_dilated`, or what has its arguments.
    """

    strides: tuple[int, ...]
    pool: int | None
    convolution: Callable[..., jax.Array]

    def features(self, own: dict[str, Any], x: jax.Array, stride: int) -> jax.Array:
        """What a block hands on: images `(B, H, W, C)` of a convolution, vectors `(B, D)` of a dense layer."""
        return jax.nn.elu(self.layer(own["f"], x, stride))

    def layer(self, group: dict[str, Any], x: jax.Array, stride: int = 1) -> jax.Array:
        """The convolution or the dense layer of a group."""
        if "Conv_0" not in group:
            return dense(group["Dense_0"], x)
        found = group["Conv_0"]
        order = jax.lax.conv_dimension_numbers(x.shape, found["kernel"].shape, ("NHWC", "HWIO", "NHWC"))
        y = self.convolution(x, found["kernel"], (stride, stride), "SAME", dimension_numbers=order)
        return y + found["bias"] if "bias" in found else y

    def pooled(self, x: jax.Array) -> jax.Array:
        """What a head reads, `(B, D)`."""
        if x.ndim == 4 and self.pool is not None:
            h, w = window(x.shape[1:], self.pool)
            x = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, h, w, 1), (1, h, w, 1), "SAME") / (h * w)
        return flat(x)


class Rule(NamedTuple):
    """`init(params) -> optimizer state` and `step((params, optimizer state), (x, y)) -> (the same, losses (L,))`."""

    init: Callable[[Params], Any]
    step: Callable[[Any, Batch], tuple[Any, jax.Array]]


class Training(NamedTuple):
    """The training of one method by Adam; both functions are jitted, and donate the state.

    Attributes:
      state: `(params, optimizer state)` at first.
      run: `(state, xs (N, B, ...), ys (N, B)) -> (state, losses (N, L))`, one scan; L is the number of blocks, or 1
        where there is one loss for all.
      step: `(state, (x, y)) -> (state, losses (L,))`, a batch a call.
    """

    state: Any
    run: Callable[[Any, jax.Array, jax.Array], tuple[Any, jax.Array]]
    step: Callable[[Any, Batch], tuple[Any, jax.Array]]


def training(
    method: str,
    params: Params,
    *,
    pool: int | None = None,
    rate: float = 1e-3,
    convolution: Callable[..., jax.Array] = jax.lax.conv_general_dilated,
) -> Training:
    """The training of one method by Adam.

    Args:
      method: one of `RULES`; al is of profile neco, scl of an mlp head and the reduction supcon, predsim of beta 0.99,
        dgl of the auxiliary network mlp, dfa of dense feedback.
      params: of each block, from `localgrad.init`; they are copied.
      pool: the option of that name, where the method has one.
      rate: of Adam.
      convolution: see `Network`.
    """
    rule = RULES[method](Network(strides(params), pool, convolution), rate)

    def run(state: Any, xs: jax.Array, ys: jax.Array) -> tuple[Any, jax.Array]:
        return jax.lax.scan(rule.step, state, (xs, ys))

    begin = jax.jit(lambda params: (jax.tree.map(jnp.copy, params), rule.init(params)))
    return Training(begin(tuple(params)), jax.jit(run, donate_argnums=0), jax.jit(rule.step, donate_argnums=0))


# --- methods ---------------------------------------------------------------------------------------------------------


def backpropagation(net: Network, rate: float) -> Rule:
    tx = optax.adam(rate)

    def loss(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        for own, stride in zip(params, net.strides, strict=True):
            x = net.features(own, x, stride)
        return cross_entropy(dense(params[-1]["head"]["Dense_0"], flat(x)), y)

    def step(state: Any, batch: Batch) -> tuple[Any, jax.Array]:
        params, opt = state
        value, grads = jax.value_and_grad(loss)(params, *batch)
        updates, opt = tx.update(grads, opt)
        return (optax.apply_updates(params, updates), opt), value[None]

    return Rule(tx.init, step)


def feedback_alignment(net: Network, rate: float) -> Rule:
    """DFA with dense feedback: a matrix `(C, ...)` to each block, which stays as it is."""
    tx = optax.adam(rate)

    def learning(params: Params) -> list[Any]:
        return [own["f"] for own in params[:-1]] + [params[-1]["head"]]

    def step(state: Any, batch: Batch) -> tuple[Any, jax.Array]:
        (params, opt), (x, y) = state, batch
        *blocks, top = params
        backs = []
        for own, stride in zip(blocks, net.strides[:-1], strict=True):
            x, back = jax.vjp(lambda f, x=x, stride=stride: net.features({"f": f}, x, stride), own["f"])
            backs.append(back)
        scores, back_of_head = jax.vjp(lambda head: dense(head["Dense_0"], flat(x)), top["head"])
        value, error = jax.value_and_grad(cross_entropy)(scores, y)
        fed_back = [jnp.tensordot(error, own["feedback"]["kernel"], 1) for own in blocks]
        grads = [back(signal)[0] for back, signal in zip(backs, fed_back, strict=True)]
        updates, opt = tx.update([*grads, *back_of_head(error)], opt)
        *new, head = optax.apply_updates(learning(params), updates)
        moved = [{"f": f, "feedback": own["feedback"]} for f, own in zip(new, blocks, strict=True)]
        return ((*moved, {"head": head}), opt), value[None]

    return Rule(lambda params: tx.init(learning(params)), step)


def associated_learning(net: Network, rate: float) -> Rule:
    adams = {"inputs": optax.adam(rate), "targets": optax.adam(2 * rate)}
    tx = optax.multi_transform(adams, {"f": "inputs", "b": "inputs", "g": "targets", "h": "targets"})

    def enter(params: Params, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        return x, jax.nn.one_hot(y, len(params[0]["g"]["Dense_0"]["kernel"]), dtype=x.dtype)

    def loss(own: dict[str, Any], stride: int, message: tuple[jax.Array, jax.Array], y: jax.Array):
        below, target = message
        s = net.features(own, below, stride)
        t = jax.nn.sigmoid(dense(own["g"]["Dense_0"], target))
        bridged = jax.nn.sigmoid(dense(own["b"]["Dense_0"], net.pooled(s)))
        bridged = jax.nn.sigmoid(dense(own["b"]["Dense_1"], bridged))
        decoded = jax.nn.sigmoid(dense(own["h"]["Dense_0"], t))
        association = jnp.mean((bridged - jax.lax.stop_gradient(t)) ** 2)
        return association + jnp.mean((decoded - target) ** 2), (s, t)

    return local(net, tx, loss, enter=enter)


def contrastive(net: Network, rate: float) -> Rule:
    def loss(own: dict[str, Any], stride: int, x: jax.Array, y: jax.Array):
        x = net.features(own, x, stride)
        hidden = jax.nn.relu(dense(own["head"]["Dense_0"], net.pooled(x)))
        return supervised_contrastive(dense(own["head"]["Dense_1"], hidden), y), x

    return local(net, optax.adam(rate), loss, classifier(1.0))


def early_exit(net: Network, rate: float) -> Rule:
    def loss(own: dict[str, Any], stride: int, x: jax.Array, y: jax.Array):
        x = net.features(own, x, stride)
        return cross_entropy(dense(own["head"]["Dense_0"], net.pooled(x)), y), x

    return local(net, optax.adam(rate), loss)


def similarity(net: Network, rate: float, beta: float = 0.99) -> Rule:
    def loss(own: dict[str, Any], stride: int, x: jax.Array, y: jax.Array):
        x = net.features(own, x, stride)
        scores = dense(own["pred"]["Dense_0"], net.pooled(x))
        target = jax.nn.one_hot(y, scores.shape[1], dtype=x.dtype)
        matching = jnp.mean((cosines(net.layer(own["sim"], x)) - cosines(target)) ** 2)
        return (1 - beta) * cross_entropy(scores, y) + beta * matching, x

    return local(net, optax.adam(rate), loss, classifier(1 - beta))


def greedy(net: Network, rate: float) -> Rule:
    """DGL: auxiliary networks of one hidden layer on all blocks but the last, which has a linear classifier."""

    def loss(own: dict[str, Any], stride: int, x: jax.Array, y: jax.Array):
        x = net.features(own, x, stride)
        if "Dense_1" not in own["aux"]:
            return cross_entropy(dense(own["aux"]["Dense_0"], flat(x)), y), x
        hidden = jax.nn.relu(dense(own["aux"]["Dense_0"], net.pooled(x)))
        return cross_entropy(dense(own["aux"]["Dense_1"], hidden), y), x

    return local(net, optax.adam(rate), loss)


RULES: dict[str, Callable[[Network, float], Rule]] = {
    "bp": backpropagation,
    "al": associated_learning,
    "scl": contrastive,
    "early_exit": early_exit,
    "predsim": similarity,
    "dgl": greedy,
    "dfa": feedback_alignment,
}


def local(
    net: Network,
    tx: optax.GradientTransformation,
    loss: Loss,
    last: Loss | None = None,
    enter: Callable[[Params, jax.Array, jax.Array], Any] = lambda params, x, y: x,
) -> Rule:
    """Blocks with losses of their own: one after another, each with its own gradient and its own optimizer.

    Args:
      net: the network.
      tx: the optimizer of a block.
      loss: `(params of a block, stride, message, labels) -> (loss, message for the next)`; the message is data.
      last: the same of the output block, where there is one.
      enter: `(params of all, x, y) -> message` of the first block.
    """

    def step(state: Any, batch: Batch) -> tuple[Any, jax.Array]:
        message, values, done = enter(state[0], *batch), [], []
        for own, opt, stride in zip(*state, net.strides, strict=True):
            of_block = jax.value_and_grad(loss if last is None or "f" in own else last, has_aux=True)
            (value, message), grads = of_block(own, stride, message, batch[1])
            updates, opt = tx.update(grads, opt)
            done.append((optax.apply_updates(own, updates), opt))
            values.append(value)
        params, opts = zip(*done, strict=True)
        return (params, opts), jnp.stack(values)

    return Rule(lambda params: tuple(map(tx.init, params)), step)


def classifier(weight: float) -> Loss:
    """The output block: `weight` times the cross-entropy of a linear classifier on all features."""

    def loss(own: dict[str, Any], stride: int, x: jax.Array, y: jax.Array):
        return weight * cross_entropy(dense(own["head"]["Dense_0"], flat(x)), y), x

    return loss


# --- layers and losses -----------------------------------------------------------------------------------------------


def strides(params: Params) -> tuple[int, ...]:
    """Of each block: 2 where a convolution has more channels than the one below it, otherwise 1."""
    widths = [own["f"]["Conv_0"]["kernel"].shape[-1] if "Conv_0" in own.get("f", {}) else 0 for own in params]
    return tuple(2 if 0 < below < width else 1 for below, width in zip([0, *widths], widths, strict=False))


def window(image: Sequence[int], features: int) -> tuple[int, int]:
    """Height and width, doubled in turns, of the windows over which an image `(H, W, C)` has at most so many features.

    Nokland and Eidnes, https://arxiv.org/abs/1901.06656, released code.
    """
    height, width, channels = image
    h = w = 1
    while -(-height // h) * -(-width // w) * channels > features and (h < height or w < width):
        h, w = (2 * h, w) if h == w else (h, 2 * w)
    return h, w


def flat(x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], -1)


def dense(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    y = x @ layer["kernel"]
    return y + layer["bias"] if "bias" in layer else y


def cross_entropy(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean over a batch; scores `(B, C)`, labels `(B,)`."""
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()


def supervised_contrastive(z: jax.Array, labels: jax.Array, temperature: float = 0.1) -> jax.Array:
    """Mean over anchors of Khosla et al., https://arxiv.org/abs/2004.11362, Eq. 2; z `(B, D)`, labels `(B,)`."""
    z = z / jnp.sqrt(jnp.maximum(jnp.sum(z**2, axis=1, keepdims=True), 1e-12))
    logits = z @ z.T / temperature
    others = ~jnp.eye(len(z), dtype=bool)
    positives = (labels[:, None] == labels) & others
    log_p = logits - jax.nn.logsumexp(jnp.where(others, logits, -jnp.inf), axis=1, keepdims=True)
    count = jnp.maximum(positives.sum(axis=1), 1).astype(z.dtype)
    return -jnp.mean(jnp.where(positives, log_p, 0.0).sum(axis=1) / count)


def cosines(x: jax.Array) -> jax.Array:
    """Cosines `(B, B)` of the centred rows `(B, D)`, or of the deviations over space of images `(B, H, W, C)`.

    Nokland and Eidnes, https://arxiv.org/abs/1901.06656, Eq. 1.
    """
    x = x.std(axis=(1, 2), ddof=1) if x.ndim == 4 else x
    x = x - x.mean(axis=1, keepdims=True)
    x = x / (jnp.linalg.norm(x, axis=1, keepdims=True) + 1e-8)
    return jnp.clip(x @ x.T, -1, 1)
