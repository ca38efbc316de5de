"""Methods of strangers, each with one fault: greedy linear blocks, written without the library's makers."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from localgrad.base import BlockState, Forward, LocalBlock, Model
from tests.pipeline import toys

BATCH, FEATURES, WIDTH = 4, 3, 3
OWN = jax.random.key(0)


def block(
    name: str,
    *,
    detached: bool = True,
    scale: Callable[[jax.Array, Any], Any] = lambda key, message: 1.0,
    seen: Callable[[], Any] = lambda: jnp.zeros((), jnp.float64),
    moved: Callable[[jax.Array], jax.Array] = lambda x: x,
    reported: Callable[[jax.Array], Any] = lambda loss: loss,
    tx: optax.GradientTransformation | None = None,
) -> LocalBlock:
    """A linear layer with a classifier of its own; the arguments are its faults."""
    tx = tx or optax.sgd(0.1)

    def init(key: jax.Array, message: Any) -> BlockState:
        own = jax.random.split(key)
        params = {"f": toys.draw(own[0], FEATURES, WIDTH), "head": toys.draw(own[1], WIDTH, toys.CLASSES)}
        return BlockState(params, {"seen": seen()}, {"f+head": tx.init(params)})

    def forward(state: BlockState, message: Any, key: jax.Array) -> Forward:
        x = jax.lax.stop_gradient(message["x"]) if detached else message["x"]
        factor = scale(key, message)

        def loss(params: Any) -> tuple[jax.Array, jax.Array]:
            h = jnp.tanh(factor * (x @ params["f"]))
            return toys.objective(h @ params["head"], message["y"]), h

        (value, h), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        out = jax.lax.stop_gradient(h) if detached else h
        return Forward(
            {**message, "x": out}, {"seen": moved(state.model_state["seen"])}, grads, {"loss": reported(value)}
        )

    return LocalBlock(name, "none", init, forward, {"f+head": tx})


def model(*blocks: LocalBlock) -> Model:
    return toys.model_of("stranger", blocks, BATCH, FEATURES)


def honest() -> Model:
    draw = lambda key, message: jax.random.uniform(key, (), jnp.float64)
    return model(block("lower", scale=draw), block("upper"))


def leaking() -> Model:
    """The lower block does not detach what it hands on, nor the upper what it reads."""
    return model(block("careless", detached=False), block("curious", detached=False))


def counting() -> Model:
    """A hidden Python counter."""
    count = itertools.count()
    return model(block("plain"), block("counter", scale=lambda key, message: 1.0 + next(count)))


def drawing_by_numpy() -> Model:
    rng = np.random.default_rng()
    return model(block("plain"), block("numpy", scale=lambda key, message: float(rng.uniform())))


def compiling_twice() -> Model:
    """A weakly typed leaf of the state."""
    return model(block("plain"), block("weak", seen=lambda: 0.0 * jnp.exp(1.0), moved=lambda x: x + jnp.float64(1)))


def narrowing() -> Model:
    """A leaf whose dtype changes."""
    return model(block("narrow", moved=lambda x: x.astype(jnp.float32)), block("plain"))


def own_key() -> Model:
    scale = lambda key, message: jax.random.uniform(OWN, (), jnp.float64)
    return model(block("plain"), block("stubborn", scale=scale))


def shared_key() -> Model:
    """All blocks find one key in the message."""
    scale = lambda key, message: jax.random.uniform(jax.random.key(message["y"][0]), (), jnp.float64)
    return model(block("gossip", scale=scale), block("plain"))


def spent_key() -> Model:
    """Draws with a key that depends on the given one in words alone."""

    def scale(key: jax.Array, message: Any) -> jax.Array:
        nothing = jax.random.key_data(key)[0] * jnp.uint32(0)
        return jax.random.uniform(jax.random.fold_in(OWN, nothing), (), jnp.float64)

    return model(block("spent", scale=scale), block("plain"))


def key_as_number() -> Model:
    """Draws nothing, and computes with the numbers of its key."""
    scale = lambda key, message: 1.0 + jax.random.key_data(key)[1].astype(jnp.float64) / 2.0**32
    return model(block("plain"), block("miser", scale=scale))


def drawing_on_the_host() -> Model:
    """Every run of the one program draws anew."""
    rng = np.random.default_rng()
    drawn = lambda: jax.pure_callback(lambda: rng.uniform(), jax.ShapeDtypeStruct((), jnp.float64))
    return model(block("host", scale=lambda key, message: drawn()), block("plain"))


def looking_at_jit() -> Model:
    """Computes otherwise while it is traced."""
    scale = lambda key, message: 1.0 if isinstance(message["x"], jax.core.Tracer) else 2.0
    return model(block("tracer", scale=scale), block("plain"))


def reporting_by_jit() -> Model:
    """Learns the same while it is traced, and reports another loss."""
    reported = lambda loss: loss if isinstance(loss, jax.core.Tracer) else 2.0 * loss
    return model(block("plain"), block("reporter", reported=reported))


def reporting_by_turns() -> Model:
    """What it reports has a hidden counter."""
    count = itertools.count()
    return model(block("plain"), block("turns", reported=lambda loss: loss + next(count)))


def of_one_batch_size() -> Model:
    """A factor that follows from how many examples there are."""
    return model(block("counts examples", scale=lambda key, message: float(len(message["x"]))), block("plain"))


def unfinished() -> Model:
    """A checkpoint cannot hold a key."""
    return model(block("plain"), block("keeper", seen=lambda: jax.random.key(3)))
