"""What a cost analysis leaves out: it counts the body of a loop once, however often the loop runs."""

from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core


def flops_of_repeats(traced: Any) -> float:
    """FLOPs of the second and later turns of all scans in a traced program, to be added to its cost analysis.

    Args:
      traced: what `jax.jit(function).trace(...)` gives.

    Of the branches of a conditional the dearest counts; loops of unknown length count once, as before.
    """
    known: dict[str, float] = {}

    def once(body: core.ClosedJaxpr) -> float:
        text = str(body.jaxpr)
        if text not in known:
            lowered = jax.jit(core.jaxpr_as_fun(body)).lower(*body.in_avals)
            known[text] = float((lowered.cost_analysis() or {}).get("flops", 0.0))
        return known[text]

    def repeats(jaxpr: core.Jaxpr) -> float:
        total = 0.0
        for equation in jaxpr.eqns:
            inner = [repeats(part) for part in _parts(equation.params)]
            if equation.primitive.name == "scan":
                turns = equation.params["length"]
                total += (turns - 1) * once(equation.params["jaxpr"]) + turns * sum(inner)
            elif equation.primitive.name == "cond":
                total += max(inner)
            else:
                total += sum(inner)
        return total

    return repeats(traced.jaxpr.jaxpr)


def _parts(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """The programs within an equation."""
    for value in params.values():
        for each in value if isinstance(value, list | tuple) else (value,):
            if isinstance(each, core.ClosedJaxpr):
                yield each.jaxpr
            elif isinstance(each, core.Jaxpr):
                yield each
