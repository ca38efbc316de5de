"""A Flax nnx module seen from outside: dicts of arrays in and out, one entry a variable."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from localgrad.base import Key, PyTree
from localgrad.blocks.calls import How, HowFor, how_called
from localgrad.blocks.convolution import convolution
from localgrad.blocks.given import cast, check_made, check_params, lenient, rngs_by_name, same_state
from localgrad.blocks.lost import Called, attributes, check_lost
from localgrad.blocks.modes import Watch, held, mode, own_signature, watching_nnx, within
from localgrad.blocks.told import Module, check_told, explained
from localgrad.keys import is_key


class Nnx(NamedTuple):
    """An nnx module and how it is used.

    Attributes:
      make: `(rngs) -> module`.
      graph: the static part of the module.
      specs: its (params, random streams, rest).
      frozen: paths that run as in prediction.
      wants_rngs: its call is given random streams, for it has none or insists.
      how_for: how it is called, see `how_called`.
    """

    make: Callable[[nnx.Rngs], nnx.Module]
    graph: nnx.GraphDef
    specs: tuple[nnx.State, ...]
    frozen: tuple[str, ...]
    wants_rngs: bool
    how_for: HowFor


def opened(make: Callable[..., nnx.Module], call: Callable | None, frozen: tuple[str, ...]) -> tuple[Nnx, str]:
    """A module and how it is used, from the arguments of `from_nnx`; and the name of its class.

    Raises:
      RefusedError: if it is no nnx module, or takes anything but one input and `call` does not say how.
    """

    def made(rngs: nnx.Rngs) -> nnx.Module:
        named = rngs_by_name(make, rngs)
        module = make(**named) if named else make(rngs)
        check_made(module)
        nnx.pop(module, nnx.Intermediate)  # sown when the module was made
        _declare_arrays(module)
        return module

    # Split while it is traced: outside, Flax would take the shapes in a dict of arrays for options of the module.
    graph, specs = jax.eval_shape(lambda: _split(made(nnx.Rngs(0))))
    kind = graph.nodes[0].type
    signature = own_signature(kind)
    rngs = None if signature is None or call is not None else signature.parameters.get("rngs")
    wants_rngs = rngs is not None and (rngs.default is rngs.empty or not jax.tree.leaves(specs[1]))

    def works(how: How, x: jax.ShapeDtypeStruct) -> None:
        params, model_state = jax.eval_shape(lambda key: begin(found, key, x), _key_spec())
        as_told = found._replace(how_for=lambda x: how)
        look = lambda params, model_state, x: run(as_told, params, model_state, x, None, False)
        jax.eval_shape(look, params, model_state, x)

    how_for = how_called(kind, call, (), works)
    found = Nnx(made, graph, specs, frozen, wants_rngs, how_for)
    return found, kind.__name__


def begin(nnx_: Nnx, key: Key, x_spec: jax.ShapeDtypeStruct) -> tuple[PyTree, PyTree]:
    """Initial params and model state."""
    params, _, rest = _split(nnx_.make(nnx.Rngs(key)))[1]
    return cast(_to_dict(params), x_spec.dtype), cast(_to_dict(rest), x_spec.dtype, at_least_32=True)


def run(
    nnx_: Nnx,
    params: PyTree,
    model_state: PyTree,
    x: jax.Array,
    key: Key | None,
    train: bool,
    watch: Watch | None = None,
) -> tuple[Any, PyTree]:
    """A module's output, whatever it is, and its model state."""
    called = _called(nnx_, params, model_state, x, key, train, watch)
    return called.y, same_state(model_state, called.model_state) if train else model_state


def _called(
    nnx_: Nnx, params: PyTree, model_state: PyTree, x: jax.Array, key: Key | None, train: bool, watch: Watch | None
) -> Called:
    """What a call has made of a module."""
    specs, how = nnx_.specs, nnx_.how_for(x)
    key = jax.random.key(0) if key is None else key
    module = nnx.merge(
        nnx_.graph, _from_dict(specs[0], params), _reseed(specs[1], key), _from_dict(specs[2], model_state)
    )
    _prepare(module, x, train, nnx_.frozen)
    before = attributes(module)
    rngs = nnx.Rngs(jax.random.fold_in(key, len(jax.tree.leaves(specs[1])))) if nnx_.wants_rngs else None
    with lenient():
        if watch is None:
            y = how(module, x, train, rngs)
        else:
            with watching_nnx(module, watch):
                y = how(module, x, train, rngs)
    graph, (own, _, rest) = _split(module)
    return Called(y, _to_dict(own), _to_dict(rest), before, attributes(module), graph)


