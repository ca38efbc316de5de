"""Blocks from Flax modules: Flax inside, plain pytrees outside."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx

from localgrad.base import Block, Key, PyTree
from localgrad.blocks.convolution import convolution


def from_linen(module: linen.Module, *, name: str | None = None, rngs: Sequence[str] = ("dropout",)) -> Block:
    """Makes a Block of a Flax linen module.

    The module is called as `module(x)`, with `train=` or `deterministic=` added where its `__call__` takes them.
    Collections other than `params` (batch statistics) become the block's model state.  Initial variables are cast to
    the dtype of the input, so that a network fed with float64 trains in float64; those of a module that reads whole
    numbers stay as it makes them.

    Args:
      module: an unbound linen module whose `__call__` takes one array `(B, ...)`.
      name: the name in tables; the class name by default.
      rngs: names of the random streams that the module draws from while training.

    Returns:
      A `Block`.

    Raises:
      TypeError: at `init` and `apply`, if the module pins a dtype other than its input's.

    Examples:
      >>> from flax import linen
      >>> block = from_linen(linen.Dense(3))
      >>> params, state = block.init(jax.random.key(0), jax.ShapeDtypeStruct((8, 4), jnp.float32))
      >>> y, state = block.apply(params, state, jnp.ones((8, 4)), key=None, train=False)
      >>> y.shape
      (8, 3)
    """
    name = name or type(module).__name__
    mode = _mode_argument(type(module).__call__)

    def init(key: Key, x_spec: jax.ShapeDtypeStruct) -> tuple[PyTree, PyTree]:
        streams = dict(zip(("params", *rngs), jax.random.split(key, 1 + len(rngs)), strict=True))
        with _lenient():  # new variables are float32 until they are cast
            variables = module.init(streams, jnp.zeros(x_spec.shape, x_spec.dtype), **mode(False))
        variables = _cast(variables, x_spec.dtype)
        return variables.pop("params", {}), variables

    def apply(params: PyTree, model_state: PyTree, x: jax.Array, *, key: Key | None, train: bool):
        streams = {} if key is None else {name: jax.random.fold_in(key, i) if i else key for i, name in enumerate(rngs)}
        variables = {"params": params, **model_state}
        with _lenient(), linen.intercept_methods(fast_convolution):
            if train and model_state:
                y, updated = module.apply(variables, x, rngs=streams, mutable=list(model_state), **mode(True))
                model_state = {**model_state, **updated}
            else:
                y = module.apply(variables, x, rngs=streams, **mode(train))
        return _same_dtype(name, x, y), model_state

    return Block(init, apply, name)


def from_nnx(make: Callable[[nnx.Rngs], nnx.Module], *, name: str | None = None) -> Block:
    """Makes a Block of a Flax nnx module.

    `nnx.Param`s become params; every other variable but random streams becomes model state; both are dicts with one
    entry a variable, keyed by its path.  `module.train()` or `module.eval()` is called before each use, and the
    module's random streams are seeded anew from the key of each step.

    Args:
      make: `(rngs) -> module`, where the module takes one array `(B, ...)`; called to initialise.
      name: the name in tables; the class name by default.

    Returns:
      A `Block`.

    Raises:
      TypeError: at `apply`, if the module pins a dtype other than its input's.

    Examples:
      >>> block = from_nnx(lambda rngs: nnx.Linear(4, 3, rngs=rngs))
      >>> params, state = block.init(jax.random.key(0), jax.ShapeDtypeStruct((8, 4), jnp.float32))
      >>> {path: x.shape for path, x in params.items()}
      {'bias': (3,), 'kernel': (4, 3)}
    """
    abstract = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    name = name or type(abstract).__name__
    graph, specs = _split(abstract)

    def init(key: Key, x_spec: jax.ShapeDtypeStruct) -> tuple[PyTree, PyTree]:
        params, _, rest = _split(make(nnx.Rngs(key)))[1]
        return _cast((_to_dict(params), _to_dict(rest)), x_spec.dtype)

    def apply(params: PyTree, model_state: PyTree, x: jax.Array, *, key: Key | None, train: bool):
        streams = _reseed(specs[1], jax.random.key(0) if key is None else key)
        module = nnx.merge(graph, _from_dict(specs[0], params), streams, _from_dict(specs[2], model_state))
        for _, part in nnx.iter_graph(module):
            if isinstance(part, nnx.Conv) and part.conv_general_dilated is jax.lax.conv_general_dilated:
                part.conv_general_dilated = convolution
        if train:
            module.train()
        else:
            module.eval()
        with _lenient():
            y = module(x)
        if train:
            model_state = _to_dict(_split(module)[1][2])
        return _same_dtype(name, x, y), model_state

    return Block(init, apply, name)


def fast_convolution(call: Callable, args: tuple, kwargs: dict, context: linen.module.InterceptorContext) -> Any:
    """A linen interceptor: gives a Conv the convolution that is fast on a CPU too, unless it has one of its own."""
    module = context.module
    if isinstance(module, linen.Conv) and module.conv_general_dilated is module.conv_general_dilated_cls is None:
        object.__setattr__(module, "conv_general_dilated", convolution)  # a bound copy, which lives as long as the call
    return call(*args, **kwargs)


def _lenient():
    """Standard dtype promotion for Flax's own code, whose batch norm meets float64 with float32 on its way."""
    return jax.numpy_dtype_promotion("standard")


def _split(module: nnx.Module) -> tuple[nnx.GraphDef, tuple[nnx.State, ...]]:
    """The static part of a module, and its (params, random streams, rest)."""
    graph, *states = nnx.split(module, nnx.Param, nnx.RngState, ...)
    return graph, tuple(states)


def _mode_argument(call: Callable) -> Callable[[bool], dict[str, Any]]:
    """Returns `train -> keyword arguments` that tell a linen module whether it trains."""
    names = inspect.signature(call).parameters
    if "train" in names:
        return lambda train: {"train": train}
    if "deterministic" in names:
        return lambda train: {"deterministic": not train}
    return lambda train: {}


def _path(path: Sequence[Any]) -> str:
    return "/".join(map(str, path))


def _to_dict(state: nnx.State) -> dict[str, jax.Array]:
    return {_path(path): variable.get_value() for path, variable in nnx.to_flat_state(state)}


def _from_dict(spec: nnx.State, arrays: dict[str, jax.Array]) -> nnx.State:
    return nnx.from_flat_state(
        [(path, spec_v.replace(arrays[_path(path)])) for path, spec_v in nnx.to_flat_state(spec)]
    )


def _reseed(spec: nnx.State, key: Key) -> nnx.State:
    """Random streams that start at `key`: stream j at `fold_in(key, j)`, all counts at zero."""

    def fresh(j: int, variable: nnx.Variable) -> nnx.Variable:
        is_key = jnp.issubdtype(variable.get_value().dtype, jax.dtypes.prng_key)
        return variable.replace(jax.random.fold_in(key, j) if is_key else jnp.zeros((), variable.get_value().dtype))

    return nnx.from_flat_state([(path, fresh(j, v)) for j, (path, v) in enumerate(nnx.to_flat_state(spec))])


def _cast(tree: PyTree, dtype: Any) -> PyTree:
    if not jnp.issubdtype(dtype, jnp.floating):
        return tree
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def _same_dtype(name: str, x: jax.Array, y: jax.Array) -> jax.Array:
    if y.dtype != x.dtype and jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"block {name!r} turns {x.dtype} into {y.dtype}: its module pins a dtype. Leave the module's dtype at its "
            f"default (None), or cast its output back to the dtype of its input."
        )
    return y
