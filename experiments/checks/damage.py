"""Damages a workdir while nobody looks, gives the same command again, and sees whether that is noticed and mended.

Two workdirs of one run, one stopped by a signal (with two checkpoints) and one finished, are copied for every case.  In
the copy one bit of one file is flipped, or a file is cut short, deleted or renamed; every file has its turn.  Then the
same run is made in the copy.  It must say what it found, and end with the digest, records and summary of the run that
nobody disturbed.

    python -m experiments.checks.damage

Expect `260 of 260`, none silent; a few minutes on two free cores.  `--flips=20 --others=6 --first=20` makes a part, the
cases from the 20th of each kind on; the file keeps those that were made before.
"""

import dataclasses
import json
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import app, flags, logging

from experiments import tables
from localgrad.report import shows_curves
from localgrad.training import Config, Interrupted, Job, prepare_all, run

RUN = Config(
    method="al", profile="iclr_head", net="mlp", widths=(16, 12), target_width=8, dropout=0.1, dataset="digits",
    epochs=3, batch_size=128, batches_per_call=3, checkpoint_every_steps=6,
)  # fmt: skip
KINDS = ("flip", "truncate", "delete", "rename")
_ORDINARY = ("epoch ", "resuming ")  # what a run says that nothing happened to


class Origin(NamedTuple):
    """What every case begins with.

    Attributes:
      kept: whole workdirs, by what they are.
      folders: where they were made, which is where a case damages a copy: `config.json` names the place.
      expected: what the undisturbed run comes to.
      job: has programs that are compiled.
    """

    kept: dict[str, Path]
    folders: dict[str, Path]
    expected: dict[str, Any]
    job: Job


def results(folder: Path) -> dict[str, Any]:
    """What a finished workdir holds, but for how fast it was."""
    summary = json.loads((folder / "summary.json").read_text())
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    curves = shows_curves((folder / "curves.png").read_bytes(), records)
    for each in (summary, *records):
        each.pop("examples_per_sec", None)
    return {"summary": summary, "records": records, "curves": curves}


def make_origin(base: Path, config: Config = RUN) -> Origin:
    """Trains the run to its end, and once more up to a SIGTERM after its first epoch."""
    folders = {name: base / name for name in ("finished", "stopped")}
    jobs = prepare_all(dataclasses.replace(config, workdir=str(folders["finished"])))
    run(jobs[0].config, jobs, lambda line: None)
    stopped = dataclasses.replace(config, workdir=str(folders["stopped"]))
    stop = lambda line: os.kill(os.getpid(), signal.SIGTERM) if line.startswith("epoch 1/") else None
    try:
        run(stopped, [_with_programs(job, jobs[0]) for job in prepare_all(stopped)], stop)
    except Interrupted:
        kept = {name: folder.rename(base / f"{name}.kept") for name, folder in folders.items()}
        return Origin(kept, folders, results(kept["finished"]), jobs[0])
    raise RuntimeError("the run that was to be stopped ran to its end")


def _with_programs(job: Job, other: Job) -> Job:
    """A job that uses what another has compiled: programs do not depend on the folder."""
    return job._replace(model=other.model, engine=other.engine, source=other.source, begin=other.begin)


