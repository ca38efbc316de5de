"""What the processes of a run must have in common, and how they say what differs."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_SWITCHES = (
    "jax_enable_x64", "jax_default_prng_impl", "jax_threefry_partitionable", "jax_default_matmul_precision",
    "jax_disable_most_optimizations",
)  # fmt: skip
_SHOWN = 3  # fields that a line names


def software() -> dict[str, Any]:
    """Versions, the digest of this library's source, the options of the compiler and the switches of jax."""
    options = [word for word in os.environ.get("XLA_FLAGS", "").split() if not word.startswith("--xla_dump")]
    return {
        "the version of python": platform.python_version(),
        **{f"the version of {name}": _version(name) for name in PACKAGES},
        "the source of localgrad": _source_sha256(),
        "XLA_FLAGS": " ".join(sorted(options)),
        **{name: jax.config.values[name] for name in _SWITCHES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _source_sha256() -> str:
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def difference(facts: Mapping[int, Mapping[str, Any]]) -> str | None:
    """Says which fields differ between processes, and who has which value; None where all agree.

    Args:
      facts: of each process, values by field, as JSON has them.

    Examples:
      >>> difference({0: {"--seed": 0, "--dtype": "float32"}, 1: {"--seed": 1, "--dtype": "float32"}, 2: {"--seed": 0}})
      '--seed is 0 in processes 0 and 2, 1 in process 1; --dtype is "float32" in processes 0 and 1, none in process 2'
    """
    found = []
    for name in dict.fromkeys(name for each in facts.values() for name in each):
        values: dict[str, list[int]] = {}
        for process, each in sorted(facts.items()):
            values.setdefault(json.dumps(each[name]) if name in each else "none", []).append(process)
        if len(values) > 1:
            found.append(f"{name} is " + ", ".join(f"{value} in {_name(who)}" for value, who in values.items()))
    more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return "; ".join(found[:_SHOWN] + more) or None


def _name(who: Sequence[int]) -> str:
    *most, last = map(str, who)
    return f"processes {', '.join(most)} and {last}" if most else f"process {last}"
