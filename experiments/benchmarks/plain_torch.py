"""The training steps of `plain_jax` written by hand in plain PyTorch: what this library's are timed against.

Channels first, kernels in PyTorch's own layouts, features detached between blocks, one backward call a step, and a
`torch.optim.Adam` a block where blocks have losses of their own.  Parameters are the library's, turned over once.
Convolutions pad as XLA's SAME does: where a stride of 2 meets an even size, by nothing before and by one behind.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from experiments.benchmarks.plain_jax import Params, strides, window


class Layer(NamedTuple):
    """A dense layer, a convolution, or a feedback, which has no bias."""

    weight: Tensor
    bias: Tensor | None = None


Groups = dict[str, list[Layer]]  # the layers of a block's named groups
Loss = Callable[[Groups, int, Any, Tensor], tuple[Tensor, Any]]  # as `plain_jax.Loss`


class Roots(NamedTuple):
    """Where a backward pass begins: at losses, and at outputs with the gradients along them."""

    losses: Sequence[Tensor]
    outputs: Sequence[Tensor] = ()
    gradients: Sequence[Tensor] = ()


class Network(NamedTuple):
    """How features are worked out: the stride of each block, and `pool` as in `plain_jax.Network`."""

    strides: tuple[int, ...]
    pool: int | None

    def pooled(self, x: Tensor) -> Tensor:
        """What a head reads, `(B, D)`."""
        if x.ndim == 4 and self.pool is not None:
            (h, w), (height, width) = window((*x.shape[2:], x.shape[1]), self.pool), x.shape[2:]
            x = F.avg_pool2d(padded(x, -height % h, -width % w), (h, w))
        return x.flatten(1)


class Rule(NamedTuple):
    """A training rule.

    Attributes:
      roots: `(params of all blocks, x, y) -> Roots`.
      rates: of parameter groups, in units of the rate.
      together: one optimizer for all blocks.
    """

    roots: Callable[[list[Groups], Tensor, Tensor], Roots]
    rates: dict[str, float]
    together: bool = False


class Training(NamedTuple):
    """The training of one method by Adam.

    Attributes:
      params: of each block, as `tensors` gives them; they change in place.
      step: `(x, y) -> losses (L,)`, trains on one batch; may go through `torch.compile`.
    """

    params: list[Groups]
    step: Callable[[Tensor, Tensor], Tensor]


def training(
    method: str,
    params: Params,
    shape: Sequence[int],
    *,
    pool: int | None = None,
    rate: float = 1e-3,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    **adam: Any,
) -> Training:
    """The training of one method by Adam.

    Args:
      method, params, pool, rate: as `plain_jax.training`.
      shape: of an example, `(H, W, C)` or `(D,)`.
      device, dtype: of everything but the labels.
      adam: more arguments of `torch.optim.Adam`, such as `fused`.
    """
    own, rule = tensors(params, shape, pool, device, dtype), RULES[method](Network(strides(params), pool))
    groups = [
        [
            {"params": [x for layer in layers for x in layer if x is not None], "lr": rate * rule.rates[group]}
            for group, layers in block.items()
            if group != "feedback"
        ]
        for block in own
    ]
    owned = [[group for block in groups for group in block]] if rule.together else groups
    optimizers = [torch.optim.Adam(each, **adam) for each in owned]

    def step(x: Tensor, y: Tensor) -> Tensor:
        losses, outputs, gradients = rule.roots(own, x, y)
        torch.autograd.backward([*losses, *outputs], [*(None for _ in losses), *gradients])
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return torch.stack(list(losses)).detach()

    return Training(own, step)


# --- from the library's arrays ---------------------------------------------------------------------------------------


def tensors(params: Params, shape: Sequence[int], pool: int | None, device: str, dtype: torch.dtype) -> list[Groups]:
    """Parameters as tensors that record gradients, in PyTorch's layouts; the arguments are those of `training`.

    The rows of a dense kernel that reads images are brought from the order (H, W, C) to (C, H, W).
    """
    put = lambda x: torch.tensor(np.asarray(x, np.float64)).to(device, dtype)

    def weight(kernel: Tensor, image: Sequence[int]) -> Tensor:
        if kernel.ndim == 4:
            return kernel.permute(3, 2, 0, 1)
        return kernel.reshape(*image, -1).permute(3, 2, 0, 1).flatten(1) if image else kernel.T

    def layer(found: dict[str, Any], image: Sequence[int]) -> Layer:
        kernel = weight(put(found["kernel"]), image).contiguous().requires_grad_()
        return Layer(kernel, put(found["bias"]).requires_grad_() if "bias" in found else None)

    def feedback(matrix: Tensor) -> Layer:
        return Layer((matrix.permute(0, 3, 1, 2) if matrix.ndim == 4 else matrix).contiguous())

    blocks: list[Groups] = []
    image = tuple(shape)
    for own, stride in zip(params, strides(params), strict=True):
        if "f" in own:
            convolves = "Conv_0" in own["f"]
            image = behind(image, stride, own["f"]["Conv_0"]["kernel"].shape[-1]) if convolves else ()
        groups: Groups = {}
        for group, found in own.items():
            if group == "feedback":
                groups[group] = [feedback(put(found["kernel"]))]
            else:
                names = sorted(found)
                read = given(image, pool, len(found[names[0]]["kernel"])) if image and group not in "fgh" else ()
                groups[group] = [layer(found[name], () if i else read) for i, name in enumerate(names)]
        blocks.append(groups)
    return blocks


def behind(image: Sequence[int], stride: int, channels: int) -> tuple[int, int, int]:
    """Shape `(H, W, C)` of an image behind a convolution."""
    return -(-image[0] // stride), -(-image[1] // stride), channels


def given(image: tuple[int, ...], pool: int | None, rows: int) -> tuple[int, ...]:
    """Shape of the image that a dense kernel of so many rows reads: the whole one, or it averaged."""
    if pool is None or rows == math.prod(image):
        return image
    h, w = window(image, pool)
    return -(-image[0] // h), -(-image[1] // w), image[2]


def inputs(xs: Any, ys: Any, device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Batches `(N, B, ...)` and labels `(N, B)` as tensors, images channels first."""
    x = torch.tensor(np.asarray(xs, np.float64)).to(device, dtype)
    x = x.permute(0, 1, 4, 2, 3).contiguous() if x.ndim == 5 else x
    return x, torch.tensor(np.asarray(ys, np.int64)).to(device)


