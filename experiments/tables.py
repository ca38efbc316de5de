"""What all studies share: rows of configurations, run one after another, and a table of what they measured."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import stolen_time
from experiments.rows import about_kept, chosen_rows, kept_rows, where
from localgrad.cli import shell
from localgrad.training import Config, DivergedError, Interrupted, prepare_all, run

FLAGS = flags.FLAGS


def define_flags(name: str) -> None:
    """The flags of every study."""
    flags.DEFINE_bool("smoke", False, "the smallest size, on digits, for tests")
    flags.DEFINE_integer("trials", 3, "seeds of each row")
    flags.DEFINE_string("workdir", f"runs/{name}", "folder of the rows' runs; the same command again goes on there")
    flags.DEFINE_string("out", "experiments/results", "folder of the JSON and the markdown table")
    flags.DEFINE_list("rows", None, "train only these rows, by name or words of it; the file keeps the others")
    shell.define_process_flags()


def run_rows(
    name: str,
    title: str,
    rows: Mapping[str, Mapping[str, Any]],
    smoke: Mapping[str, Any],
    columns: Mapping[str, Callable[[dict[str, Any]], Any]],
    after: Callable[[str, list[Path]], dict[str, Any]] | None = None,
    published: Mapping[str, Any] | None = None,
    conclude: Callable[[dict[str, dict[str, Any]]], tuple[dict[str, Any], str]] | None = None,
    subfolder: str = "",
) -> int:
    """Trains every row and writes the table of the study; the exit status.

    Args:
      name: of the result files.
      title: what the table shows.
      rows: a mapping of `Config` fields each; finished rows are not run again, and those that `--rows` leaves out stay
        in the result file as they are.
      smoke: fields of the smallest size, in place of the rows' under `--smoke`.
      columns: header -> `summary -> cell`.
      after: `(row, workdirs of its trials) -> more of its summary`, once it is trained; trials by `vmap` share one.
      published: the papers' figures by row, a column of their own; leave it out where the run is not the paper's.
      conclude: `rows' summaries -> (more of the result, a sentence under the table)`.
      subfolder: of `--workdir`, for a study of several tables.
    """
    try:
        shell.devices(1)
        if FLAGS.trials < 1:
            raise ValueError(f"--trials must be at least 1; got {FLAGS.trials}.")
        place(FLAGS.out, folder=True)
        chosen = chosen_rows(rows, FLAGS.rows)
        kept = kept_rows(Path(FLAGS.out) / f"{name}.json", title, [row for row in rows if row not in chosen])
    except (ValueError, OSError) as error:
        return shell.refuse(str(error))
    small = {"dataset": "digits", "batch_size": 128, "epochs": 1, "limit": None, "augment": (), **smoke}
    trained: dict[str, dict[str, Any]] = {}
    for row in chosen:
        folder = Path(FLAGS.workdir) / subfolder / row.replace(" ", "_").replace("/", "-")
        given = {**rows[row], **(small if FLAGS.smoke else {}), "workdir": str(folder)}
        shell.say(f"--- {row}")
        try:
            config = Config(**{"trials": FLAGS.trials, "trials_by": "loop", **given})
            trained[row] = run(config, prepare_all(config), shell.say)
        except (ValueError, OSError, ImportError) as error:
            return shell.refuse(f"row {row!r}: {error}")
        except DivergedError as error:
            trained[row] = {"diverged": str(error)}
            shell.say(f"row {row!r} diverged: {error}")
            continue
        except Interrupted as stop:
            shell.say(f"{stop}; saved. To go on, run the same command again:\n  {shell.command_line()}")
            return 128 + stop.signum
        apart = config.trials > 1 and config.trials_by == "loop"  # a batched model has one workdir for all
        folders = [folder / f"trial{trial}" for trial in range(config.trials)] if apart else [folder]
        trained[row] |= after(row, folders) if after else {}
    found = {row: summary for row in rows if (summary := trained.get(row) or kept.get(row))}
    header = ["row", *columns, *(["published"] if published else [])]
    cells = [
        [
            row,
            *("diverged" if "diverged" in summary else cell(summary) for cell in columns.values()),
            *([published.get(row, "")] if published else []),
        ]
        for row, summary in found.items()
    ]
    more, says = conclude(found) if conclude else ({}, "")
    note = " ".join(filter(None, [f"{title}. Mean and deviation of {FLAGS.trials} trials.", says]))
    write(name, header, cells, {"title": title, "rows": found, **more}, note, about_kept(kept))
    return 0


def records(workdir: Path, split: str) -> list[dict[str, Any]]:
    """The records of a split in a run's `metrics.jsonl`, one an epoch."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["split"] == split]


