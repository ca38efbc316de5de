"""The command `localgrad`: the first word says what to do, and the rest are that program's flags.

localgrad train --method=al --net=mlp --dataset=digits --workdir=runs/digits
localgrad evaluate --workdir=runs/digits --exits --anytime
localgrad compare --methods=al,scl,bp --net=mlp --dataset=digits --trials=3 --workdir=runs/compared
localgrad report runs/digits runs/others --out=report.html
localgrad predict --workdir=runs/fashion boot.png
localgrad data prepare wordnet_gloss
"""

import importlib
import os
import sys
from collections.abc import Sequence

from localgrad.cli import shell

COMMANDS = {
    "train": "trains a network, or goes on with a run",
    "evaluate": "what the exits of trained networks give and cost",
    "compare": "trains several methods and sets them side by side",
    "report": "one page about one run or several",
    "predict": "what a trained network says of pictures, tables and texts",
    "data": "downloads data sets",
}


def main(words: Sequence[str] | None = None) -> int:
    """Runs a command; returns or exits with its status.

    Args:
      words: the command and its flags; those that Python was started with by default.
    """
    words = sys.argv[1:] if words is None else list(words)
    usage = "\n".join(
        ["usage: localgrad COMMAND --flag=value ...", "", *(f"  {name:<10}{says}" for name, says in COMMANDS.items())]
    )
    if words and words[0] in ("-h", "--help", "help"):
        print(f"{usage}\n\nlocalgrad COMMAND --help lists the flags of a command.")
        return 0
    if not words or words[0] not in COMMANDS:
        said = f"unknown command {words[0]!r}; there are {', '.join(COMMANDS)}" if words else "no command"
        return shell.refuse(f"{said}.\n{usage}")
    if os.getcwd() not in sys.path:  # as `python -m` has it, for modules of this folder that --plugin names
        sys.path.insert(0, os.getcwd())
    command = importlib.import_module(f"localgrad.cli.{words[0]}")
    if words[0] == "data":
        return command.main(words[1:])
    return shell.start(command.define_flags, command.main, [f"localgrad {words[0]}", *words[1:]])