def files_of(folder: Path) -> list[str]:
    """The files of a workdir, by their names in it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def damage(folder: Path, name: str, kind: str, choose: random.Random) -> str:
    """Does something to one file of a workdir, and returns what."""
    path = folder / name
    content = path.read_bytes()
    if kind == "flip":
        at, bit = choose.randrange(len(content)), choose.randrange(8)
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
        return f"bit {bit} of byte {at} of {len(content)}"
    if kind == "truncate":
        size = choose.randrange(len(content))
        os.truncate(path, size)
        return f"{size} of {len(content)} bytes are left"
    if kind == "delete":
        path.unlink()
        return "deleted"
    other = choose.choice([f"{path.name}.bak", *(other.name for other in path.parent.iterdir() if other.is_file())])
    path.rename(path.with_name(other) if other != path.name else path.with_name(f"{other}.old"))
    return f"renamed to {other}"


def again(folder: Path, origin: Origin, config: Config = RUN) -> list[str]:
    """The same command again in a folder; what it says that an ordinary run does not."""
    said: list[str] = []
    placed = dataclasses.replace(config, workdir=str(folder))
    run(placed, [_with_programs(job, origin.job) for job in prepare_all(placed)], said.append)
    return [line for line in said if not line.startswith(_ORDINARY) and "is a finished run" not in line]


def check(origin: Origin, state: str, name: str, kind: str, seed: str) -> dict[str, Any]:
    """One case: damage, the same command, and what came of it."""
    workdir = Path(shutil.copytree(origin.kept[state], origin.folders[state]))
    try:
        what = damage(workdir, name, kind, random.Random(seed))
        said = again(workdir, origin)
        mended = results(workdir) == origin.expected
    except (ValueError, OSError) as error:  # refused, and so not silent; but not mended
        said, mended = [f"refused: {error}"], False
    finally:
        shutil.rmtree(workdir)
    said = [line.replace(str(workdir), "WORKDIR") for line in said]
    return {"workdir": state, "file": name, "kind": kind, "damage": what, "said": said, "mended": mended}


def cases(origin: Origin, flips: int, others: int, first: int = 0) -> list[tuple[str, str, str, str]]:
    """`(state, file, kind, seed)` of each case: every file of both workdirs in turn, in an order that is mixed once."""
    files = [(state, name) for state, folder in origin.kept.items() for name in files_of(folder)]
    random.Random(0).shuffle(files)
    pick: Callable[[int], tuple[str, str]] = lambda i: files[i % len(files)]
    found = [(*pick(i), "flip", f"flip {i}") for i in range(first, first + flips)]
    return found + [(*pick(i), KINDS[1 + i % 3], f"other {i}") for i in range(first, first + others)]


def write(out: Path, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Adds rows to those of a result file, each seed once, and counts."""
    found = {row["seed"]: row for row in (json.loads(out.read_text())["cases"] if out.exists() else [])}
    found |= {row["seed"]: row for row in rows}
    made = sorted(found.values(), key=lambda row: (row["seed"].split()[0], int(row["seed"].split()[1])))
    result = {
        "command": "python -m experiments.checks.damage", "jax": jax.__version__, "run": RUN.to_json(),
        "made": len(made), "of": 260, "mended": sum(row["mended"] for row in made),
        "silent": sum(not row["said"] for row in made),
        "by_kind": {kind: sum(row["kind"] == kind for row in made) for kind in KINDS}, "cases": made,
    }  # fmt: skip
    out.write_text(json.dumps(result, indent=1) + "\n")
    return result


def main(argv: list[str]) -> int:
    logging.set_verbosity(logging.ERROR)  # the checkpoint library tells a lot
    rows, out = [], tables.place(FLAGS.out, folder=False)
    with tempfile.TemporaryDirectory() as name:
        origin = make_origin(Path(name))
        for state, file, kind, seed in cases(origin, FLAGS.flips, FLAGS.others, FLAGS.first):
            rows.append({"seed": seed, **check(origin, state, file, kind, seed)})
            bad = not rows[-1]["mended"] or not rows[-1]["said"]
            print(f"{len(rows)}: {'BAD ' if bad else ''}{json.dumps(rows[-1])}", flush=True)
            result = write(out, rows)
    print(f"{result['mended']} of {result['made']} mended, {result['silent']} silent; wrote {out}")
    return 0 if result["mended"] == result["made"] and not result["silent"] else 1


if __name__ == "__main__":
    flags.DEFINE_integer("flips", 200, "cases in which one bit is flipped")
    flags.DEFINE_integer("others", 60, "files that are cut short, deleted or renamed")
    flags.DEFINE_integer("first", 0, "the first case of each kind")
    flags.DEFINE_string("out", "experiments/results/check_damage.json", "file to write")
    FLAGS = flags.FLAGS
    app.run(main)
