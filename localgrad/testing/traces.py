"""Nothing is compiled twice: functions are pure while they are traced, and states keep their shapes and dtypes."""

from collections.abc import Callable
from typing import Any

import chex
import jax

from localgrad.base import Batches, Model
from localgrad.methods import trial_keys
from localgrad.pipeline import sequential
from localgrad.pipeline.step import settle
from localgrad.testing.compare import kind_of, leaves_of, name_of
from localgrad.testing.examples import States, or_first, or_random
from localgrad.testing.jaxprs import same_program
from localgrad.testing.passes import visits

_PURE = (
    "Python runs when a function is traced and not when it is computed: keep counts in `model_state`, and draw with "
    "the block's key instead of numpy or `random`."
)
_STABLE = (
    "A training step must give back what it was given; make the leaf with a dtype, as `jnp.zeros((), x.dtype)`, and "
    "convert what is written to it."
)


def check_traces(model: Model, batches: Batches | None = None, *, states: States | None = None) -> None:
    """Traced twice a block is the same program, its state keeps its shapes and dtypes, and one compilation is enough.

    Args:
      model: any model.
      batches: random ones by default.
      states: by default those of `init`.

    Raises:
      AssertionError: naming the block, and the line that changed or the leaf whose kind did; or if the engine's step
        is traced more than once.

    Examples:
      >>> import jax.numpy as jnp, localgrad as lg, optax
      >>> model = lg.dgl(lg.mlp((4,)), jax.ShapeDtypeStruct((8, 5), jnp.float32), 3, tx=optax.sgd(0.1))
      >>> check_traces(model)
    """
    for i, (block, visit) in enumerate(zip(model.blocks, visits(model), strict=True)):
        name = name_of(model, i)
        check_pure(block.init, (visit.forward[2], visit.forward[1]), f"{name}, `init`")
        check_pure(block.forward, visit.forward, f"{name}, `forward`")
        if block.backward is not None and visit.backward is not None:
            check_pure(block.backward, visit.backward, f"{name}, `backward`")
        _check_stable(model, i, visit)
    given, first = or_random(model, batches), or_first(model, states)
    _check_one_compilation(model, given, first)


def check_pure(function: Callable[..., Any], args: tuple[Any, ...], where: str) -> None:
    """A function traced twice is the same program.

    Args:
      function: a function of arrays.
      args: shapes and dtypes of what it is given.
      where: whose function it is.

    Raises:
      AssertionError: with the first line that differs.
    """
    # each trace is of a function of its own, as jax remembers the program of one that it has seen
    first, again = (jax.make_jaxpr(lambda *args, _which=which: function(*args))(*args) for which in range(2))
    changed = same_program(first, again)
    assert not changed, f"{where} is another program when it is traced again: {changed}. {_PURE}"


def _check_stable(model: Model, i: int, visit: Any) -> None:
    """After a step every leaf of the state is of the kind that it was before."""
    block, state = model.blocks[i], visit.forward[0]
    passed = jax.eval_shape(block.forward, *visit.forward)
    grads = dict(passed.grads)
    if block.backward is not None and visit.backward is not None:
        grads |= jax.eval_shape(block.backward, *visit.backward).grads
    _check_kinds(f"{name_of(model, i)}, model_state", state.model_state, passed.model_state)
    for group, own in grads.items():
        assert group in state.params, f"{name_of(model, i)}: a gradient of {group!r}, which is no parameter group."
        _check_kinds(f"{name_of(model, i)}, gradient of params[{group!r}]", state.params[group], own)
    weak = [path for path, leaf in leaves_of(state) if getattr(leaf, "weak_type", False)]
    assert not weak, (
        f"{name_of(model, i)}: {weak[0]} is weakly typed as `init` makes it, and would compile a second time once it "
        f"has been computed. {_STABLE}"
    )
    if all(group in passed.grads for names in block.tx for group in names.split("+")):
        ok = jax.ShapeDtypeStruct((), bool)
        step = lambda state, passed, ok: settle(block, state, passed.model_state, passed.grads, passed.metrics, ok)[0]
        try:
            after = jax.eval_shape(step, state, passed._replace(stash=(), down=None), ok)
        except TypeError as error:
            raise AssertionError(f"{name_of(model, i)}: the optimizer's step changes the state: {error}") from error
        _check_kinds(f"{name_of(model, i)}, after a step", state, after)


def _check_kinds(where: str, before: Any, after: Any) -> None:
    old, new = ({path: kind_of(leaf) for path, leaf in leaves_of(tree)} for tree in (before, after))
    for path in (*old, *(path for path in new if path not in old)):
        was, became = old.get(path, "not there"), new.get(path, "not there").removeprefix("weakly typed ")
        assert was.removeprefix("weakly typed ") == became, f"{where}: {path} was {was} and became {became}. {_STABLE}"


def _check_one_compilation(model: Model, given: Batches, states: States) -> None:
    """The sequential engine's call is traced once for all calls."""
    engine = sequential(model)
    chex.clear_trace_counter()  # it counts by the text of what is traced, and this text is the same for every model
    inside = engine.run.__wrapped__  # type: ignore[attr-defined]  # jax.jit keeps what it was given
    run = jax.jit(chex.assert_max_traces(lambda state, fed: inside(state, fed), n=1))
    state = engine.load(tuple(states), trial_keys(7, model.trials))
    before = state
    try:
        for _ in range(3):
            before, (state, _) = state, run(state, given)
    except AssertionError as error:
        raise AssertionError(f"{_changed(model, before.blocks, state.blocks)}. {_STABLE}") from error
    except TypeError as error:
        raise AssertionError(f"a training step does not give back the state that it was given: {error}") from error


def _changed(model: Model, before: States, after: States) -> str:
    for i, pair in enumerate(zip(before, after, strict=True)):
        for (path, old), (_, new) in zip(*map(leaves_of, pair), strict=True):
            if kind_of(old) != kind_of(new):
                return f"{name_of(model, i)}: {path} was {kind_of(old)} and became {kind_of(new)}: compiled twice"
    return "a training step was compiled twice for states of the same kinds"
