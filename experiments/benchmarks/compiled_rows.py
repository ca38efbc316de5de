"""The table of compiled programs as text, and which of its rows a later run keeps."""

from collections.abc import Mapping
from typing import Any

HEADER = (
    "method, network", "compiled in s", "a device holds MiB", "code MiB", "sends beside work", "waits for",
    "largest copy MiB", "host transfers",
)  # fmt: skip


def cells(name: str, row: Mapping[str, Any]) -> list[str]:
    """A row of the table in Markdown; one that was refused says why.

    Examples:
      >>> cells("bp_fc, mlp", {"refused": "ValueError: no convolutions"})[:3]
      ['bp_fc, mlp', 'ValueError: no convolutions', '']
    """
    if "refused" in row:
        return [name, row["refused"], *[""] * (len(HEADER) - 2)]
    program, mib = row["program"], lambda size: f"{size / 2**20:,.1f}"
    waits = sum(count for op, count in program["in_loop"].items() if op in ("collective-permute", "all-gather"))
    sends = program["in_loop"].get("collective-permute-start", 0)
    return [
        name, f"{row['seconds']:.0f}", mib(row["held"]), mib(row["code"]), str(sends), str(waits),
        mib(program["copied"]), str(program["host"]),
    ]  # fmt: skip


def markdown(result: Mapping[str, Any]) -> str:
    """The whole table, with what it is of."""
    lines = [HEADER, ["---"] * len(HEADER), *(cells(name, row) for name, row in result["rows"].items())]
    about = (
        f"Programs for {result['target']}, {result['stages']} stages, {result['data_parallel']} data shards of "
        f"{result['batch_size']} examples, calls of 8 batches: `{result['command']}`, jax {result['jax']}. Sends and "
        "waits are collectives in the loop over ticks; the largest copy is of one array in that loop, "
        "within a device's main memory. Nothing was run."
    )
    return about + "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def kept(before: Mapping[str, Any] | None, setting: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of a file that is there, if it is of the same setting."""
    same = before is not None and {key: before.get(key) for key in setting} == setting
    return dict(before["rows"]) if same and before is not None else {}