# --- methods ---------------------------------------------------------------------------------------------------------


def backpropagation(net: Network) -> Rule:
    def roots(params: list[Groups], x: Tensor, y: Tensor) -> Roots:
        for own, stride in zip(params, net.strides, strict=True):
            x = features(own, x, stride)
        return Roots([F.cross_entropy(F.linear(x.flatten(1), *params[-1]["head"][0]), y)])

    return Rule(roots, {"f": 1, "head": 1}, together=True)


def feedback_alignment(net: Network) -> Rule:
    def roots(params: list[Groups], x: Tensor, y: Tensor) -> Roots:
        *blocks, top = params
        outputs = []
        for own, stride in zip(blocks, net.strides[:-1], strict=True):
            outputs.append(features(own, x, stride))
            x = outputs[-1].detach()
        scores = F.linear(x.flatten(1), *top["head"][0])
        error = (scores.detach().softmax(1) - F.one_hot(y, scores.shape[1])) / len(y)
        gradients = [torch.tensordot(error, own["feedback"][0].weight, 1) for own in blocks]
        return Roots([F.cross_entropy(scores, y)], outputs, gradients)

    return Rule(roots, {"f": 1, "head": 1}, together=True)


def associated_learning(net: Network) -> Rule:
    def enter(params: list[Groups], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x, F.one_hot(y, params[0]["g"][0].weight.shape[1]).to(x.dtype)

    def loss(own: Groups, stride: int, message: tuple[Tensor, Tensor], y: Tensor):
        below, target = message
        s = features(own, below, stride)
        t = torch.sigmoid(F.linear(target, *own["g"][0]))
        bridged = torch.sigmoid(F.linear(net.pooled(s), *own["b"][0]))
        bridged = torch.sigmoid(F.linear(bridged, *own["b"][1]))
        decoded = torch.sigmoid(F.linear(t, *own["h"][0]))
        value = F.mse_loss(bridged, t.detach()) + F.mse_loss(decoded, target)
        return value, (s.detach(), t.detach())

    return Rule(local(net, loss, enter=enter), {"f": 1, "b": 1, "g": 2, "h": 2})


def contrastive(net: Network) -> Rule:
    def loss(own: Groups, stride: int, x: Tensor, y: Tensor):
        x = features(own, x, stride)
        hidden = F.relu(F.linear(net.pooled(x), *own["head"][0]))
        return supervised_contrastive(F.linear(hidden, *own["head"][1]), y), x.detach()

    return Rule(local(net, loss, classifier(1.0)), {"f": 1, "head": 1})


def early_exit(net: Network) -> Rule:
    def loss(own: Groups, stride: int, x: Tensor, y: Tensor):
        x = features(own, x, stride)
        return F.cross_entropy(F.linear(net.pooled(x), *own["head"][0]), y), x.detach()

    return Rule(local(net, loss), {"f": 1, "head": 1})


def similarity(net: Network, beta: float = 0.99) -> Rule:
    def loss(own: Groups, stride: int, x: Tensor, y: Tensor):
        x = features(own, x, stride)
        scores = F.linear(net.pooled(x), *own["pred"][0])
        target = F.one_hot(y, scores.shape[1]).to(x.dtype)
        matching = F.mse_loss(cosines(convolve_or_dense(own["sim"][0], x)), cosines(target))
        return (1 - beta) * F.cross_entropy(scores, y) + beta * matching, x.detach()

    return Rule(local(net, loss, classifier(1 - beta)), {"f": 1, "pred": 1, "sim": 1, "head": 1})


def greedy(net: Network) -> Rule:
    def loss(own: Groups, stride: int, x: Tensor, y: Tensor):
        x = features(own, x, stride)
        if len(own["aux"]) == 1:
            return F.cross_entropy(F.linear(x.flatten(1), *own["aux"][0]), y), x.detach()
        hidden = F.relu(F.linear(net.pooled(x), *own["aux"][0]))
        return F.cross_entropy(F.linear(hidden, *own["aux"][1]), y), x.detach()

    return Rule(local(net, loss), {"f": 1, "aux": 1})


RULES: dict[str, Callable[[Network], Rule]] = {
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
    loss: Loss,
    last: Loss | None = None,
    enter: Callable[[list[Groups], Tensor, Tensor], Any] = lambda params, x, y: x,
) -> Callable[[list[Groups], Tensor, Tensor], Roots]:
    """Blocks with losses of their own, as `plain_jax.local`; messages come detached."""

    def roots(params: list[Groups], x: Tensor, y: Tensor) -> Roots:
        message, values = enter(params, x, y), []
        for own, stride in zip(params, net.strides, strict=True):
            value, message = (loss if last is None or "f" in own else last)(own, stride, message, y)
            values.append(value)
        return Roots(values)

    return roots


def classifier(weight: float) -> Loss:
    def loss(own: Groups, stride: int, x: Tensor, y: Tensor):
        return weight * F.cross_entropy(F.linear(x.flatten(1), *own["head"][0]), y), x

    return loss


# --- layers and losses -----------------------------------------------------------------------------------------------


def features(own: Groups, x: Tensor, stride: int) -> Tensor:
    """What a block hands on: images `(B, C, H, W)` of a convolution, vectors `(B, D)` of a dense layer."""
    return F.elu(convolve_or_dense(own["f"][0], x, stride))


def convolve_or_dense(layer: Layer, x: Tensor, stride: int = 1) -> Tensor:
    if layer.weight.ndim == 2:
        return F.linear(x, *layer)
    if stride == 1:
        return F.conv2d(x, *layer, padding=1)
    height, width = x.shape[2:]
    return F.conv2d(padded(x, 1 + height % 2, 1 + width % 2), *layer, stride=2)


def padded(x: Tensor, rows: int, columns: int) -> Tensor:
    """Images with so many rows and columns of zeros more, half of them behind; one that is left over is behind too."""
    sides = (columns // 2, -(-columns // 2), rows // 2, -(-rows // 2))
    return F.pad(x, sides) if any(sides) else x


def supervised_contrastive(z: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    z = F.normalize(z, dim=1, eps=1e-6)
    logits = z @ z.T / temperature
    self = torch.eye(len(z), dtype=torch.bool, device=z.device)
    positives = (labels[:, None] == labels) & ~self
    log_p = logits - logits.masked_fill(self, -math.inf).logsumexp(dim=1, keepdim=True)
    return -(torch.where(positives, log_p, 0.0).sum(dim=1) / positives.sum(dim=1).clamp(min=1)).mean()


def cosines(x: Tensor) -> Tensor:
    x = x.std(dim=(2, 3)) if x.ndim == 4 else x
    x = x - x.mean(dim=1, keepdim=True)
    x = x / (x.norm(dim=1, keepdim=True) + 1e-8)
    return (x @ x.T).clamp(-1, 1)
