"""What all studies share: rows of configurations, run one after another, and a table of what they measured."""

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags

from experiments import setup
from localgrad.training import Config, prepare_all, run

FLAGS = flags.FLAGS


def define_flags(name: str) -> None:
    """The flags of every study."""
    flags.DEFINE_bool("smoke", False, "the smallest size, on digits, for tests")
    flags.DEFINE_integer("trials", 3, "seeds of each row")
    flags.DEFINE_string("workdir", f"runs/{name}", "folder of the rows' runs; the same command again goes on there")
    flags.DEFINE_string("out", "experiments/results", "folder of the JSON and the markdown table")
    setup.define_process_flags()


def measure(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Trains every row, a mapping of `Config` fields, and returns the summary of each; finished rows are not run again.

    Raises:
      ValueError, FileNotFoundError: as `prepare`, naming the row, before that row is compiled.
    """
    setup.devices(1)
    found = {}
    for name, fields in rows.items():
        folder = str(Path(FLAGS.workdir) / name.replace(" ", "_").replace("/", "-"))
        config = Config(**{"trials": FLAGS.trials, "trials_by": "loop", **fields, "workdir": folder})
        setup.say(f"--- {name}")
        try:
            found[name] = run(config, prepare_all(config), setup.say)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"row {name!r}: {error}") from error
    return found


def spread(figure: Any, digits: int = 2) -> str:
    """A figure as text, with its deviation over trials if it has one.

    Examples:
      >>> spread({"mean": 90.123, "std": 0.456, "values": []}), spread(90.0)
      ('90.12 ± 0.46', '90.00')
    """
    if isinstance(figure, dict):
        return f"{figure['mean']:.{digits}f} ± {figure['std']:.{digits}f}"
    return f"{figure:.{digits}f}"


def write(
    name: str, header: Sequence[str], cells: Sequence[Sequence[Any]], result: Mapping[str, Any], note: str
) -> None:
    """Writes `NAME.json`, with the command, the machine and the versions, and `NAME.md`, a table; prints the table."""
    folder = Path(FLAGS.out)
    folder.mkdir(parents=True, exist_ok=True)
    module = sys.modules["__main__"].__spec__
    program = module.name if module else Path(sys.argv[0]).stem
    command = shlex.join(["python", "-m", program, *sys.argv[1:]])
    about: dict[str, Any] = {
        "command": command,
        "machine": {"cores": len(os.sched_getaffinity(0)), "backend": jax.default_backend()},
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
    }
    (folder / f"{name}.json").write_text(json.dumps({**about, **result}, indent=2) + "\n")
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (header, ["---"] * len(header), *cells)]
    text = "\n".join([note, "", *lines, "", f"Written by `{command}` on {about['machine']['cores']} CPU cores."])
    (folder / f"{name}.md").write_text(text + "\n")
    setup.say(f"\n{text}\nwrote {folder / name}.json and .md")
