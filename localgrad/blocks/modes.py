"""How a Flax module is told whether it trains, and how one watches what its submodules are told.

A module's mode is an argument of its call, or an attribute that it was built with, by one of the names in `TRAINS`.
A *watch* is a function that sees every call of a module and of all that it holds, and may change its arguments.  linen
has interceptors for that; in nnx the objects of one trace are given a subclass, whose `__call__` asks the watch.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import jax
from flax import linen, nnx

# The names that Flax, and modules written for it, use; the value is the one that means training.
TRAINS = {
    "train": True,
    "training": True,
    "is_training": True,
    "update_stats": True,
    "deterministic": False,
    "use_running_average": False,
}
PLACED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Call(NamedTuple):
    """A call of a module or of one that it holds.

    Attributes:
      path: the names down to it, joined by `/`; `""` is the module itself.
      owner: the module that is called.
      signature: that of the method, without `self`.
      args, kwargs: what it is called with.
    """

    path: str
    owner: Any
    signature: inspect.Signature
    args: tuple
    kwargs: Mapping[str, Any]


Watch = Callable[[Call], Call]


def at_rest(call: Call) -> Call:
    """A call to keep when its trace is over: of its owner and arguments the modes, and shapes in place of arrays."""
    owner = object.__new__(type(call.owner))
    for name in TRAINS:
        if (value := held(call.owner, name)) is not None:
            object.__setattr__(owner, name, value)

    def rest(x: Any) -> Any:
        if isinstance(x, jax.Array):
            return jax.ShapeDtypeStruct(x.shape, x.dtype)
        return x if isinstance(x, bool) else None

    kwargs = {name: rest(x) for name, x in call.kwargs.items()}
    return call._replace(owner=owner, args=tuple(map(rest, call.args)), kwargs=kwargs)


def mode(train: bool) -> dict[str, bool]:
    """The value of every mode argument."""
    return {name: trains == train for name, trains in TRAINS.items()}


def within(path: str, parts: Sequence[str]) -> bool:
    """Whether a path is one of the parts or inside of one; the part `""` is everything."""
    return any(part in ("", path) or path.startswith(f"{part}/") for part in parts)


# --- a call of a module: reading and changing its mode ---------------------------------------------------------------


def own_signature(kind: type) -> inspect.Signature | None:
    """The signature of calls of a class's objects, without `self`; None if they cannot be called."""
    if not any("__call__" in vars(base) for base in kind.__mro__):
        return None
    signature = inspect.signature(vars(kind).get("__call__", kind.__call__))
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def arguments(signature: inspect.Signature, values: Mapping[str, Any]) -> tuple[list, dict[str, Any]]:
    """What follows the input in a call that hands over those of the `values` that a signature names.

    They go by place where they can: a lifted module (`nn.remat`, `nn.jit`) makes arrays of keywords.

    Examples:
      >>> arguments(inspect.signature(lambda x, mask=None, train=False, *, scale=1: x), {"train": True})
      ([None, True], {})
    """
    behind = list(signature.parameters.values())[1:]
    placed = [i for i, p in enumerate(behind) if p.name in values and p.kind in PLACED]
    args = [values.get(p.name, p.default) for p in behind[: max(placed, default=-1) + 1]]
    return args, {p.name: values[p.name] for p in behind if p.name in values and p.kind is p.KEYWORD_ONLY}


def held(owner: Any, name: str) -> bool | None:
    """A mode that a module, or its class, was built with; None where it has none, or it is undecided."""
    value = inspect.getattr_static(owner, name, None)
    return value if isinstance(value, bool) else None


def modes(call: Call) -> dict[str, Any]:
    """The mode arguments of a call and their values: given, by default or held by the module; None where undecided."""
    found: dict[str, Any] = {}
    try:
        given = call.signature.bind_partial(*call.args, **call.kwargs).arguments
    except TypeError:  # the call itself will raise it, and say where
        return found
    for name in TRAINS:
        parameter, own = call.signature.parameters.get(name), held(call.owner, name)
        if parameter is not None:
            value = given.get(name, None if parameter.default is parameter.empty else parameter.default)
            found[name] = own if value is None else value
        elif own is not None:
            found[name] = own
    return found


def told(call: Call, values: Mapping[str, Any]) -> Call:
    """A call with other values of some arguments, each where the call has it: as an attribute, by place, by keyword."""
    args, kwargs, names = list(call.args), dict(call.kwargs), list(call.signature.parameters)
    for name, value in values.items():
        by_place = name in names and names.index(name) < len(args)
        if held(call.owner, name) is not None:
            object.__setattr__(call.owner, name, value)  # a bound copy, which lives as long as the trace
        if by_place:
            args[names.index(name)] = value
        elif name in kwargs or held(call.owner, name) is None:
            kwargs[name] = value
    return call._replace(args=tuple(args), kwargs=kwargs)


def decided(train: bool, frozen: Sequence[str]) -> Watch:
    """A watch that tells submodules whose mode nobody decided, as in `nn.Sequential`, and those that are frozen."""

    def watch(call: Call) -> Call:
        own = train and not within(call.path, frozen)
        return told(call, {n: mode(own)[n] for n, value in modes(call).items() if value is None or own != train})

    return watch


def _signature(method: Any) -> inspect.Signature:
    """The signature of a method as linen hands it to an interceptor: its function, with the module as first argument.

    Reading one takes longer than calling a small module, so those of functions that classes have are remembered.
    """
    function = getattr(method, "func", None)
    if inspect.isfunction(function) and function.__closure__ is None and len(method.args) == 1:
        return _without_first(function)
    return inspect.signature(method)


@lru_cache(maxsize=1024)
def _without_first(function: Callable) -> inspect.Signature:
    return inspect.signature(partial(function, None))


# --- watching --------------------------------------------------------------------------------------------------------


@contextmanager
def watching_linen(watch: Watch, *within: str) -> Iterator[None]:
    """Within it, a watch sees every call of a linen module's methods; what the module is within begins the paths."""

    def intercept(call: Callable, args: tuple, kwargs: dict, context: linen.module.InterceptorContext) -> Any:
        path = "/".join((*within, *context.module.path))
        seen = watch(Call(path, context.module, _signature(context.orig_method), args, kwargs))
        return call(*seen.args, **seen.kwargs)

    with linen.intercept_methods(intercept):
        yield


@contextmanager
def watching_nnx(module: nnx.Module, watch: Watch) -> Iterator[None]:
    """Within it, a watch sees every call of an nnx module, which a trace has made for itself, and of all it holds."""
    for path, part in list(nnx.iter_modules(module)):
        if not isinstance(part, nnx.bridge.ToNNX):  # which takes every attribute for a variable
            object.__setattr__(part, "__class__", _asking(type(part)))
            object.__setattr__(part, "_path", "/".join(map(str, path)))
    token = _watch.set(watch)
    try:
        with watching_linen(watch, "ToNNX"):
            yield
    finally:
        _watch.reset(token)


_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@cache
def _asking(kind: type) -> type:
    """A subclass of a kind of nnx module whose calls ask the watch first."""
    signature = own_signature(kind)

    def ask(self: Any, *args: Any, **kwargs: Any) -> Any:
        watch = _watch.get()
        if watch is not None and signature is not None:
            seen = watch(Call(self._path, self, signature, args, kwargs))
            args, kwargs = seen.args, dict(seen.kwargs)
        return super(asking, self).__call__(*args, **kwargs)

    body = {"__module__": kind.__module__} | ({} if signature is None else {"__call__": ask})
    asking: Any = type(kind.__name__, (kind,), body)
    return asking
