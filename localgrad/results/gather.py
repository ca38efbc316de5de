"""From the folder of a run to the facts that a page shows of it."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from localgrad.data import Dataset
from localgrad.report import EXITS, score_of
from localgrad.report.facts import Epochs, Run
from localgrad.results.measure import THRESHOLDS, Opened, measure, open_run
from localgrad.results.seen import seen
from localgrad.training import Config, prepare, read_config
from localgrad.training.checkpoint_reader import CheckpointReader
from localgrad.training.config_file import config_of, saved_config
from localgrad.training.plan_file import Planned, plan_on, planned, read_planned
from localgrad.training.run_config import RunConfig
from localgrad.training.workdir import folder_of, read_json, read_records


def gather(
    workdir: str,
    name: str,
    command: Callable[[Config], str],
    *,
    evaluate: bool = True,
    alignment: bool = False,
    log: Callable[[str], None] = print,
) -> Run:
    """Reads a run: its records, its configuration, and, where its data are there, its network.

    What cannot be read besides the records is left out, and a note says why.

    Args:
      workdir: its folder; of several trials that of all.
      name: what the page calls it.
      command: says what trains it again, of a run that names its model and data.
      evaluate: predict on the test split: exits, the curve of leaving early, confusion and worst examples.
      alignment: compare each block's update with the true gradient as well.
      log: takes a line for each checkpoint that cannot be used.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: it has no records yet, or is of another version.
    """
    folder = folder_of(workdir)
    saved = saved_config(workdir)
    if saved is None:
        path = folder / "config.json"
        if not path.exists():
            raise FileNotFoundError(f"{workdir} is not the workdir of a run: it has no config.json.")
        raise ValueError(f"{path} is damaged, and no checkpoint says what it was: the same command again mends it.")
    config = config_of(saved)
    homes = _homes(config, workdir)
    epochs = epochs_of([_records(home) for home in homes])
    if epochs is None:
        raise ValueError(f"{workdir} has no records of an epoch: let the run reach the end of its first one.")
    summary = read_json(folder / "summary.json")
    summary = summary if isinstance(summary, dict) else {}
    again = command(config) if isinstance(config, Config) else _call(config)
    run = Run(name, workdir, saved, again, _versions(summary, homes[0]), epochs, summary)
    notes = [] if summary else ["The run is not finished: it has no summary."]
    known = read_planned(folder_of(homes[0]))
    if known is not None:
        run = _with(run, known)
    without = "" if known is not None else ", without ledger and timeline"
    if not isinstance(config, Config):
        notes.append(
            "The model was given to localgrad.fit in a program, and there are no names to make it of: what is shown is "
            f"what the run wrote{without}, and nothing is predicted anew."
        )
        return run._replace(notes=tuple(notes))
    with jax.enable_x64(config.dtype == "float64"):
        try:
            job = prepare(read_config(homes[0]), resume=False)
            placed = Config.from_json(saved_config(homes[0]) or saved)
            run = _with(run, known or planned(job, plan_on(job, placed)))
        except (ValueError, OSError, ImportError) as error:
            notes.append(f"The network could not be made again, so that nothing is predicted{without}: {error}")
            return run._replace(notes=tuple(notes))
        if evaluate:
            try:
                opened = open_run(job, log)
            except (ValueError, OSError, ImportError) as error:
                notes.append(f"The trained network could not be read: {error}")
            else:
                run = run._replace(**_of_predictions(opened, alignment))
                if config.trials > 1:
                    notes.append("What is evaluated on the test split is the network of the first trial.")
    return run._replace(notes=tuple(notes))


def names_of(workdirs: Sequence[str]) -> list[str]:
    """Short names of folders: their last parts, as many as it takes to tell them apart.

    Examples:
      >>> names_of(["runs/al", "runs/bp/"]), names_of(["a/run", "b/run"])
      (['al', 'bp'], ['a/run', 'b/run'])
    """
    parts = [os.path.normpath(workdir).split(os.sep) for workdir in workdirs]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"a run is shown once; got {', '.join(workdirs)}.")


def epochs_of(trials: Sequence[Sequence[dict[str, Any]]]) -> Epochs | None:
    """The records of a run as arrays; None where there is no whole epoch of training.

    Args:
      trials: the objects of `metrics.jsonl`, of each trial that has a file of its own; epochs that not all have, and
        records that do not say what the first says, are left out.
    """
    evaluated = [record for records in trials for record in records if record["split"] != "train"]
    score = next((score_of(record) for record in evaluated if any(EXITS + key in record for key in record)), "accuracy")
    by_split = {split: _common(trials, split, score) for split in ("train", "validation", "test")}
    train = by_split["train"]
    if not train:
        return None
    blocks = np.shape(train[0][0]["block_loss"])[0]
    epoch = np.array([row[0]["epoch"] for row in train])
    names = dict.fromkeys(key for row in train for record in row for key in record)
    more = {}
    for name in names:
        values = [[record.get(name) for record in row] for row in train]
        if name != "block_loss" and all(isinstance(v, list) and len(v) == blocks for row in values for v in row):
            more[name] = np.stack([_by_trial(row) for row in values])
    return Epochs(
        epoch,
        np.stack([_by_trial([record["block_loss"] for record in row]) for row in train]),
        more,
        np.array([np.mean([record.get("examples_per_sec") or np.nan for record in row]) for row in train]),
        {split: np.array([row[0]["epoch"] for row in by_split[split]]) for split in ("validation", "test")},
        {
            split: np.stack([_by_trial([record[EXITS + score] for record in row]) for row in by_split[split]])
            if by_split[split]
            else np.zeros((0, 0, 1))
            for split in ("validation", "test")
        },
        score,
        score == "accuracy",
    )


def _common(trials: Sequence[Sequence[dict[str, Any]]], split: str, score: str) -> list[tuple[dict[str, Any], ...]]:
    """The records of a split, those of all trials together, in order."""
    key, shape = "block_loss" if split == "train" else f"{EXITS}{score}", None
    found: list[dict[int, dict[str, Any]]] = []
    for records in trials:
        found.append({})
        for record in records:
            if record["split"] != split or type(record.get("epoch")) is not int or not _is_numbers(record.get(key)):
                continue
            shape = np.shape(record[key]) if shape is None else shape
            if np.shape(record[key]) == shape:
                found[-1][record["step"]] = record
    steps = sorted(set.intersection(*map(set, found)))
    return [tuple(each[step] for each in found) for step in steps]


def _is_numbers(value: Any) -> bool:
    """Whether it is a list of numbers, or of equally many for each trial."""
    try:
        return isinstance(value, list) and np.asarray(value, float).ndim in (1, 2) and bool(value)
    except (ValueError, TypeError):
        return False


def _by_trial(values: Sequence[Any]) -> np.ndarray:
    """`(blocks, trials)` of the lists of each trial, or of one list that holds all trials; None is NaN."""
    if len(values) > 1:
        return np.array(values, float).T
    rows = values[0]
    trials = max((len(row) for row in rows if isinstance(row, list)), default=1)
    full = [row if isinstance(row, list) else [np.nan if row is None else row] * trials for row in rows]
    return np.array(full, float).reshape(len(rows), -1)


def _call(config: RunConfig) -> str:
    """The call of `localgrad.fit` that trains the same again, as far as a file can say."""
    told = {name: value for name, value in vars(config).items() if name in ("epochs", "stages", "seed", "workdir")}
    words = ", ".join(f"{name}={value!r}" for name, value in told.items())
    return f"localgrad.fit(model, train, validation, {words})"


def _homes(config: RunConfig, workdir: str) -> list[str]:
    """The folders of the trials that were trained one after another, or that of the run."""
    if not isinstance(config, Config) or config.trials == 1 or config.trials_by != "loop":
        return [workdir]
    return [str(folder_of(workdir) / f"trial{i}") for i in range(config.trials)]


def _records(home: str) -> list[dict[str, Any]]:
    """The records of a run, by its file, or else by its newest sound checkpoint."""
    folder = folder_of(home)
    records = read_records(folder / "metrics.jsonl")
    if records:
        return records
    reader = CheckpointReader(folder / "checkpoints")
    found = reader.find()
    return [] if found is None else reader.meta(found["step"])["records"]


def _versions(summary: dict[str, Any], home: str) -> dict[str, str]:
    if isinstance(summary.get("versions"), dict):
        return summary["versions"]
    found = CheckpointReader(folder_of(home) / "checkpoints").find()
    return {} if found is None else found["versions"]


def _with(run: Run, known: Planned) -> Run:
    """A run with what is known of it without a number that it computed."""
    percent = known.percent.get(run.epochs.score, run.epochs.percent)
    return run._replace(
        blocks=known.blocks,
        exits=known.exits,
        plan=known.plan,
        ledger=known.ledger,
        batches=known.batches,
        epochs=run.epochs._replace(percent=percent),
    )


def _of_predictions(opened: Opened, alignment: bool) -> dict[str, Any]:
    several = len(opened.job.model.exits) > 1
    early = THRESHOLDS if several and opened.leaves_early else ()
    test = opened.job.splits["test"]
    return {
        "measured": measure(opened, alignment=alignment, thresholds=early),
        "seen": seen(opened.scores[-1], test) if opened.leaves_early and isinstance(test, Dataset) else None,
    }
