r"""Trains several methods on one network and one data set, and sets them side by side.

    localgrad compare --methods=al:profile=iclr_head,scl,predsim,bp --net=mlp --dataset=digits --epochs=20 --trials=3 \
      --sweep=learning_rate=1e-4,1e-3,1e-2 --workdir=runs/compared

Each method has a folder below the workdir, or one for each value of a sweep; the best on validation stands for it, so
every method has the same budget.  The same command again goes on where it stopped.  All flags of `localgrad train`
hold for every method; `name:field=value` gives a method one of its own.  Writes `compare.md`, `compare.json` and
`compare.html` in the workdir.
"""

import gc
from collections.abc import Sequence
from typing import Any

from absl import flags

from localgrad.cli import config_flags, shell
from localgrad.report.page import render
from localgrad.report.tables import Table
from localgrad.results import gather
from localgrad.results.compare import Trained, numbers_of, tables_of, train_row
from localgrad.results.grid import Row, rows_of
from localgrad.results.page_file import checked_out, made_by
from localgrad.training import Config, Interrupted, InUseError, prepare_all
from localgrad.training.memory import check_memory
from localgrad.training.workdir import check_folder, folder_of, make_folder, write_bytes, write_json

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Which methods, what to try, and the flags of a run."""
    flags.DEFINE_list("methods", None, "methods, each a name or name:field=value:field=value", required=True)
    flags.DEFINE_multi_string("sweep", [], "field=value,value,...: what every method tries, chosen on validation")
    flags.DEFINE_bool("alignment", True, "cosine of each block's update with the true gradient")
    config_flags.define()
    for name in ("methods", "sweep", "alignment"):
        shell.headed[name] = "Comparison"


def main(argv: list[str]) -> int:
    """Trains what is not done, writes the comparison, and returns the exit status."""
    if len(argv) > 1:
        return shell.refuse(f"unexpected arguments {argv[1:]}: every option is a --flag=value.")
    try:
        rows = checked()
        trained = [train_row(row, shell.say, check_jobs) for row in rows]
        write(trained, str(FLAGS.workdir))
    except Interrupted as stop:
        shell.say(f"{stop}; saved. To go on, run the same command again:\n  {shell.command_line()}")
        return 128 + stop.signum
    except InUseError as error:
        return shell.refuse(str(error))
    except (ValueError, OSError, ImportError) as error:
        return shell.refuse(str(error))
    return 0


def checked() -> list[Row]:
    """The rows, every one of which could be trained as far as can be told before.

    Raises:
      ValueError, OSError, ImportError: naming what cannot be.
    """
    if FLAGS["method"].present:
        raise ValueError("--methods says which; leave out --method.")
    if FLAGS.grow_from is not None or FLAGS.begin_from is not None:
        raise ValueError("a comparison begins afresh; leave out --grow_from and --begin_from.")
    base = Config(**config_flags.values())
    rows = rows_of(base, FLAGS.methods, FLAGS.sweep)
    folder = folder_of(base.workdir)
    check_folder(folder)
    shell.own_devices(base.stages * base.data_parallel, x64=base.dtype == "float64")
    check_rows(rows)
    make_folder(folder)
    checked_out(str(folder / "compare.html"))
    return rows


def check_rows(rows: Sequence[Row]) -> None:
    """Refuses a comparison of which any run, of any value of a sweep, cannot be: later ones would come to light late.

    Raises:
      ValueError, OSError: as `prepare_all`, naming the run.
    """
    for point in (point for row in rows for point in row.points):
        try:
            check_jobs(prepare_all(point.config))
        except ValueError as error:
            raise ValueError(f"{point.config.workdir}: {error}") from error


def check_jobs(jobs: Sequence[Any]) -> None:
    """Refuses runs that this machine has no memory for."""
    gc.collect()  # the run before
    for job in jobs:
        check_memory(job.model, job.config)


def write(trained: Sequence[Trained], workdir: str) -> None:
    """The table as Markdown, the numbers as JSON, and the page."""
    runs = [
        None
        if row.chosen is None
        else gather(row.chosen.config.workdir, row.name, alignment=FLAGS.alignment, log=shell.say)
        for row in trained
    ]
    tables: list[Table] = tables_of(trained, runs)
    command, folder = shell.command_line(), folder_of(workdir)
    text = "\n\n".join([table.markdown() for table in tables])
    write_bytes(folder / "compare.md", f"{text}\n\n```\n{command}\n```\n".encode())
    rows = [numbers_of(row, run) for row, run in zip(trained, runs, strict=True)]
    write_json(folder / "compare.json", {"command": command, "made_by": made_by(), "rows": rows})
    there = [run for run in runs if run is not None]
    if there:
        page = render(
            there,
            defaults=Config().to_json(),
            title=f"Methods on {there[0].config['net']}, {there[0].config['dataset']}",
            tables=tables,
            command=command,
            made_by=made_by(),
        )
        write_bytes(folder / "compare.html", page.encode())
    shell.say(f"{text}\n\nwrote {folder / 'compare.md'}, .json and .html")
