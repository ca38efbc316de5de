"""A Flax linen module seen from outside: plain dicts of arrays in and out."""

import dataclasses
import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from flax.core import DenyList

from localgrad.base import Key, PyTree
from localgrad.blocks.calls import How, HowFor, fixed, how_called
from localgrad.blocks.convolution import convolution
from localgrad.blocks.given import RefusedError, cast, check_params, lenient, same_state
from localgrad.blocks.modes import TRAINS, Call, Watch, decided, held, mode, own_signature, watching_linen
from localgrad.blocks.told import Module, check_told, explained, used_inputs

_KEPT = DenyList(("intermediates", "perturbations"))  # which Flax makes only for whoever asks for them


class Linen(NamedTuple):
    """A linen module and how it is used.

    Attributes:
      module: unbound.
      rngs: names of its random streams in training.
      frozen: paths that run as in prediction.
      call: what the user says of how it is called, or None.
      fields: its attributes that say whether it trains.
      how_for: how it is called, see `how_called`.
    """

    module: linen.Module
    rngs: tuple[str, ...]
    frozen: tuple[str, ...]
    call: Callable | None
    fields: tuple[str, ...]
    how_for: HowFor


def opened(module: linen.Module, rngs: tuple[str, ...], call: Callable | None, frozen: tuple[str, ...]) -> Linen:
    """A module and how it is used, from the arguments of `from_linen`.

    Raises:
      RefusedError: if it takes anything but one input, and `call` does not say how.
    """
    signature = own_signature(type(module))
    fields = []
    for field in dataclasses.fields(module):
        value = getattr(module, field.name, None)
        # A mode that is set cannot be given by an argument too; one left open is, where there is such an argument.
        argument = call is not None or (signature is not None and field.name in signature.parameters)
        if field.name in TRAINS and (isinstance(value, bool) or (value is None and not argument)):
            fields.append(field.name)

    def works(how: How, x: jax.ShapeDtypeStruct) -> None:
        jax.eval_shape(lambda key: begin(found._replace(how_for=lambda x: how), key, x), _key_spec())

    found = Linen(module, rngs, frozen, call, tuple(fields), how_called(type(module), call, fields, works))
    return found


def begin(linen_: Linen, key: Key, x_spec: jax.ShapeDtypeStruct, watch: Watch | None = None) -> tuple[PyTree, PyTree]:
    """Initial params and all other collections, of a call as in prediction.

    Equal modules of Flax and of this library, as dozens of blocks of one network have, are traced once, but for what a
    user's interceptors may change.
    """
    keys = jax.random.split(key, 1 + len(linen_.rngs))
    plain = watch is None and not linen.module._global_interceptor_stack
    if plain and isinstance(keys, jax.core.Tracer) and fixed((linen_.module, linen_.call)):
        return _traced(*linen_[:4], x_spec.shape, x_spec.dtype)(keys)
    return _begin(linen_, x_spec, watch, keys)


@functools.lru_cache(maxsize=256)
def _traced(
    module: linen.Module,
    rngs: tuple[str, ...],
    frozen: tuple[str, ...],
    call: Callable | None,
    shape: tuple[int, ...],
    dtype: Any,
) -> Callable[[jax.Array], tuple[PyTree, PyTree]]:
    linen_, x_spec = opened(module, rngs, call, frozen), jax.ShapeDtypeStruct(shape, dtype)
    return jax.jit(partial(_begin, linen_, x_spec, None), inline=True)


def _begin(linen_: Linen, x_spec: jax.ShapeDtypeStruct, watch: Watch | None, keys: jax.Array) -> tuple[PyTree, PyTree]:
    how, streams = linen_.how_for(x_spec), dict(zip(("params", *linen_.rngs), keys, strict=True))
    call = lambda module, x: how(module, x, False, None)
    with lenient(), watching_linen(_seen(linen_, False, watch)):  # new variables are float32 until they are cast
        x, module = jnp.zeros(x_spec.shape, x_spec.dtype), _as(linen_, False)
        variables: Any = module.init(streams, x, method=call, mutable=_KEPT)
    params = variables.pop("params", {})
    return cast(params, x_spec.dtype), cast(variables, x_spec.dtype, at_least_32=True)


def run(
    linen_: Linen,
    params: PyTree,
    model_state: PyTree,
    x: jax.Array,
    key: Key | None,
    train: bool,
    watch: Watch | None = None,
) -> tuple[Any, PyTree]:
    """A module's output, whatever it is, and its model state."""
    y, updated = _run(linen_, params, model_state, x, key, train, watch)
    return y, same_state(model_state, {**model_state, **updated}) if train else model_state


def _run(
    linen_: Linen, params: PyTree, model_state: PyTree, x: jax.Array, key: Key | None, train: bool, watch: Watch | None
) -> tuple[Any, PyTree]:
    """A module's output and the collections that have moved, whatever has become of them."""
    rngs, how = linen_.rngs, linen_.how_for(x)
    streams = {} if key is None else {name: jax.random.fold_in(key, i) if i else key for i, name in enumerate(rngs)}
    module, call = _as(linen_, train), lambda module, x: how(module, x, train, None)
    variables = {"params": params, **model_state}
    with lenient(), linen.intercept_methods(fast_convolution), watching_linen(_seen(linen_, train, watch)):
        if not (train and model_state):
            return module.apply(variables, x, rngs=streams, method=call), {}
        return module.apply(variables, x, rngs=streams, mutable=list(model_state), method=call)


