"""NoProp: every block learns alone to see the target through noise, and no block waits for another.

    z_t = sqrt(a_t) u_y + sqrt(1 - a_t) eps      loss_t = w_t mean |v_t(F_t(x), z_{t-1}) - u_y|^2      t = 1 .. T
    prediction: v = v_t(F_t(x), z_{t-1})
                z_t = sqrt(a_t) v + sqrt((1 - a_t) / (1 - a_{t-1})) (z_{t-1} - sqrt(a_{t-1}) v)

u_y is the target in the space of the scores, onehot(y) of classes.  Every block has a copy F_t of the whole network on
the raw input, drawn by itself, and a denoiser v_t of its features and z.  In training no block's work depends on any
other's, so that they may learn in any order, or apart; in prediction they follow each other.

References:
  Li, Teh and Pascanu, NoProp: Training Neural Networks without Full Back-propagation or Full Forward-propagation,
    https://arxiv.org/abs/2503.24322, discrete time (NoProp-DT)
  Song, Meng and Ermon, Denoising Diffusion Implicit Models, https://arxiv.org/abs/2010.02502, Eq. 12 (prediction)
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from localgrad.base import Block, BlockState, Key, LocalBlock, Message, Model
from localgrad.blocks import chain, from_linen
from localgrad.methods.groups import Optimizers, check_kernels
from localgrad.methods.parts import (
    Parts,
    Run,
    check,
    checked_exit,
    local_block,
    names_of,
    runs_of,
    summaries_of,
)
from localgrad.registry import check_known
from localgrad.tasks import Task

WEIGHTS = ("snr", "one")
_NOISE = 0x6E6F6973  # sets the key of the noise apart from those within a block
_OFFSET, _LEAST, _MOST = 0.008, 1e-4, 0.99  # of the cosine schedule; its ends, where the ratio has none


def noprop(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    steps: int = 10,
    hidden: int = 256,
    weights: str = "snr",
    eta: float = 0.1,
) -> Model:
    """A chain of denoisers of the target, each with a network of its own.

    The paper's blocks are convolutional networks beside a small one for z, T = 10, a cosine schedule of the noise;
    its last step is a softmax layer that learns with the last block, where here the last denoised target is the scores,
    and its prediction draws noise between the blocks, where here there is none and it begins with z_0 = 0.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier; every step has one of this form.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs, which the message carries to every block.
      classes: number of classes C, of labels 0 .. C - 1; or another task, see `localgrad.tasks`.
      tx: any optax transform over the groups f and head, the denoiser.
      steps: T, the number of blocks.
      hidden: units of the denoiser's hidden layer.
      weights: w_t is `snr`, eta T / 2 times what the signal-to-noise ratio a / (1 - a) grows by in step t, as the paper
        has it; or `one`, which leaves plain SGD a rate of the same meaning in every block.
      eta: see `weights`.

    Returns:
      A `Model` of T blocks, each an exit.

    Raises:
      ValueError: for steps or hidden units below one, unknown weights, or an eta that is not positive.
    """
    network, task = check(network, classes, "noprop")
    for name, value in (("steps", steps), ("hidden", hidden)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number from 1 up; got {value!r}.")
    check_known("weights", weights, WEIGHTS, of="method 'noprop'")
    if not 0 < eta < math.inf:
        raise ValueError(f"eta must be positive and finite; got {eta}.")
    signal = signals(steps)
    ratio = signal / (1 - signal)
    grows = eta * steps / 2 * np.diff(ratio) if weights == "snr" else np.ones(steps)
    denoiser = from_linen(_Denoiser(hidden, task.outputs), name="denoiser")
    parts: list[Parts] = [{"f": chain(network), "head": denoiser} for _ in range(steps)]
    blocks = [_block(part, task, tx, float(signal[t]), float(grows[t])) for t, part in enumerate(parts)]
    exits = tuple(range(1, steps + 1))

    def enter(x: jax.Array, y: jax.Array) -> Message:
        return {"x": x, "y": y}

    def path(states: tuple[BlockState, ...], x: jax.Array, top: int, keys: Sequence[Key] | None = None):
        """The outputs of the networks up to a step, and the target as that step sees it."""
        outputs, z, seen = [], None, None
        runs = runs_of(parts[:top], states[:top], None if keys is None else keys[:top])
        for t, (part, run) in enumerate(zip(parts, runs, strict=False)):
            outputs.append(run("f", x))
            features = _flat(part["f"].summary(outputs[-1]))
            z = jnp.zeros((len(features), task.outputs), features.dtype) if z is None else z
            seen = run("head", jnp.concatenate([features, z], axis=1))
            keeps = math.sqrt((1 - signal[t + 1]) / (1 - signal[t]))
            z = keeps * z + (math.sqrt(signal[t + 1]) - keeps * math.sqrt(signal[t])) * seen
        return outputs, seen

    def predict(states: tuple[BlockState, ...], x: jax.Array, exit: int | None = None) -> jax.Array:
        return task.shaped(path(states, x, checked_exit(exits, exit))[1], x)

    def features(states: tuple[BlockState, ...], x: jax.Array, keys: Sequence[Key] | None = None) -> list[jax.Array]:
        outputs, scores = path(states, x, steps, keys)
        return [*summaries_of(parts, outputs), scores]

    used = (frozenset({"f", "head"}),) * steps
    names = (*names_of(parts), "scores")
    y_spec = task.y_spec(x_spec)
    check_kernels(blocks, set().union(*parts))
    return Model("noprop", tuple(blocks), x_spec, y_spec, task, enter, predict, features, exits, used, path=names)


def _block(parts: Parts, task: Task, tx: Optimizers, signal: float, weight: float) -> LocalBlock:
    """The block of one step: z has this share of signal, and its loss this weight."""

    def step(run: Run, message: Message, key: Key):
        features = _flat(parts["f"].summary(run("f", message["x"])))
        target = task.encode(message["y"], features.dtype)
        noise = jax.random.normal(jax.random.fold_in(key, _NOISE), target.shape, target.dtype)
        z = math.sqrt(signal) * target + math.sqrt(1 - signal) * noise
        seen = run("head", jnp.concatenate([features, z], axis=1))
        away = jnp.mean(jnp.sum((seen - target) ** 2, axis=1)) + task.check(message["y"], features.dtype)
        return dict(message), {"loss": weight * away, "squared_error": away}

    block = local_block(parts["f"].name, parts, step, tx)
    return block._replace(made_of=None)  # the next block reads nothing of f, as transforms of its rule would take it


def signals(steps: int) -> np.ndarray:
    """The shares of signal a_0 .. a_T, `(T + 1,)`: a cosine, held away from 0 and 1.

    References:
      Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models, https://arxiv.org/abs/2102.09672, Eq. 17
    """
    left = 1 - np.arange(steps + 1) / steps
    whole = np.cos((left + _OFFSET) / (1 + _OFFSET) * np.pi / 2) ** 2
    return np.clip(whole, _LEAST, _MOST)


def _flat(features: jax.Array) -> jax.Array:
    return features.reshape(len(features), -1)


class _Denoiser(nn.Module):
    """The target, of features and z side by side."""

    hidden: int
    outputs: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(self.hidden)(x))
        return nn.Dense(self.outputs)(x)
