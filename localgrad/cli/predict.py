r"""What a trained network says of files: pictures, tables, texts.

    localgrad predict --workdir=runs/fashion boot.png bag.jpg
    localgrad predict --workdir=runs/irises --out=said.csv flowers.csv
    localgrad predict --workdir=runs/movies --exit=2 reviews.txt

Pictures are made the size that the network was trained on; each row of a CSV file, and each line of a text, is an
example.  `--workdir` is a run of `localgrad train`, or a folder that `localgrad.export` wrote: a run of `localgrad.fit`
has the names of no modules, so that its network is exported first.
"""

import csv
import io
import json
import re
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from localgrad import data
from localgrad.cli import shell
from localgrad.data.csv_rows import CSV_ENDINGS
from localgrad.data.files import expanded, lines
from localgrad.prediction import Predictions, Predictor
from localgrad.report import table
from localgrad.training import load
from localgrad.training.config_file import saved_config

FLAGS = flags.FLAGS
_ENDINGS = {"pictures": data.IMAGE_ENDINGS, "tables": CSV_ENDINGS, "texts": (".txt", ".txt.gz")}


def define_flags() -> None:
    """Which network, at which exit, and where to write."""
    flags.DEFINE_string("workdir", None, "folder of a run, or of an export", required=True)
    flags.DEFINE_bool("best", True, "the best epoch on validation; otherwise the newest checkpoint")
    flags.DEFINE_integer("exit", None, "the exit that predicts, counted from 1; none is the last")
    flags.DEFINE_float("anytime", None, "leave at the first exit that is so confident by its own account, such as 0.9")
    flags.DEFINE_integer("trial", None, "which of several trials, from 0")
    flags.DEFINE_string("out", None, "write the predictions into this file, .csv or .jsonl, and print none")


def main(argv: list[str]) -> int:
    """Predicts, and returns the exit status."""
    files = argv[1:]
    try:
        if not files:
            raise ValueError("no files: name pictures, CSV files or texts behind the flags.")
        if FLAGS.exit is not None and FLAGS.anytime is not None:
            raise ValueError("--exit chooses one exit and --anytime lets each example choose: say one of the two.")
        if FLAGS.out is not None and not FLAGS.out.endswith((".csv", ".jsonl")):
            raise ValueError(f"--out={FLAGS.out}: give a name that ends in .csv or .jsonl.")
        shell.own_devices(1, x64=(saved_config(FLAGS.workdir) or {}).get("dtype") == "float64")
        say = lambda line: print(line, file=sys.stderr)
        predictor = load(FLAGS.workdir, best=FLAGS.best, trial=FLAGS.trial, log=say)
        names, inputs = read_inputs(files, predictor)
        found = predicted(predictor, names, inputs, FLAGS.exit, FLAGS.anytime)
        rows = rows_of(names, found)
        if FLAGS.out is None:
            shell.say(shown(rows))
        else:
            expanded(FLAGS.out).write_text(as_csv(rows) if FLAGS.out.endswith(".csv") else as_jsonl(rows, found))
            shell.say(f"wrote {len(rows)} predictions to {FLAGS.out}")
    except (ValueError, OSError, ImportError) as error:
        return shell.refuse(str(error))
    return 0


def read_inputs(files: Sequence[str], predictor: Predictor) -> tuple[list[str], Any]:
    """What stands in files, as the network takes it, and what each example is called.

    Raises:
      ValueError, FileNotFoundError: a file of another kind than the network reads, or one that is damaged.
    """
    about = predictor.about
    kinds = {_kind(file) for file in files}
    wants = "texts" if about.words is not None else "pictures" if len(about.shape) == 3 else "tables"
    if kinds != {wants}:
        other = next(file for file in files if _kind(file) != wants)
        raise ValueError(
            f"{other} is none of the {wants} that this network reads ({', '.join(_ENDINGS[wants])}): it was trained on "
            f"inputs {about.shape}."
        )
    if wants == "pictures":
        return list(files), np.stack([data.read_image(file, about.shape) for file in files])
    names: list[str] = []
    if wants == "texts":
        texts = []
        for file in files:
            for number, line in lines(expanded(file), "Give a text file, an example a line"):
                names.append(f"{file}:{number}")
                texts.append(line)
        if not texts:
            raise ValueError(f"{files[0]} has no lines.")
        return names, texts
    parts, kind = [], np.dtype(about.raw_dtype)
    exact = kind if np.issubdtype(kind, np.floating) else np.float64  # that keeps whole numbers up to 2^53
    for file in files:
        found = data.read_table(file)
        rows = data.numbers(found, about.columns or found.columns, exact)
        names += [f"{file}:{i + 1}" for i in range(len(rows))]
        parts.append(rows)
        if rows.shape[1] != parts[0].shape[1]:
            raise ValueError(f"{file} has {rows.shape[1]} columns, and {files[0]} has {parts[0].shape[1]}.")
    rows = np.concatenate(parts)
    whole = np.issubdtype(kind, np.integer) and np.all(rows == np.round(rows))  # of a file, all numbers are floats
    return names, rows.astype(np.int64) if whole else rows


def predicted(
    predictor: Predictor, names: Sequence[str], inputs: Any, exit: int | None, threshold: float | None
) -> Predictions:
    """What a network says of inputs at one exit, or at the first that is so confident.

    Raises:
      ValueError: as `Predictor`, which counts inputs; here they are called by their names.
    """
    try:
        return predictor(inputs, exit) if threshold is None else predictor.anytime(inputs, threshold)
    except ValueError as error:
        raise ValueError(re.sub(r"inputs\[(\d+)\]", lambda found: names[int(found[1])], str(error))) from error


def _kind(file: str) -> str:
    """What a file holds, by the end of its name."""
    return next((kind for kind, endings in _ENDINGS.items() if file.lower().endswith(endings)), "unknown")


def rows_of(names: Sequence[str], found: Predictions) -> list[dict[str, Any]]:
    """A row a prediction: of which example, what, how sure, and which exit said it."""
    rows = []
    for i, (name, said) in enumerate(zip(names, found.names, strict=True)):
        row: dict[str, Any] = {"input": name, "prediction": said}
        if found.confidence is not None:
            row["confidence"] = float(np.mean(found.confidence[i]))
        rows.append({**row, "exit": int(found.exits[i])})
    return rows


def shown(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as a table for people."""
    cells = [[f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    return table(list(rows[0]), cells)


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as a CSV file with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_jsonl(rows: Sequence[dict[str, Any]], found: Predictions) -> str:
    """Rows as JSON lines: names as text, numbers as numbers, and the probability of each class.

    Of labels that have names the probabilities bear these.
    """
    found_rows = []
    for i, (row, value) in enumerate(zip(rows, found.plain_values, strict=True)):
        more: dict[str, Any] = {"prediction": value}
        if found.probabilities is not None:
            chances = found.probabilities[i].tolist()
            named = found.label_names if found.of_named_labels else None
            more["probabilities"] = chances if named is None else dict(zip(named, chances, strict=True))
        found_rows.append(json.dumps({**row, **more}, allow_nan=False))
    return "".join(f"{row}\n" for row in found_rows)
