"""What a Block promises of its `init` and `apply`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import Block
from localgrad.testing.compare import assert_finite, assert_same, kind_of, leaves_of
from localgrad.testing.examples import random_inputs
from localgrad.testing.keys import check_draws_of
from localgrad.testing.traces import check_pure


def check_block(block: Block, x_spec: jax.ShapeDtypeStruct, *, x: jax.Array | None = None) -> None:
    """A Block is a pair of pure functions that predict each example by itself; its model state moves in training alone.

    Args:
      block: any Block.
      x_spec: shape and dtype of a batch `(B, ...)`.
      x: a batch; a random one by default.

    Raises:
      AssertionError: naming the block, and what it does that it must not.

    Examples:
      >>> import localgrad as lg
      >>> check_block(lg.mlp((4,), norm=True, dropout=0.5)[0], jax.ShapeDtypeStruct((8, 5), jnp.float32))
    """
    name, key = f"block {block.name!r}", jax.random.key(0)
    given = jnp.asarray(random_inputs(np.random.default_rng(0), x_spec, 1)[0]) if x is None else x
    train = lambda params, model_state, x, key: block.apply(params, model_state, x, key=key, train=True)
    predict = lambda params, model_state, x: block.apply(params, model_state, x, key=None, train=False)
    params, model_state = jax.jit(lambda key: block.init(key, x_spec))(key)
    check_pure(lambda key: block.init(key, x_spec), (key,), f"{name}, `init`")
    check_pure(train, (params, model_state, given, key), f"{name}, `apply`")
    check_draws_of(lambda key: block.init(key, x_spec), (key,), 0, f"{name}, `init`")
    check_draws_of(train, (params, model_state, given, key), 3, f"{name}, `apply`")
    _check_prediction(name, predict, params, model_state, given)
    y, moved = jax.jit(train)(params, model_state, given, key)
    _check_kept(f"{name}, `apply(..., train=True)`", model_state, moved)
    again, still = jax.jit(predict)(params, model_state, given)
    advice = "Predict with what training has gathered, and leave it as it is: read `train`."
    assert_same(model_state, still, 0.0, f"{name}, `apply(..., train=False)` moves the model state", advice)
    assert_finite({"y": y, "prediction": again}, name, "Look for a division or a logarithm of zero.")
    _check_apart(name, jax.jit(predict), params, model_state, given, again)
    assert kind_of(y) == kind_of(again), (
        f"{name} gives {kind_of(y)} in training and {kind_of(again)} in prediction: give both one shape and dtype."
    )
    _check_summary(name, block, y, len(given))


def _check_prediction(name: str, predict: Any, params: Any, model_state: Any, x: jax.Array) -> None:
    """Prediction is given no key, and draws nothing."""
    try:
        check_draws_of(predict, (params, model_state, x), -1, f"{name}, `apply(..., key=None, train=False)`")
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(
            f"{name} does not predict: `apply(..., key=None, train=False)` raises {type(error).__name__}: {error}. "
            "Prediction is told by `train=False`, and has no key: leave out what draws."
        ) from error


def _check_apart(name: str, predict: Any, params: Any, model_state: Any, x: jax.Array, y: jax.Array) -> None:
    """What is predicted of an example does not depend on those beside it, nor on what a batch is filled up with."""
    some = len(x) // 2
    if not some:
        return
    among_others, _ = predict(params, model_state, x.at[some:].set(x[0]))
    limit = 1e-4 * float(1 + jnp.max(jnp.abs(y)))
    advice = "Normalise by what training has gathered: of a batch alone, predictions depend on how it is filled up."
    assert_same(y[:some], among_others[:some], limit, f"{name} predicts an example by those beside it", advice)


def _check_kept(where: str, before: Any, after: Any) -> None:
    old, new = ({path: kind_of(leaf) for path, leaf in leaves_of(tree)} for tree in (before, after))
    same: bool = jax.tree.structure(before) == jax.tree.structure(after)  # type: ignore[operator]
    assert same and old == new, (
        f"{where} gives a model state of another kind: {old} became {new}. Give back the tree that was given, with its "
        "shapes and dtypes."
    )


def _check_summary(name: str, block: Block, y: jax.Array, examples: int) -> None:
    """Heads read rows, as many as there are examples, or places of them."""
    summary = jax.eval_shape(block.summary, y)
    shape: tuple[int, ...] = tuple(getattr(summary, "shape", ()))
    assert len(shape) >= 2 and shape[0] % examples == 0, (
        f"{name}: `summary` gives {kind_of(summary)} for outputs {kind_of(y)}; heads read (B, D), here with {examples} "
        "rows: average over places, or give all of the output."
    )
