"""What a jaxpr says without being run: what is drawn from which key, and whether two are one program."""

import re
from typing import Any

import jax
import numpy as np

from localgrad.keys import is_key
from localgrad.pipeline.jaxprs import constants, inner

DRAWS = ("random_bits", "threefry2x32", "rng_bit_generator", "rng_uniform")


def draws(jaxpr: Any) -> list[Any]:
    """Every equation that draws random numbers, those of inner programs too."""
    found = []
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        found += [equation] if equation.primitive.name in DRAWS else []
        found += [one for program in inner(equation) for one in draws(program)]
    return found


def same_program(first: Any, second: Any) -> str:
    """Empty if two closed jaxprs are one program with the same constants; else the first line that differs."""
    texts = [
        re.sub(r"0x[0-9a-f]+", "", jaxpr.jaxpr.pretty_print(source_info=False)).splitlines()
        for jaxpr in (first, second)
    ]
    for line, (ours, theirs) in enumerate(zip(*texts, strict=False)):
        if ours != theirs:
            whole = first.jaxpr.pretty_print(source_info=True).splitlines()
            place = whole[line].partition("#")[2].strip() if line < len(whole) else ""
            return f"`{ours.strip()}` became `{theirs.strip()}`" + (f" ({place})" if place else "")
    if len(texts[0]) != len(texts[1]):
        return f"{len(texts[0])} lines became {len(texts[1])}"
    for ours, theirs in zip(constants(first), constants(second), strict=True):
        if not _equal(ours, theirs):
            return f"a constant of shape {list(np.shape(ours))} became another"
    return ""


def _equal(ours: Any, theirs: Any) -> bool:
    ours, theirs = (np.asarray(jax.random.key_data(x) if is_key(x) else x) for x in (ours, theirs))
    return bool(np.array_equal(ours, theirs, equal_nan=ours.dtype.kind in "fc"))
