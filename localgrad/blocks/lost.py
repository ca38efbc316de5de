"""What a call does to its nnx module beside moving model state, which a Block would lose: it is refused.

A Block keeps arrays and nothing else, and its parameters are moved by the optimizer alone.  A parameter that a call
makes or writes, and a Python attribute that it changes, would be as they were at the next call.  An attribute
that a second call leaves as it is, and that changes no output, is a note (the last shape, say), and passes.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from localgrad.base import PyTree
from localgrad.blocks.given import RefusedError
from localgrad.blocks.told import passed_on, text_of

_KEEPS = "and a Block keeps only arrays from call to call"


class Called(NamedTuple):
    """What a call has made of a module.

    Attributes:
      y: its output.
      params, model_state: after the call.
      before, after: the attributes that are no arrays, by path, see `attributes`.
      graph: the static part of the module after the call.
    """

    y: Any
    params: PyTree
    model_state: PyTree
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    graph: nnx.GraphDef


class _Looked(NamedTuple):
    text: str
    called: Called


_CallOf = Callable[[nnx.GraphDef, bool], Callable[..., Called]]  # (graph, train) -> (params, model_state, x, key) -> it


def check_lost(call: _CallOf, graph: nnx.GraphDef, specs: tuple[PyTree, PyTree, Any, Any]) -> None:
    """Refuses a module whose calls change what a Block does not keep.

    Args:
      call: how a module of some static part is called.
      graph: the static part of the module as it is made.
      specs: of params, model state, input and key.

    Raises:
      RefusedError: naming the parameter or the attribute, and what to do.
    """
    looked = {train: _look(call(graph, train), specs) for train in (True, False)}
    for one in looked.values():
        changed = _changed(one.called)
        if changed is not None and not _is_note(call, one.called.graph, specs, looked):
            old, new = (_told(side, changed) for side in (one.called.before, one.called.after))
            raise RefusedError(
                f"its call turns its attribute {changed!r} from {old} into {new}, {_KEEPS}, so the next call would not "
                "know of it: keep it as an array in an nnx.Variable, which is made in __init__."
            )


def attributes(module: nnx.Module) -> dict[str, Any]:
    """What a module and those that it holds have in attributes beside arrays, by path."""
    found: dict[str, Any] = {}
    for path, value in nnx.iter_graph(module):
        name = str(path[-1]) if path else "_pytree__"  # what Flax itself notes of a module begins so
        if not (name.startswith("_pytree__") or isinstance(value, nnx.Variable | nnx.Pytree | jax.Array | np.ndarray)):
            found["/".join(map(str, path))] = value.copy() if isinstance(value, list | dict | set) else value
    return found


def _look(call: Callable[..., Called], specs: tuple[PyTree, PyTree, Any, Any]) -> _Looked:
    """What a call does, of which the parameters are looked at; it is traced, not run."""
    found: list[Called] = []

    def after(params: PyTree, *others: Any) -> tuple[Any, PyTree, PyTree]:
        called = call(params, *others)
        _check_same_params(params, called.params)
        found.append(called._replace(y=None, params=None, model_state=None))
        return called.y, called.model_state, called.params

    closed = jax.make_jaxpr(after)(*specs)
    paths = sorted(specs[0])
    written = closed.jaxpr.outvars[len(closed.jaxpr.outvars) - len(paths) :]
    for path, old, new in zip(paths, closed.jaxpr.invars, written, strict=False):
        if passed_on(closed.jaxpr, new) is not old:
            raise RefusedError(
                f"its call writes its parameter {path!r}, which would be lost, for only the optimizer moves the "
                "parameters of a Block: compute with a local value instead, or write to an nnx.Variable that is no "
                "nnx.Param. (nnx.SpectralNorm and nnx.WeightNorm write parameters; those of linen do not.)"
            )
    return _Looked(text_of(closed), found[0])


def _check_same_params(before: PyTree, after: PyTree) -> None:
    for path in sorted(set(before) ^ set(after)):
        if path in before:
            raise RefusedError(f"its call takes its parameter {path!r} away, {_KEEPS}: leave it where it is.")
        raise RefusedError(
            f"its call makes the parameter {path!r}, which would be made again by each call and never learn: make it "
            "in __init__."
        )


def _changed(called: Called) -> str | None:
    """The first attribute that a call has changed."""
    before, after = called.before, called.after
    return next((path for path in sorted({**before, **after}) if not _same(before, after, path)), None)


def _same(before: Mapping[str, Any], after: Mapping[str, Any], path: str) -> bool:
    if path not in before or path not in after:
        return False
    old, new = before[path], after[path]
    try:
        return old is new or (type(old) is type(new) and bool(old == new))
    except Exception:  # a type that compares with nothing
        return False


def _is_note(call: _CallOf, graph: nnx.GraphDef, specs: tuple, looked: Mapping[bool, _Looked]) -> bool:
    """Whether calls do the same, and leave attributes alone, after one that has changed them."""
    try:
        again = {train: _look(call(graph, train), specs) for train in looked}
    except Exception:  # attributes that hold arrays of the trace, or a module of other variables
        return False
    return all(one.text == looked[train].text and _changed(one.called) is None for train, one in again.items())


def _told(attributes: Mapping[str, Any], path: str) -> str:
    if path not in attributes:
        return "nothing"
    value = attributes[path]
    text = repr(value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"
