"""How the module of a Block is called: with its input, and with whatever says whether it trains."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import jax
from flax import linen

from localgrad.blocks.given import RefusedError
from localgrad.blocks.modes import PLACED, TRAINS, arguments, mode, own_signature

How = Callable[..., Any]  # (module, x, train, rngs) -> y
HowFor = Callable[[Any], How]  # for an input of some shape and dtype


def how_called(kind: type, call: Callable | None, told: Sequence[str], works: Callable[[How, Any], Any]) -> HowFor:
    """How a module is called on an input.

    Args:
      kind: the module's class.
      call: `(module, x, train) -> y`, which then says it all, or None.
      told: mode arguments that are told in another way, as attributes.
      works: `(how, x_spec)` raises if the module cannot be called so.

    Raises:
      RefusedError: if the module takes anything but one input, and `call` does not say how.
    """
    if call is not None:
        return lambda x: lambda module, x, train, rngs: call(module, x, train)
    signature = own_signature(kind)
    if signature is None:
        raise RefusedError(
            f"{kind.__name__} has no __call__: say how it is called, call=lambda module, x, train: module.method(x)."
        )
    _check_inputs(signature)
    parameters = signature.parameters.values()
    own = [p.name for p in parameters if p.name in TRAINS and (p.name not in told or p.default is p.empty)]

    def how(module: Any, x: jax.Array, train: bool, rngs: Any, more: Sequence[str] = ()) -> Any:
        values = {name: mode(train)[name] for name in own} | ({} if rngs is None else {"rngs": rngs})
        args, kwargs = arguments(signature, values)
        return module(x, *args, **kwargs, **{name: mode(train)[name] for name in more})

    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        return lambda x: how

    @cache
    def accepted(shape: tuple[int, ...], dtype: Any) -> tuple[str, ...]:
        """The mode arguments that `**options` hands on to somebody who takes them."""
        x, others = jax.ShapeDtypeStruct(shape, dtype), [name for name in TRAINS if name not in signature.parameters]
        return tuple(name for name in others if _succeeds(works, partial(how, more=(name,)), x))

    return lambda x: partial(how, more=accepted(x.shape, x.dtype))


def fixed(value: Any) -> bool:
    """Whether nothing but its attributes says what a module does: what a user writes may also read what changes.

    `nn.remat` of a user's module makes a class of Flax that inherits from it, and a `Partial` holds any function.
    """
    if isinstance(value, tuple):
        return all(map(fixed, value))
    if isinstance(value, linen.Module):
        fields = [getattr(value, field.name, None) for field in dataclasses.fields(value) if field.name != "parent"]
        return fixed(type(value)) and all(map(fixed, fields))
    if isinstance(value, type):
        return all(map(_is_known, value.__mro__))
    if isinstance(value, str | int | float | None):
        return True
    return callable(value) and not isinstance(value, partial) and _is_known(value)


def _is_known(code: Any) -> bool:
    return str(getattr(code, "__module__", "")).partition(".")[0] in ("builtins", "flax", "jax", "localgrad", "numpy")


def _succeeds(works: Callable, how: How, x: Any) -> bool:
    try:
        works(how, x)
    except Exception:  # of whatever kind: options are looked up, handed on or refused
        return False
    return True


def _check_inputs(signature: inspect.Signature) -> None:
    """Refuses a module that wants more than one input, or none."""
    parameters = list(signature.parameters.values())
    takes = [p for p in parameters if p.kind in PLACED or p.kind is p.VAR_POSITIONAL]
    known = {*TRAINS, "rngs"} | {p.name for p in takes[:1]}
    empty = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    wanted = [p.name for p in empty if p.name not in known]
    if wanted or not takes:
        what = f"wants {' and '.join(wanted)} beside its input" if wanted else "takes no input by place"
        raise RefusedError(
            f"its module is called with {signature}, so it {what}, and a Block gives it one array and a "
            f"mode named {', '.join(TRAINS)}: say how it is called, for example "
            f"call=lambda module, x, train: module(x[..., :n], x[..., n:])."
        )
