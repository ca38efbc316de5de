"""Which results of a program are the same value, or a constant: what need not be kept twice, or at all."""

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from jax.extend import core


@dataclasses.dataclass(frozen=True)
class Fill:
    """An array that is one number everywhere, whatever the inputs are."""

    value: Any
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Argument:
    """An input of the program, as it is."""

    index: int


def values_of(program: core.ClosedJaxpr) -> list[Hashable]:
    """A name for the value of each result: equal names are equal arrays; a `Fill` or an `Argument` says what it is.

    Operations are compared by name, parameters and inputs.  What has effects, or holds a program that is not just a
    call, equals nothing else.
    """
    return _walk(program.jaxpr, [Argument(i) for i in range(len(program.jaxpr.invars))], {})


def _walk(jaxpr: core.Jaxpr, inputs: Sequence[Hashable], numbers: dict[Hashable, int]) -> list[Hashable]:
    known: dict[Any, Hashable] = dict(zip(jaxpr.invars, inputs, strict=True))
    known.update((var, ("constant", id(var))) for var in jaxpr.constvars)

    def value(atom: Any) -> Hashable:
        return Fill(atom.val, ()) if isinstance(atom, core.Literal) else known[atom]

    for equation in jaxpr.eqns:
        found = [value(atom) for atom in equation.invars]
        name, inner = equation.primitive.name, equation.params.get("jaxpr")
        if name == "jit" and isinstance(inner, core.ClosedJaxpr) and not inner.consts:
            results = _walk(inner.jaxpr, found, numbers)
        elif name == "stop_gradient":
            results = found
        elif name == "broadcast_in_dim" and isinstance(found[0], Fill):
            results = [Fill(found[0].value, equation.params["shape"])]
        else:
            number = numbers.setdefault(_key(equation, found) or ("alone", len(numbers)), len(numbers))
            results = [(number, i) for i in range(len(equation.outvars))]
        known.update(zip(equation.outvars, results, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _key(equation: core.JaxprEqn, found: Sequence[Hashable]) -> Hashable:
    """Equal for operations that give equal results; None for what equals nothing else."""
    params = sorted(equation.params.items())
    if equation.effects or any(_opaque(x) for _, x in params):
        return None
    fills = [(str(x.value), str(getattr(x.value, "dtype", "")), x.shape) if isinstance(x, Fill) else x for x in found]
    return equation.primitive.name, str(params), tuple(fills)


def _opaque(param: Any) -> bool:
    """Whether a parameter's text does not tell all of it: programs, and arrays."""
    if isinstance(param, list | tuple):
        return any(map(_opaque, param))
    return isinstance(param, core.Jaxpr | core.ClosedJaxpr | np.ndarray)