def last_of(key: str) -> Callable[[str, list[Path]], dict[str, Any]]:
    """An `after` of `run_rows`: a figure of each block in the last training record."""

    def after(row: str, workdirs: list[Path]) -> dict[str, Any]:
        lasts = [records(workdir, "train")[-1][key] for workdir in workdirs]
        return {key: [figure(values) for values in zip(*lasts, strict=True)]}

    return after


def figure(values: Sequence[float]) -> Any:
    """Values of several trials as a summary has them; that of one as it is."""
    if len(values) == 1:
        return float(values[0])
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)), "values": [float(v) for v in values]}


def read(name: str) -> dict[str, Any]:
    """What `write` wrote to `NAME.json`."""
    return json.loads((Path(FLAGS.out) / f"{name}.json").read_text())


def mean(figure: Any) -> float:
    """A figure, its mean over trials if it has several.

    Examples:
      >>> mean({"mean": 90.5, "std": 0.5, "values": [90.0, 91.0]}), mean(90.0)
      (90.5, 90.0)
    """
    return figure["mean"] if isinstance(figure, dict) else figure


def spread(figure: Any, digits: int = 2) -> str:
    """A figure as text, with its deviation over trials if it has one.

    Examples:
      >>> spread({"mean": 90.123, "std": 0.456, "values": []}), spread(90.0)
      ('90.12 ± 0.46', '90.00')
    """
    if isinstance(figure, dict):
        return f"{figure['mean']:.{digits}f} ± {figure['std']:.{digits}f}"
    return f"{figure:.{digits}f}"


def provenance() -> dict[str, Any]:
    """What a result file says of itself: command, machine, disturbed measurements, versions, commit (+ if changed)."""
    versions = {"python": platform.python_version(), "jax": jax.__version__}
    if "torch" in sys.modules:
        versions["torch"] = sys.modules["torch"].__version__
    flags_of_xla = {"XLA_FLAGS": os.environ["XLA_FLAGS"]} if "XLA_FLAGS" in os.environ else {}
    return {
        "command": shell.command_line(),
        **flags_of_xla,
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "processor": _processor(),
            "backend": jax.default_backend(),
            "device": jax.devices()[0].device_kind,
        },
        **({"host": dict(stolen_time.counts)} if stolen_time.counts["measurements"] else {}),
        "versions": versions,
        "commit": _commit(),
    }


def _processor() -> str:
    """The processor's name, where the system tells it."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str | None:
    """The commit of the checkout that this file is in; None outside of one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        found = subprocess.run([*git, "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def place(name: str, *, folder: bool) -> Path:
    """Where results are written, a folder or a file; made now, so that it is found out before hours of work.

    Raises:
      SystemExit: it cannot be made, with a line that says so.
    """
    path = Path(name)
    try:
        (path if folder else path.parent).mkdir(parents=True, exist_ok=True)
        if path.is_dir() != folder and path.exists():
            raise IsADirectoryError(f"it is a folder; give a file, such as {path / 'result.json'}")
    except OSError as error:
        raise SystemExit(shell.refuse(f"--out={name}: {error}.")) from None
    return path


def write(
    name: str,
    header: Sequence[str],
    cells: Sequence[Sequence[Any]],
    result: Mapping[str, Any],
    note: str,
    earlier: Sequence[str] = (),
) -> None:
    """Writes `NAME.json`, with the command, the machine and the versions, and `NAME.md`, a table; prints the table.

    Args:
      name: of both files.
      header: of the table.
      cells: a sequence a row.
      result: what the JSON holds.
      note: above the table.
      earlier: lines on rows that earlier runs wrote, see `about_kept`.
    """
    folder = place(FLAGS.out, folder=True)
    about = provenance()
    (folder / f"{name}.json").write_text(json.dumps({**about, **result}, indent=2) + "\n")
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (header, ["---"] * len(header), *cells)]
    written = f"Written by `{about['command']}` on {where(about['machine'])}."
    text = "\n".join([note, "", *lines, "", written, *(["", "Rows of earlier runs:", "", *earlier] if earlier else [])])
    (folder / f"{name}.md").write_text(text + "\n")
    shell.say(f"\n{text}\n\nwrote {folder / name}.json and .md")