def check(nnx_: Nnx, x_spec: jax.ShapeDtypeStruct) -> None:
    """Refuses a module that does not do what each mode means.

    Raises:
      RefusedError: naming the submodule, and what to do; or a path in `frozen` where nothing has a mode.
    """
    params, model_state = jax.eval_shape(lambda key: begin(nnx_, key, x_spec), _key_spec())
    check_params(params)
    statistics = {_path(path) for path, v in nnx.to_flat_state(nnx_.specs[2]) if isinstance(v, nnx.BatchStat)}

    def run_as(train: bool, watch: Watch) -> Callable:
        return partial(run, nnx_, train=train, watch=watch)

    owner = lambda path: path[0].rpartition("/")[0] if path[0] in statistics else None
    specs = (params, model_state, x_spec, _key_spec())
    check_told(Module(run_as, specs, owner), nnx_.frozen, explained)
    call = lambda graph, train: partial(_called, nnx_._replace(graph=graph), train=train, watch=None)
    check_lost(call, nnx_.graph, specs)


def _prepare(module: nnx.Module, x: jax.Array, train: bool, frozen: Sequence[str]) -> None:
    """Tells a module, made for one trace, whether it trains, and gives it what suits the input."""
    tell = "train" if train else "eval"
    of_class = getattr(type(module), tell)  # an attribute of this name would hide the method
    (of_class if callable(of_class) else getattr(nnx.Module, tell))(module)
    half = jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits < 32
    for path, part in nnx.iter_modules(module):
        own = train and not within(_path(path), frozen)
        for name, value in mode(own).items():
            if held(part, name) is not None:
                setattr(part, name, value)
        if not isinstance(part, nnx.bridge.ToNNX):  # which takes every attribute for a variable
            setattr(part, "__captures__", ())  # noqa: B010  (nobody reads what is sown)
        if isinstance(part, nnx.Conv) and part.conv_general_dilated is jax.lax.conv_general_dilated:
            part.conv_general_dilated = convolution
        if half and isinstance(part, nnx.BatchNorm) and part.dtype is None:
            part.dtype = x.dtype  # its statistics are float32, and would make the output so


def _declare_arrays(module: nnx.Module) -> None:
    """Says of arrays that are attributes that they are data, which Flax does not see of those made within a trace."""
    for _, part in list(nnx.iter_graph(module)):
        if isinstance(part, nnx.Pytree) and not isinstance(part, nnx.bridge.ToNNX):
            for name, value in list(vars(part).items()):
                if isinstance(value, jax.Array):
                    setattr(part, name, nnx.data(value))


def _key_spec() -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda: jax.random.key(0))


def _split(module: nnx.Module) -> tuple[nnx.GraphDef, tuple[nnx.State, ...]]:
    """The static part of a module, and its (params, random streams, rest)."""
    graph, *states = nnx.split(module, nnx.Param, nnx.RngState, ...)
    return graph, tuple(states)


def _path(path: Sequence[Any]) -> str:
    return "/".join(map(str, path))


def _to_dict(state: nnx.State) -> dict[str, jax.Array]:
    return {_path(path): _raw(leaf) for path, leaf in nnx.to_flat_state(state)}


def _from_dict(spec: nnx.State, arrays: dict[str, jax.Array]) -> nnx.State:
    def filled(leaf: Any, array: jax.Array) -> Any:
        return leaf.replace(array) if isinstance(leaf, nnx.Variable) else array

    return nnx.from_flat_state([(path, filled(leaf, arrays[_path(path)])) for path, leaf in nnx.to_flat_state(spec)])


def _raw(leaf: Any) -> Any:
    """What a variable keeps, before its hooks of reading, which its module runs; an array that is none, as it is."""
    return leaf.get_raw_value() if isinstance(leaf, nnx.Variable) else leaf


def _reseed(spec: nnx.State, key: Key) -> nnx.State:
    """Random streams that start at `key`: stream j at `fold_in(key, j)`, all counts at zero."""

    def fresh(j: int, variable: nnx.Variable) -> nnx.Variable:
        spec = _raw(variable)
        if not is_key(spec):
            return variable.replace(jnp.zeros(spec.shape, spec.dtype))
        own = jax.random.fold_in(key, j)
        return variable.replace(jax.random.split(own, spec.shape) if spec.shape else own)  # several for `nnx.vmap`

    return nnx.from_flat_state([(path, fresh(j, v)) for j, (path, v) in enumerate(nnx.to_flat_state(spec))])
