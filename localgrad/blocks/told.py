"""Whether a Flax module does in each mode what that mode means, seen from what it really does.

A module is traced, without being run, once as it trains and once as it predicts.  A submodule that is called with the
other mode's value there is suspected; the module is traced again with the suspects told, and only if that is another
program is it refused.  So a layer whose mode makes no difference (dropout of rate 0, attention without dropout) passes,
and one of a kind that nobody thought of does not.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.interpreters import partial_eval

from localgrad.base import PyTree
from localgrad.blocks.given import RefusedError
from localgrad.blocks.modes import TRAINS, Call, Watch, at_rest, mode, modes, told, within
from localgrad.blocks.reasons import not_told, random_in_prediction, reason_of

Run = Callable[[PyTree, PyTree, Any, Any], tuple[Any, PyTree]]  # (params, model_state, x, key) -> (y, model_state)
RunAs = Callable[[bool, Watch], Run]

# What calls a program on its inputs once, and the name that the program has there.
_HAND_ON = {"jit": "jaxpr", "remat2": "jaxpr", "custom_vjp_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}


class Traced(NamedTuple):
    """What a module does in one mode.

    Attributes:
      text: its program.
      draws: how many random numbers it draws.
      needs_key: whether anything it gives depends on the key.
      still: paths of the modules whose batch statistics stay as they are.
    """

    text: str
    draws: int
    needs_key: bool
    still: frozenset[str]


class Module(NamedTuple):
    """A module as `check_told` needs it.

    Attributes:
      run: `(train, watch) -> (params, model_state, x, key) -> (y, model_state)`.
      specs: of these four arguments.
      owner: the path of the module that a batch statistic belongs to, from the statistic's own; None for other state.
    """

    run: RunAs
    specs: tuple[PyTree, PyTree, Any, Any]
    owner: Callable[[tuple[str, ...]], str | None]


def check_told(module: Module, frozen: Sequence[str], explain: Callable[..., Any]) -> None:
    """Refuses a module whose mode does not reach all of it.

    Args:
      module: what to look at.
      frozen: paths that run as in prediction on purpose.
      explain: `(trace, calls, train) -> trace(watch)`, see `explained`.

    Raises:
      RefusedError: naming the submodule, and what to do; or a path in `frozen` where nothing has a mode.
    """
    for train in (True, False):
        calls: list[Call] = []
        plain = explain(lambda watch, train=train: _traced(module, train, watch), calls, train)
        if train:
            _check_frozen(plain, frozen, calls)
        wrong = wrong_calls(calls, train, frozen)
        if wrong and not _same(module, plain, train, list(wrong)):
            culprit = next((path for path in wrong if not _same(module, plain, train, [path])), next(iter(wrong)))
            raise RefusedError(not_told(culprit, wrong[culprit], train))
        if train:
            if not within("", frozen):
                _check_options(module, plain, calls)
            _check_statistics(plain, frozen)
        elif plain.needs_key:
            raise RefusedError(random_in_prediction())


def explained(trace: Callable[[Watch], Any], calls: list[Call], train: bool, rngs: Sequence[str] = ()) -> Any:
    """What a trace gives, whose calls are added to a list; its errors say what to do where that is known."""

    def record(call: Call) -> Call:
        calls.append(at_rest(call))
        return call

    try:
        return trace(record)
    except Exception as error:
        wrong = wrong_calls(calls, train, ())
        reason = reason_of(error, calls, wrong, train, rngs)
        if reason is None:
            raise
        raise RefusedError(reason) from error


def wrong_calls(calls: Sequence[Call], train: bool, frozen: Sequence[str]) -> dict[str, str]:
    """Paths that are called with the other mode's value, and that value: `{"Dropout_0": "deterministic=True"}`."""
    wrong: dict[str, str] = {}
    for call in calls:
        for name, value in modes(call).items():
            if isinstance(value, bool) and value != mode(train)[name] and not (train and within(call.path, frozen)):
                wrong.setdefault(call.path, f"{name}={value}")
    return wrong


