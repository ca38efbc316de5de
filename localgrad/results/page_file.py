"""One page about one run or several, in one file."""

import importlib.util
import platform
from collections.abc import Callable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import jax

from localgrad.base import Model
from localgrad.report.page import render
from localgrad.results.gather import gather, names_of
from localgrad.results.opened import Given
from localgrad.training.config import Config
from localgrad.training.own_program import version
from localgrad.training.workdir import check_parent, write_bytes


def write_report(
    workdirs: str | PathLike | Sequence[str | PathLike],
    out: str | PathLike = "report.html",
    *,
    model: Model | Sequence[Model | None] | None = None,
    test: Any = None,
    validation: Any = None,
    fields: tuple[str, str] | None = None,
    evaluate: bool = True,
    alignment: bool = False,
    command: str = "",
    log: Callable[[str], None] = print,
) -> None:
    """Writes one page about runs, in one file that asks nobody for anything, as `localgrad report` does.

    Curves, accuracy by exit, the curve of leaving early, the ledger, the timeline of the pipeline, confusion and worst
    examples, what differs between the configurations, versions, and what trains it all again.

    Args:
      workdirs: the folder of a run, or of several next to each other.
      out: the file to write.
      model: of runs of `localgrad.fit`, the model that was trained, made again: what it predicts stands on the page
        then.  Of several runs one each, in their order, and None for one that names its model.
      test: with `model`, the examples to predict on, as `localgrad.fit` takes them.
      validation: with `model`, the same, for the temperatures of leaving early; None does without that curve.
      fields: names of the inputs and the targets, where they come as dicts or columns.
      evaluate: predict at all; False shows what the runs wrote.
      alignment: compare each block's update with the true gradient as well.
      command: what the page says that it was made by.
      log: takes a line for the user.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: it has no records yet, or is of another version; no file can be at `out`; or a model without examples,
        or the other way round.
      ImportError: jinja2 is not installed.
    """
    folders = [fspath(workdirs)] if isinstance(workdirs, str | PathLike) else [fspath(each) for each in workdirs]
    models = [model] if isinstance(model, Model) or model is None else list(model)
    models = models * len(folders) if models == [None] else models
    if len(models) != len(folders):
        raise ValueError(f"{len(folders)} runs, and {len(models)} models: give one for each, or None.")
    if (test is None) != all(each is None for each in models):
        raise ValueError("a network is looked at on examples: give model= and test=, or neither.")
    out = checked_out(out)
    given = [None if each is None else Given(each, test, validation, fields) for each in models]
    runs = [
        gather(folder, name, given=own, evaluate=evaluate, alignment=alignment, log=log)
        for folder, name, own in zip(folders, names_of(folders), given, strict=True)
    ]
    for run in runs:
        for note in run.notes:
            log(f"{run.workdir}: {note}")
    page = render(runs, defaults=Config().to_json(), command=command, made_by=made_by())
    write_bytes(out, page.encode())
    log(f"wrote {out}")


def checked_out(given: str | PathLike) -> Path:
    """Where to write a page, looked at before anything is worked out.

    Raises:
      ValueError: no file can be there.
      ImportError: jinja2 is not installed.
    """
    out = Path(given).expanduser()
    if out.is_dir():
        raise ValueError(f"{given} is a folder, and a page is one file: give one, such as {out / 'report.html'}.")
    check_parent(given)
    if importlib.util.find_spec("jinja2") is None:
        raise ImportError("the page is made by jinja2, which is not installed: pip install jinja2.")
    return out


def made_by() -> dict[str, str]:
    """The versions of what makes a page."""
    return {"localgrad": version("localgrad"), "jax": jax.__version__, "Python": platform.python_version()}
