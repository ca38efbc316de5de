"""One page about one run or several, in one file that asks nobody for anything.

    localgrad report runs/digits
    localgrad report runs/al runs/scl runs/bp --out=methods.html

Curves, accuracy by exit, the curve of leaving early, the ledger, the timeline of the pipeline, confusion and worst
examples, what differs between the configurations, versions, and the commands that train it all again.
"""

import importlib.util
import platform
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from os import PathLike
from pathlib import Path

import jax
from absl import flags

from localgrad.cli import config_flags, shell
from localgrad.report.page import render
from localgrad.results import gather, names_of
from localgrad.training import Config
from localgrad.training.workdir import write_bytes

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Where to write, and what to look at."""
    flags.DEFINE_string("out", "report.html", "the file to write")
    flags.DEFINE_bool("evaluate", True, "predict on the test split: exits, leaving early, confusion, worst examples")
    flags.DEFINE_bool("alignment", False, "cosine of each block's update with the true gradient")


def main(argv: list[str]) -> int:
    """Writes the page, and returns the exit status."""
    folders = argv[1:]
    if not folders:
        return shell.refuse("no run: name one workdir or several, localgrad report runs/digits.")
    try:
        out = checked_out(FLAGS.out)
        shell.quiet()
        write_page(folders, out, evaluate=FLAGS.evaluate, alignment=FLAGS.alignment)
    except (ValueError, OSError, ImportError) as error:
        return shell.refuse(str(error))
    return 0


def write_page(folders: Sequence[str], out: PathLike, *, evaluate: bool = True, alignment: bool = False) -> None:
    """Writes the page of some runs, and says where it is and what is not on it.

    Raises:
      ValueError, OSError: as `gather`, or the page cannot be written.
    """
    gathered = partial(gather, command=config_flags.command_of, evaluate=evaluate, alignment=alignment, log=shell.say)
    runs = [gathered(folder, name) for folder, name in zip(folders, names_of(folders), strict=True)]
    for run in runs:
        for note in run.notes:
            shell.say(f"{run.workdir}: {note}")
    page = render(runs, defaults=Config().to_json(), command=shell.command_line(), made_by=made_by())
    write_bytes(out, page.encode())
    shell.say(f"wrote {out}")


def checked_out(name: str) -> Path:
    """Where to write a page, looked at before anything is worked out.

    Raises:
      ValueError: no file can be there.
      ImportError: jinja2 is not installed.
    """
    out = Path(name).expanduser()
    if out.is_dir():
        raise ValueError(f"--out={name} is a folder; give a file, such as {out / 'report.html'}.")
    if not out.parent.is_dir():
        raise ValueError(f"--out={name}: there is no folder {out.parent}; make it, or give another file.")
    if importlib.util.find_spec("jinja2") is None:
        raise ImportError("the page is made by jinja2, which is not installed: pip install jinja2.")
    return out


def made_by() -> dict[str, str]:
    """The versions of what makes a page."""
    try:
        own = metadata.version("localgrad")
    except metadata.PackageNotFoundError:
        own = "of a checkout"
    return {"localgrad": own, "jax": jax.__version__, "Python": platform.python_version()}
