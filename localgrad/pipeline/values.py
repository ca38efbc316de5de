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

    Operations are compared by their kind, parameters and inputs.  What has effects, or parameters that cannot be
    compared, equals nothing else.
    """
    return _walk(program.jaxpr, [Argument(i) for i in range(len(program.jaxpr.invars))], {})


def _walk(jaxpr: core.Jaxpr, inputs: Sequence[Hashable], numbers: dict[Hashable, int]) -> list[Hashable]:
    known: dict[Any, Hashable] = dict(zip(jaxpr.invars, inputs, strict=True))
    known.update((var, ("constant", id(var))) for var in jaxpr.constvars)

    def value(atom: Any) -> Hashable:
        if not isinstance(atom, core.Literal):
            return known[atom]
        return ("constant", id(atom.val)) if np.ndim(atom.val) else Fill(atom.val, ())

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
    key = equation.primitive, tuple(sorted(equation.params.items())), tuple(map(_told, found))
    try:
        hash(key)
    except TypeError:
        return None
    return None if equation.effects else key


def _told(value: Hashable) -> Hashable:
    """A value to be compared by: of a `Fill`, all digits of its number."""
    if not isinstance(value, Fill):
        return value
    number = np.asarray(value.value)
    return str(number.dtype), number.tobytes(), value.shape
