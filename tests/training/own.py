"""Own modules and own data, as somebody would bring them who never saw this library: small, and quick to compile."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import localgrad as lg

BATCH, CLASSES, SHAPE = 16, 3, (4, 4, 1)


class Layer(nn.Module):
    features: int = 8
    activation: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Dense(self.features)(x.reshape(x.shape[0], -1))
        return self.activation(nn.Dropout(0.1, deterministic=not train)(x))


class Top(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.linear = nnx.Linear(8, 6, rngs=rngs)

    def __call__(self, x):
        return jnp.tanh(self.linear(x))


def pictures(count: int, seed: int = 0, classes: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Bytes whose brightness says the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    return (labels[:, None, None, None] * 60 + rng.integers(0, 60, (count, *SHAPE))).astype(np.uint8), labels


def model(task=CLASSES, tx: optax.GradientTransformation | None = None, blocks: Sequence[lg.Block] | None = None, **x):
    spec = jax.ShapeDtypeStruct((BATCH, *x.get("shape", SHAPE)), x.get("dtype", jnp.float32))
    network = [lg.from_linen(Layer()), lg.from_nnx(Top)] if blocks is None else list(blocks)
    return lg.early_exit(network, spec, task, tx=tx or optax.adam(5e-2))