def _traced(module: Module, train: bool, watch: Watch) -> Traced:
    params, model_state, *_ = module.specs
    closed = jax.make_jaxpr(module.run(train, watch))(*module.specs)
    jaxpr = closed.jaxpr
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(model_state)]
    first = len(jax.tree.leaves(params))
    before = jaxpr.invars[first : first + len(paths)]
    after = jaxpr.outvars[len(jaxpr.outvars) - len(paths) :]
    owners = [module.owner(tuple(str(part.key) for part in path)) for path in paths]
    moved = {owner for owner, old, new in zip(owners, before, after, strict=True) if passed_on(jaxpr, new) is not old}
    text = text_of(closed)
    still = frozenset(owner for owner in owners if owner is not None) - moved
    return Traced(text, text.count("random_bits"), used_inputs(closed)[-1], still)


def text_of(program: Any) -> str:
    """A program in print, by which it is compared: without addresses, which differ from trace to trace."""
    return re.sub("0x[0-9a-f]+", "", str(program))


def passed_on(jaxpr: Any, result: Any) -> Any:
    """The input that a result of a program is, untouched, through functions that only hand it on; None if it is none.

    A module that goes through `nnx.jit` or `nnx.remat` comes out with all its variables, the same or not.
    """
    while not any(result is given for given in jaxpr.invars):
        call = next((eqn for eqn in jaxpr.eqns if any(result is out for out in eqn.outvars)), None)
        if call is None or call.primitive.name not in _HAND_ON:
            return None
        inner = call.params[_HAND_ON[call.primitive.name]]
        inner = getattr(inner, "jaxpr", inner)
        source = passed_on(inner, inner.outvars[call.outvars.index(result)])
        if source is None:
            return None
        result = call.invars[inner.invars.index(source)]
    return result


def used_inputs(jaxpr: Any) -> list[bool]:
    """Which of its inputs the results of a program depend on."""
    return list(partial_eval.dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars))[1])


def _same(module: Module, plain: Traced, train: bool, paths: Sequence[str]) -> bool:
    """Whether a module does the same if the submodules at some paths are told the mode."""

    def watch(call: Call) -> Call:
        return told(call, {name: mode(train)[name] for name in modes(call)}) if call.path in paths else call

    try:
        return _traced(module, train, watch).text == plain.text
    except Exception:  # it does something, and cannot
        return False


def _check_frozen(plain: Traced, frozen: Sequence[str], calls: Sequence[Call]) -> None:
    with_mode = dict.fromkeys([*(call.path for call in calls if modes(call)), *plain.still])
    for part in frozen:
        inside = [call for call in calls if within(call.path, (part,))]
        if not any(within(path, (part,)) for path in with_mode):
            there = ", ".join(map(repr, with_mode)) or "none"
            raise RefusedError(f"frozen names {part!r}, where nothing has a mode; the paths that have one are {there}.")
        for path, value in wrong_calls(inside, False, ()).items():
            raise RefusedError(f"{path!r} is frozen, but it is called with {value}: leave that out of the call.")


def _check_statistics(plain: Traced, frozen: Sequence[str]) -> None:
    for path in sorted(path for path in plain.still if not within(path, frozen)):
        raise RefusedError(not_told(path, "batch statistics that stay as they are", True))


def _check_options(module: Module, plain: Traced, calls: Sequence[Call]) -> None:
    """Refuses a mode of another name: a yes-or-no argument that makes a module draw or move statistics."""
    top = next((call for call in calls if call.path == "" and call.signature.parameters), None)
    given = top.signature.bind_partial(*top.args, **top.kwargs).arguments if top else {}
    for option, parameter in top.signature.parameters.items() if top else ():
        if option in TRAINS or option in given or not isinstance(parameter.default, bool):
            continue

        def watch(call: Call, option: str = option, value: bool = not parameter.default) -> Call:
            return told(call, {option: value}) if call.path == "" and option in call.signature.parameters else call

        try:
            other = _traced(module, True, watch)
        except Exception:  # the argument is something else
            continue
        if other.draws > plain.draws or other.still < plain.still:
            train = "train" if not parameter.default else "not train"
            raise RefusedError(
                f"its module draws random numbers or moves statistics only with {option}={not parameter.default}, which"
                f" nobody would tell it: pass call=lambda module, x, train: module(x, {option}={train})."
            )
