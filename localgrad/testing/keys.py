"""All randomness comes from the key that a block is given."""

from collections.abc import Callable
from typing import Any

import jax

from localgrad.base import Batches, Model, PyTree
from localgrad.pipeline.jaxprs import reached
from localgrad.testing.compare import assert_same, furthest, name_of
from localgrad.testing.examples import States, block_keys, first_message, or_first, or_random
from localgrad.testing.jaxprs import DRAWS
from localgrad.testing.passes import visits

_ADVICE = (
    "Draw with the `key` that the function is given, or with keys split from it: it differs from block to block and "
    "from batch to batch, and is the same on every engine."
)

_UNUSED = "Use the key for random draws alone: its numbers are not for anything else."


def check_keys(model: Model, batches: Batches | None = None, *, states: States | None = None) -> None:
    """Every random draw of a block depends on the key that it is given, by jaxpr and by value.

    A `jax.random.key(0)` of its own, a key kept in the state, and one key that all blocks find in the message are
    caught.  The same key gives the same numbers, and that of another batch others; where nothing is drawn, the same.

    Args:
      model: any model.
      batches: random ones by default; the first is used.
      states: by default those of `init`.

    Raises:
      AssertionError: naming the block, the function and the line that draws.

    Examples:
      >>> import jax.numpy as jnp, localgrad as lg, optax
      >>> model = lg.dgl(lg.mlp((4,), dropout=0.5), jax.ShapeDtypeStruct((8, 5), jnp.float32), 3, tx=optax.sgd(0.1))
      >>> check_keys(model)
    """
    _check_draws(jax.make_jaxpr(model.enter)(model.x_spec, model.y_spec), [False, False], "`enter` of the model")
    message = first_message(model, or_random(model, batches))
    first, keys, others = or_first(model, states), block_keys(model, 3), block_keys(model, 4)
    for i, (block, visit) in enumerate(zip(model.blocks, visits(model), strict=True)):
        name, state = name_of(model, i), first[i]
        check_draws_of(block.init, (visit.forward[2], visit.forward[1]), 0, f"{name}, `init`")
        drawn = check_draws_of(block.forward, visit.forward, 2, f"{name}, `forward`")
        if block.backward is not None and visit.backward is not None:
            check_draws_of(block.backward, visit.backward, 1, f"{name}, `backward`")  # a stash may hold a key
        run = jax.jit(block.forward)
        ours, again, other = (run(state, message, key) for key in (keys[i], keys[i], others[i]))
        assert_same(ours, again, 0.0, f"{name}, `forward` twice with the same key", _ADVICE)
        if drawn:
            moved = furthest(_arrays(ours), _arrays(other))
            assert not moved.endswith("by 0.0e+00"), (
                f"{name}, `forward` draws {drawn[0]}, and gives the same with the keys of two batches. {_ADVICE}"
            )
        else:  # its stash may hold the key for `backward`
            unlike = f"{name}, `forward` draws nothing, and with the keys of two batches"
            one, another = (_arrays(each._replace(stash=())) for each in (ours, other))
            assert_same(one, another, 0.0, unlike, _UNUSED)
        message = ours.message


def check_draws_of(function: Callable[..., Any], args: tuple[Any, ...], which: int, where: str) -> list[str]:
    """Every draw of a function depends on one of its arguments; the draws, in words.

    Args:
      function: a pure function.
      args: shapes and dtypes of what it is given; None and other static arguments are trees without leaves.
      which: the argument that holds the key.
      where: whose function it is.

    Raises:
      AssertionError: for a draw from any other key.
    """
    live = [at == which for at, arg in enumerate(args) for _ in jax.tree.leaves(arg)]
    return _check_draws(jax.make_jaxpr(function)(*args), live, where)


def _check_draws(program: Any, live: list[bool], where: str) -> list[str]:
    found: list[str] = []

    def look(equation: Any, given: list[bool], place: str) -> None:
        if equation.primitive.name not in DRAWS:
            return
        place = f" at {place}" if place else ""
        assert any(given), (
            f"{where}: random numbers are drawn{place} from another key than the one it is given. {_ADVICE}"
        )
        found.append(f"random numbers{place}")

    reached(program, live, look)
    return found


def _arrays(found: Any) -> PyTree:
    """What a pass gives, without functions that a stash may hold."""
    return {
        "message": found.message,
        "model_state": found.model_state,
        "grads": found.grads,
        "metrics": found.metrics,
        "stash": found.stash,
    }
