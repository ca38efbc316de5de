"""Toy blocks of the kinds that no method of the library is of yet: they learn now and later, from the block above."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from localgrad.base import Backward, BlockState, Forward, LocalBlock, Model
from localgrad.losses import cross_entropy
from localgrad.tasks import classification

CLASSES = 3


def model_of(method: str, blocks: Sequence[LocalBlock], batch: int, features: int) -> Model:
    """A model whose message is {x, y}."""
    return Model(
        method=method,
        blocks=tuple(blocks),
        x_spec=jax.ShapeDtypeStruct((batch, features), jnp.float64),
        y_spec=jax.ShapeDtypeStruct((batch,), jnp.int32),
        task=classification(CLASSES),
        enter=lambda x, y: {"x": x, "y": y},
        predict=lambda states, x, exit=None: x,
        features=lambda states, x, keys=None: [x],
        exits=(len(blocks),),
        effective=(frozenset("f"),) * len(blocks),
    )


def draw(key: jax.Array, rows: int, columns: int) -> jax.Array:
    return jax.random.normal(key, (rows, columns), jnp.float64) / rows**0.5


def objective(scores: jax.Array, y: jax.Array) -> jax.Array:
    return cross_entropy(scores, jax.nn.one_hot(y, CLASSES, dtype=scores.dtype))


def top(tx: optax.GradientTransformation, width: int) -> LocalBlock:
    """A linear classifier that learns at once, and hands down its loss's gradient along its input."""

    def init(key, message) -> BlockState:
        params = {"f": draw(key, width, CLASSES)}
        return BlockState(params, {}, {"f": tx.init(params)})

    def forward(state, message, key) -> Forward:
        x = jax.lax.stop_gradient(message["x"])
        loss = lambda w, x: objective(x @ w, message["y"])
        value, (own, below) = jax.value_and_grad(loss, (0, 1))(state.params["f"], x)
        return Forward({**message, "x": x @ state.params["f"]}, {}, {"f": own}, {"loss": value}, down=below)

    return LocalBlock("top", "none", init, forward, {"f": tx})


def synthetic(tx: optax.GradientTransformation, rows: int, width: int, dropout: float = 0.0) -> LocalBlock:
    """Decoupled neural interfaces: f learns at once from a guess of the gradient, the guess when the gradient comes."""

    def init(key, message) -> BlockState:
        own = jax.random.split(key)
        params = {"f": draw(own[0], rows, width), "guess": draw(own[1], width, width)}
        return BlockState(params, {"seen": jnp.zeros((), jnp.float64)}, {g: tx.init({g: params[g]}) for g in params})

    def forward(state, message, key) -> Forward:
        kept = jax.random.bernoulli(key, 1 - dropout, message["x"].shape).astype(jnp.float64) if dropout else 1.0
        run = lambda w, x: jnp.tanh((kept * x) @ w)
        h, vjp = jax.vjp(run, state.params["f"], jax.lax.stop_gradient(message["x"]))
        guessed = h @ state.params["guess"] / len(h)
        own, below = vjp(guessed)
        moved = {"seen": 0.9 * state.model_state["seen"] + 0.1 * jnp.mean(h)}
        grads, metrics = {"f": own}, {"loss": jnp.sum(guessed * h)}
        return Forward({**message, "x": h}, moved, grads, metrics, stash={"h": h}, down=below)

    def backward(state, stash, signal) -> Backward:
        away = lambda m: jnp.mean(jnp.sum((stash["h"] @ m - len(signal) * signal) ** 2, axis=1))
        loss, own = jax.value_and_grad(away)(state.params["guess"])
        return Backward({"guess": own}, {"loss": loss, "away": loss})

    return LocalBlock("synthetic", "next", init, forward, {"f": tx, "guess": tx}, backward)


def dni(tx: optax.GradientTransformation, widths: Sequence[int], batch: int, features: int, dropout=0.0) -> Model:
    """A network of such blocks, with a classifier on top."""
    sizes = [features, *widths]
    blocks = [synthetic(tx, a, b, dropout) for a, b in zip(sizes, sizes[1:], strict=False)]
    return model_of("dni", [*blocks, top(tx, widths[-1])], batch, features)


def targeted(tx: optax.GradientTransformation, rows: int, width: int, last: bool) -> LocalBlock:
    """Target propagation: the inverse learns at once, f when its target has come down through those above."""

    def init(key, message) -> BlockState:
        own = jax.random.split(key)
        params = {"f": draw(own[0], rows, width), "inverse": draw(own[1], width, rows)}
        return BlockState(params, {}, {g: tx.init({g: params[g]}) for g in params})

    def forward(state, message, key) -> Forward:
        x = jax.lax.stop_gradient(message["x"])
        h = jnp.tanh(x @ state.params["f"])
        away = lambda g: jnp.mean(jnp.sum((h @ g - x) ** 2, axis=1))
        loss, own = jax.value_and_grad(away)(state.params["inverse"])
        target = h - len(h) * 0.1 * jax.grad(objective)(h, message["y"]) if last else jnp.zeros((0,), h.dtype)
        stash = {"x": x, "h": h, "w": state.params["f"], "target": target}
        return Forward({**message, "x": h}, {}, {"inverse": own}, {"loss": loss}, stash=stash)

    def backward(state, stash, signal) -> Backward:
        target = stash["target"] if last else signal
        away = lambda w: jnp.mean(jnp.sum((jnp.tanh(stash["x"] @ w) - target) ** 2, axis=1))
        loss, own = jax.value_and_grad(away)(stash["w"])
        below = stash["x"] + (target - stash["h"]) @ state.params["inverse"]  # the inverse of now, which has learnt
        return Backward({"f": own}, {"loss": loss}, below)

    return LocalBlock("targeted", "above", init, forward, {"f": tx, "inverse": tx}, backward)


def targets(tx: optax.GradientTransformation, widths: Sequence[int], batch: int, features: int) -> Model:
    """A network of such blocks; the last has one feature a class."""
    sizes = [features, *widths, CLASSES]
    pairs = list(zip(sizes, sizes[1:], strict=False))
    return model_of(
        "targets", [targeted(tx, a, b, i == len(pairs) - 1) for i, (a, b) in enumerate(pairs)], batch, features
    )
