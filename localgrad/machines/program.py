"""What a compiled program does, read from its text: what it sends and copies, in the loop over ticks and outside."""

import re
from collections import Counter
from typing import NamedTuple

import numpy as np

_BEGINS = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{\s*$")
_CALLS = re.compile(r"(?:body|condition|to_apply|calls|\w+_computations)=\{?([^}\s]+(?:, *%[\w.\-]+)*)")
_DOES = re.compile(r"= *(?:\([^=]*?\)|\S+) ([a-z][a-z\-]*)\(")
_SHAPE = re.compile(r"\b([a-z]+\d+[a-z0-9]*|pred)\[([\d,]*)\]")
COLLECTIVES = ("collective-permute", "all-reduce", "all-gather", "reduce-scatter", "all-to-all")


class Program(NamedTuple):
    """A device's program.

    Attributes:
      in_loop: collectives and copies within the loop over ticks, by name, how many; `NAME-start` is one that work
        goes on beside, `NAME` one that is waited for.
      outside: the same, once a call.
      copied: bytes of the largest copy in the loop, within a device's main memory, that is no part of a collective;
        what goes into a TPU's fast memory, `S(1)` in the text, or comes from there is a read or a write.
      host: transfers to and from the host.
    """

    in_loop: dict[str, int]
    outside: dict[str, int]
    copied: int
    host: int


def read(text: str) -> Program:
    """Reads the text of a compiled program, as `compiled.as_text()` gives it."""
    bodies = computations(text)
    within = looped(bodies)
    loop, outside, copied, host = Counter[str](), Counter[str](), 0, 0
    for name, lines in bodies.items():
        for line in lines:
            found = _DOES.search(line)
            if found is None:
                continue
            does = found[1].removesuffix("-done") if not found[1].endswith("-done") else ""
            host += "is_host_transfer=true" in line or does in ("infeed", "outfeed")
            if does.removesuffix("-start") in (*COLLECTIVES, "copy"):
                (loop if name in within else outside)[does] += 1
            shapes = line.partition("=")[2].partition(f" {found[1]}(")[0]
            if name in within and does in ("copy", "copy-start") and "S(1)" not in shapes:
                copied = max(copied, size_of(shapes))
    return Program(dict(sorted(loop.items())), dict(sorted(outside.items())), copied, host)


def computations(text: str) -> dict[str, list[str]]:
    """The lines of each computation of a program, by name."""
    found: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in text.splitlines():
        begins = _BEGINS.match(line)
        if begins:
            lines = found.setdefault(begins[1], [])
        elif line.startswith("}"):
            lines = None
        elif lines is not None:
            lines.append(line.strip())
    return found


def looped(bodies: dict[str, list[str]]) -> set[str]:
    """The computations that run on every turn of a loop: bodies of loops, and what they call."""
    calls = {
        name: {one.strip().lstrip("%") for line in lines for group in _CALLS.findall(line) for one in group.split(",")}
        for name, lines in bodies.items()
    }
    todo = [
        called.strip().lstrip("%")
        for lines in bodies.values()
        for line in lines
        if re.search(r"\bwhile\(", line)
        for called in re.findall(r"(?:body|condition)=(%?[\w.\-]+)", line)
    ]
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in found and name in calls:
            found.add(name)
            todo += calls[name]
    return found


def size_of(shapes: str) -> int:
    """Bytes of the first array that is named in a piece of a program's text.

    Examples:
      >>> size_of("f32[2,3]{1,0} copy(%x)")
      24
    """
    found = _SHAPE.search(shapes)
    if found is None:
        return 0
    bits = 8 if found[1] == "pred" else int(re.findall(r"\d+", found[1])[0])
    return int(np.prod([int(n) for n in found[2].split(",") if n], dtype=np.int64)) * bits // 8