def checked(linen_: Linen, x_spec: jax.ShapeDtypeStruct) -> frozenset[str]:
    """Refuses a module that does not do what each mode means; the collections that it only sows into.

    Equal modules, as dozens of blocks of one network have, are looked at once.

    Raises:
      RefusedError: naming the submodule, and what to do; or a path in `frozen` where nothing has a mode.
    """
    own, seen_as = linen_[:4], (x_spec.shape, x_spec.dtype, jax.dtypes.canonicalize_dtype(np.float64))
    try:
        hash(own)
    except TypeError:  # one with a list of layers, say
        return _check(linen_, x_spec)
    return _check_once(*own, *seen_as)


@functools.lru_cache(maxsize=256)
def _check_once(
    module: linen.Module,
    rngs: tuple[str, ...],
    frozen: tuple[str, ...],
    call: Callable | None,
    shape: tuple[int, ...],
    dtype: Any,
    widest: Any,
) -> frozenset[str]:
    return _check(opened(module, rngs, call, frozen), jax.ShapeDtypeStruct(shape, dtype))


def _check(linen_: Linen, x_spec: jax.ShapeDtypeStruct) -> frozenset[str]:
    explain = partial(explained, rngs=linen_.rngs)

    def started(watch: Watch) -> tuple[PyTree, PyTree]:
        look = lambda call: watch(_without_bridge(call))
        return jax.eval_shape(lambda key: begin(linen_, key, x_spec, look), _key_spec())

    params, model_state = explain(started, [], False)
    check_params(params)
    sown = frozenset(name for name in model_state if _only_sown(linen_, name, params, model_state, x_spec))
    model_state = {name: x for name, x in model_state.items() if name not in sown}

    def run_as(train: bool, watch: Watch) -> Callable:
        return lambda params, model_state, x, key: run(
            linen_, params, model_state, x, key if train else None, train, watch
        )

    owner = lambda path: "/".join(path[1:-1]) if path[0] == "batch_stats" else None
    check_told(Module(run_as, (params, model_state, x_spec, _key_spec()), owner), linen_.frozen, explain)
    return sown


def fast_convolution(call: Callable, args: tuple, kwargs: dict, context: linen.module.InterceptorContext) -> Any:
    """A linen interceptor: gives a Conv the convolution that is fast on a CPU too, unless it has one of its own."""
    module = context.module
    if isinstance(module, linen.Conv) and module.conv_general_dilated is module.conv_general_dilated_cls is None:
        object.__setattr__(module, "conv_general_dilated", convolution)  # a bound copy, which lives as long as the call
    return call(*args, **kwargs)


def _as(linen_: Linen, train: bool) -> linen.Module:
    """The module with the attributes that say whether it trains."""
    fields: Any = {name: mode(train)[name] for name in linen_.fields}
    return linen_.module.clone(**fields) if fields else linen_.module


def _seen(linen_: Linen, train: bool, watch: Watch | None) -> Watch:
    """A watch that sees calls as they are once everybody is told."""
    tell = decided(train, linen_.frozen)

    def see(call: Call) -> Call:
        return tell(call) if watch is None else watch(tell(call))

    return see


def _only_sown(linen_: Linen, name: str, params: PyTree, model_state: PyTree, x_spec: jax.ShapeDtypeStruct) -> bool:
    """Whether a module only writes to a collection: sowing leaves out what may not be written to, and reads nothing."""
    sown, rest = {name: model_state[name]}, {other: x for other, x in model_state.items() if other != name}

    def output(train: bool) -> Callable:
        key = jax.random.key(0) if train else None
        return lambda sown, rest, params, x: _run(linen_, params, {**sown, **rest}, x, key, train, None)[0]

    try:
        jax.eval_shape(output(True), {}, rest, params, x_spec)
        programs = [jax.make_jaxpr(output(train))(sown, rest, params, x_spec) for train in (True, False)]
    except Exception:  # it reads the collection, or does not run at all, as is then said
        return False
    return not any(any(used_inputs(program)[: len(jax.tree.leaves(sown))]) for program in programs)


def _without_bridge(call: Call) -> Call:
    """Refuses nnx modules within linen that have a mode: they are made anew for each call, and always train."""
    owner = call.owner
    if not isinstance(owner, nnx.bridge.ToLinen):
        return call

    def make() -> nnx.Module:
        return owner.nnx_class(*owner.args, **owner.kwargs, **({} if owner.skip_rng else {"rngs": nnx.Rngs(0)}))

    for _, part in nnx.iter_modules(nnx.eval_shape(make)):
        for mode_name in TRAINS:
            if held(part, mode_name) is not None:
                raise RefusedError(
                    f"nnx.bridge makes a new {type(part).__name__} for each call, whose {mode_name} cannot be "
                    "told: make the block of the nnx module, with from_nnx."
                )
    return call


def _key_spec() -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda: jax.random.key(0))
