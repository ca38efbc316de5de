"""Small AL models and one way of training them, shared by the tests of the engines.

Compiling takes far longer than training here, so every run is made once for all tests.
"""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from localgrad import al, cnn, mlp, sequential, spmd
from localgrad.base import BlockState, Engine, Metrics, Model
from localgrad.data import batches
from localgrad.pipeline import specs

BATCH, STEPS = 12, 224  # 1, 7 and 32 divide the steps, so each engine compiles once
NEWEST = tuple(map(int, jax.__version__.split(".")[:2])) >= (0, 12)
NETWORKS = {
    "mlp": lambda: mlp((24, 20, 16, 12), dropout=0.2),
    "mlp-plain": lambda: mlp((24, 20, 16, 12)),
    "mlp-equal": lambda: mlp((64, 64), activation="tanh"),
    "mlp-wide": lambda: mlp((128, 256, 120)),  # whose slots keep the shapes of matrices, some of them padded
    "cnn": lambda: cnn((4, 4, 6, 6, 8, 8), dropout=0.1),
    "cnn-norm": lambda: cnn((4, 6, 6), norm=True, dropout=0.1),
}


class Trained(NamedTuple):
    """What training left: the engine, the blocks' states on the host, the metrics of each call, the engine's state."""

    engine: Engine
    states: tuple[BlockState, ...]
    metrics: list[Metrics]
    engine_state: object


@cache
def make_model(name: str, dtype=jnp.float32) -> Model:
    """A small AL model with all that could move in a bubble: clipping, AdamW, two rates and a schedule."""
    schedule = optax.cosine_decay_schedule(3e-3, STEPS)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule))
    equal = name == "mlp-equal"
    return al(
        NETWORKS[name](),
        jax.ShapeDtypeStruct((BATCH, 64) if equal else (BATCH, 8, 8, 1), dtype),
        10,
        tx={"f+b": tx, "g+h": optax.adam(2e-3)},
        profile="neco",
        target_width=10 if equal else 8,
        bridge=(),
    )


@cache
def initial(name: str, dtype=jnp.float32) -> tuple[BlockState, ...]:
    """States as initialisation makes them but for the numbers, which are numpy's: nothing is compiled."""
    rng = np.random.default_rng(1)

    def fill(path, spec):
        if any(getattr(key, "name", None) == "params" for key in path):
            return (0.3 * rng.standard_normal(spec.shape)).astype(spec.dtype)
        return np.full(spec.shape, "var" in jax.tree_util.keystr(path), spec.dtype)

    return tuple(jax.tree_util.tree_map_with_path(fill, specs(make_model(name, dtype))[0]))


@cache
def examples(name: str, dtype=jnp.float32) -> tuple[np.ndarray, np.ndarray]:
    """Inputs `(STEPS, B, ...)` and labels `(STEPS, B)`."""
    model, rng = make_model(name, dtype), np.random.default_rng(0)
    xs = rng.standard_normal((STEPS, *model.x_spec.shape)).astype(dtype)
    return xs, rng.integers(0, model.task.classes, (STEPS, BATCH)).astype(np.int32)


def trained(name: str, stages: int, per_call: int = 32, dtype=jnp.float32, **options) -> Trained:
    """Trains for `STEPS` batches (float64: 64), sequentially for `stages=0`, else by a pipeline with bubbles of NaN."""
    return _trained(name, stages, per_call, dtype, **options)  # the cache tells a default from the same value given


@cache
def _trained(name: str, stages: int, per_call: int, dtype, **options) -> Trained:
    with jax.enable_x64(dtype == jnp.float64):
        model = make_model(name, dtype)
        engine = spmd(model, stages=stages, bubble=float("nan"), **options) if stages else sequential(model)
        xs, ys = map(jnp.asarray, examples(name, dtype))
        state, metrics = engine.load(initial(name, dtype), jax.random.key(2)), []
        for start in range(0, STEPS if dtype == jnp.float32 else 64, per_call):
            chosen = slice(start, start + per_call)
            fed = batches(xs[chosen], ys[chosen], first=start)
            state, reported = engine.run(state, fed)
            metrics.append(jax.device_get(reported))
        return Trained(engine, jax.device_get(engine.states(state, fed)), metrics, state)
