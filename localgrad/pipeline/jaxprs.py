"""What a jaxpr says without being run: which of its values depend on which inputs, and what it calls on the host."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend
import numpy as np

Visit = Callable[[Any, list[bool], str], None]  # of an equation, which of its inputs depend, and its place


def reached(
    jaxpr: Any, live: Sequence[bool], visit: Visit = lambda equation, live, place: None, place: str = ""
) -> list[bool]:
    """For each output of a jaxpr, whether it may depend on any of the inputs that are live.

    Jitted functions, scans and branches are looked into; of any other program inside, all outputs depend on all inputs.

    Args:
      jaxpr: a jaxpr, or a closed one.
      live: of each input, whether it is live.
      visit: is called with every equation, which of its inputs depend on a live one, and its place in the source.
      place: where in the source the program is called.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    known = {x for x, is_live in zip(jaxpr.invars, live, strict=True) if is_live}
    is_live = lambda x: not isinstance(x, jax.extend.core.Literal) and x in known
    for equation in jaxpr.eqns:
        given = [is_live(x) for x in equation.invars]
        here = place_of(equation) or place
        visit(equation, given, here)
        known.update(x for x, out in zip(equation.outvars, _through(equation, given, visit, here), strict=True) if out)
    return [is_live(x) for x in jaxpr.outvars]


def inner(equation: Any) -> list[Any]:
    """The jaxprs within an equation."""
    return [getattr(one, "jaxpr", one) for one in _programs(equation)]


def constants(jaxpr: Any) -> list[Any]:
    """The constants of a program and of those within it, such as of `jax.jit`, and arrays that its text abridges."""
    found = list(getattr(jaxpr, "consts", []))
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        found += [x.val for x in equation.invars if isinstance(x, jax.extend.core.Literal) and np.ndim(x.val)]
        found += [one for program in _programs(equation) for one in constants(program)]
    return found


def _programs(equation: Any) -> list[Any]:
    """The jaxprs within an equation, closed ones with their constants."""
    found = []
    for value in equation.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if hasattr(getattr(one, "jaxpr", one), "eqns"):
                found.append(one)
    return found


def place_of(equation: Any) -> str:
    """Where in the user's source an equation was made, such as `method.py:12:8 (forward)`; empty if that is unknown."""
    from jax._src import source_info_util  # jax has no public name for it

    summary = source_info_util.summarize(equation.source_info)
    return "" if summary == "unknown" else summary.rpartition("/")[2]


def calls_host(jaxpr: Any) -> bool:
    """Whether a program calls functions of Python while it runs: a jaxpr, and what it is lowered to, name none."""
    return any(
        "callback" in equation.primitive.name
        or equation.primitive.name == "debug_print"
        or any(map(calls_host, inner(equation)))
        for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns
    )


def text_of(traced: Any, lowered: Any, index: int) -> str:
    """The text of block `index`'s program: equal texts are the same function.

    A program that calls Python is like no other block's, since its text does not say which function it calls.

    Args:
      traced, lowered: what `jax.jit(function).trace(...)` gives, and its `lower()`.
      index: of the block.
    """
    return f"block {index}, which calls the host\n" * calls_host(traced.jaxpr) + lowered.as_text()


def _through(equation: Any, given: list[bool], visit: Visit, place: str) -> list[bool]:
    """Which outputs of an equation may depend on its live inputs."""
    programs, outputs = inner(equation), len(equation.outvars)
    fits = lambda program, inputs: len(program.invars) == inputs and len(program.outvars) == outputs
    if equation.primitive.name == "scan" and len(programs) == 1:
        return _through_scan(equation, programs[0], given, visit, place)
    if equation.primitive.name == "cond" and all(fits(program, len(given) - 1) for program in programs):
        branches = [reached(program, given[1:], visit, place) for program in programs]
        return [given[0] or any(each) for each in zip(*branches, strict=True)]
    if len(programs) == 1 and fits(programs[0], len(given)):
        return reached(programs[0], given, visit, place)
    for program in programs:
        reached(program, [any(given)] * len(program.invars), visit, place)
    return [any(given)] * outputs


def _through_scan(equation: Any, program: Any, given: list[bool], visit: Visit, place: str) -> list[bool]:
    """As `_through`, for a scan: a carry also depends on what the carries depended on a round before."""
    consts, carry = equation.params["num_consts"], equation.params["num_carry"]
    while True:
        found = reached(program, given)
        wider = [*given[:consts], *map(any, zip(given[consts : consts + carry], found[:carry], strict=True))]
        wider += given[consts + carry :]
        if wider == given:
            return reached(program, given, visit, place)
        given = wider
