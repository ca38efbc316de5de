"""A run from its configuration to its summary."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from localgrad.pipeline import specs
from localgrad.report import Ledger, ledger, params_sha256, shows_curves, table
from localgrad.training import config_file, workdir
from localgrad.training.config import Config
from localgrad.training.job import Job, check_still, check_workdir, checkpoints_of, prepare
from localgrad.training.lock import owned
from localgrad.training.loop import by_trial, curves, fit, made_on, steady_rate, train

# What of a summary is measured; with several trials each becomes a mean, a deviation and its values.
_FIGURES = (
    "test_accuracy", "validation_accuracy", "exit_accuracy", "block_loss", "best_epoch", "best_validation_accuracy",
    "best_test_accuracy", "best_exit_accuracy", "examples_per_sec",
)  # fmt: skip


def prepare_all(config: Config) -> list[Job]:
    """The jobs of a run: one, or one a trial where trials are trained one after another.

    Raises:
      ValueError, FileNotFoundError: as `prepare`, before any compilation.
    """
    check_workdir(config)
    if config.trials == 1 or config.trials_by == "vmap":
        return [prepare(config)]
    return [
        prepare(
            dataclasses.replace(
                config,
                trials=1,
                seed=config.seed + trial,
                workdir=str(workdir.folder_of(config.workdir) / f"trial{trial}"),
                grow_from=None if config.grow_from is None else str(epath.Path(config.grow_from) / f"trial{trial}"),
            )
        )
        for trial in range(config.trials)
    ]


def run(config: Config, jobs: Sequence[Job], log: Callable[[str], None] = print) -> dict[str, Any]:
    """Trains, evaluates and writes the workdir; the same call again resumes, or returns the summary of what is done.

    Args:
      config: the run.
      jobs: what `prepare_all` made of it.
      log: takes a line of text for the user.

    Returns:
      The object of `summary.json`; of several processes only the first has the records and returns it, the others {}.

    Raises:
      Interrupted, DivergedError, InUseError, OSError: as `fit`.
    """
    folder, log = workdir.folder_of(config.workdir), _once(log)
    workdir.check_folder(folder)
    main = jax.process_index() == 0
    done = _finished(config, jobs, log)
    if done is not None:
        if main:
            _repair(folder, done, log)
        log(f"{folder} is a finished run; give another --workdir to train anew")
        return done.summary
    if not main:
        for job in jobs:
            train(job, log)
        return {}
    workdir.make_folder(folder)
    with owned(folder):
        check_still(config, jobs)
        alone = len(jobs) == 1
        if not alone:
            told = config_file.replace(folder, _placed(config, jobs[0].config.to_json()))
            if told:
                log(told)
        outcomes = [train(job, log) if alone else fit(job, log) for job in jobs]
        parts = []
        for job, outcome in zip(jobs, outcomes, strict=True):
            digests = [params_sha256(states) for states in by_trial(outcome.states, job.model.trials)]
            parts += summaries(job, outcome.records, digests, outcome.made_on)
        summary = merge(parts)
        workdir.write_json(folder / "summary.json", summary)
    return summary


def _once(log: Callable[[str], None]) -> Callable[[str], None]:
    """Says each line once: a damaged checkpoint is met by whoever asks whether the run is done, and by the run."""
    said: set[str] = set()

    def say(line: str) -> None:
        if line not in said:
            said.add(line)
            log(line)

    return say


class _Done(NamedTuple):
    """What a finished run comes to, by its last checkpoints: its summary, its files' contents, and its records."""

    summary: dict[str, Any]
    contents: dict[epath.Path, bytes]
    records: dict[epath.Path, list[dict[str, Any]]]


def _finished(config: Config, jobs: Sequence[Job], log: Callable[[str], None]) -> _Done | None:
    """What a run that is done comes to, or None; whether it is, its last checkpoints say, and not its summary."""
    folder = workdir.folder_of(config.workdir)
    parts: list[dict[str, Any]] = []
    contents: dict[epath.Path, bytes] = {}
    drawn: dict[epath.Path, list[dict[str, Any]]] = {}
    some = False
    for job in jobs:
        home = workdir.folder_of(job.config.workdir)
        checkpoints = checkpoints_of(job.config, log)
        steps = checkpoints.steps()
        some = some or bool(steps)
        found = checkpoints.find() if steps and steps[0] >= job.total_steps else None
        records = [] if found is None else checkpoints.meta(found["step"])["records"]
        if found is None or found["step"] != job.total_steps or not records:
            break
        if jax.process_index() == 0:
            checkpoints.review(found["step"])
        contents |= {
            home / config_file.NAME: workdir.as_json(found["config"]),
            home / "metrics.jsonl": workdir.as_lines(records),
        }
        drawn[home] = records
        parts += summaries(job, records, found["params_sha256"], made_on(found))
    else:
        if len(jobs) > 1:
            last = json.loads(contents[workdir.folder_of(jobs[-1].config.workdir) / config_file.NAME])
            contents[folder / config_file.NAME] = workdir.as_json(_placed(config, last))
        summary = merge(parts)
        return _Done(summary, {**contents, folder / "summary.json": workdir.as_json(summary)}, drawn)
    path = folder / "summary.json"
    if some or not path.exists():
        return None
    summary = workdir.read_json(path)
    if not isinstance(summary, dict) or "params_sha256" not in summary:
        log(f"{path} is damaged and is made anew")
        return None
    return _Done(summary, {}, {})  # somebody deleted the checkpoints of a run that is done, which takes much room


def _repair(folder: epath.Path, done: _Done, log: Callable[[str], None]) -> None:
    """Gives a finished run the files back that are lost or damaged; touches nothing where there are none."""

    def differs(path: epath.Path, content: bytes) -> bool:
        return not path.exists() or path.read_bytes() != content

    def undrawn(home: epath.Path) -> bool:
        path = home / "curves.png"
        return not path.exists() or not shows_curves(path.read_bytes(), done.records[home])

    wrong = [path for path, content in done.contents.items() if differs(path, content)]
    unseen = [home for home in done.records if undrawn(home)]
    if not wrong and not unseen:
        return
    with owned(folder):
        for path in wrong:
            workdir.renew(path, done.contents[path], log)
        for home in unseen:
            workdir.renew(home / "curves.png", curves(done.records[home]), log)


def _placed(config: Config, of_trial: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run of several trials, placed as one of them was."""
    names = ("trials", "seed", "workdir", "grow_from")
    return {**of_trial, **{name: getattr(config, name) for name in names}}


def make_ledger(job: Job) -> Ledger:
    """The ledger of a run, from shapes alone."""
    return ledger(job.model, specs(job.model)[0], job.engine.plan, job.total_steps)


def summaries(
    job: Job, records: Sequence[dict[str, Any]], digests: Sequence[str], made: dict[str, Any]
) -> list[dict[str, Any]]:
    """One summary a trial, of a run's records, the digests of its networks, and where its last states were made."""
    config, book = job.config, make_ledger(job)
    count = job.model.trials
    of = lambda value, trial: value if count is None else value[trial]
    pick = lambda split: [record for record in records if record["split"] == split]
    train, validation, test = pick("train"), pick("validation"), pick("test")
    results = []
    for trial in range(count or 1):
        best = int(np.argmax([of(record["accuracy"], trial) for record in validation]))
        results.append(
            {
                "method": config.method,
                "net": config.net,
                "dataset": config.dataset,
                "stages": made["stages"],
                "steps": job.total_steps,
                "test_accuracy": of(test[-1]["accuracy"], trial),
                "validation_accuracy": of(validation[-1]["accuracy"], trial),
                "exits": list(job.model.exits),
                "exit_accuracy": [of(value, trial) for value in test[-1]["exit_accuracy"]],
                "block_loss": [of(value, trial) for value in train[-1]["block_loss"]],
                "best_epoch": validation[best]["epoch"],
                "best_validation_accuracy": of(validation[best]["accuracy"], trial),
                "best_test_accuracy": of(test[best]["accuracy"], trial),
                "best_exit_accuracy": [of(value, trial) for value in test[best]["exit_accuracy"]],
                "params": {"effective": book.effective, "affiliated": book.affiliated},
                "examples_per_sec": steady_rate(records),
                "params_sha256": digests[trial],
                "versions": made["versions"],
            }
        )
    return results


def merge(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One summary of several trials: every figure as mean, sample deviation and values, the digests as a list.

    Examples:
      >>> merge([{"test_accuracy": 90.0, "params_sha256": "a"}, {"test_accuracy": 92.0, "params_sha256": "b"}])
      {'test_accuracy': {'mean': 91.0, 'std': 1.4142135623730951, 'values': [90.0, 92.0]}, 'params_sha256': ['a', 'b']}
    """
    if len(parts) == 1:
        return dict(parts[0])

    def spread(values: Sequence[Any]) -> Any:
        if isinstance(values[0], list):
            return [spread(each) for each in zip(*values, strict=True)]
        return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)), "values": list(values)}

    merged = dict(parts[0])
    for key in merged:
        values = [part[key] for part in parts]
        if key in _FIGURES:
            merged[key] = spread(values)
        elif key == "params_sha256":
            merged[key] = values
    return merged


def format_summary(summary: dict[str, Any], folder: str) -> str:
    """The table of exits and the paths of a finished run, as text."""

    def show(value: Any) -> str:
        return f"{value['mean']:.2f} ± {value['std']:.2f}" if isinstance(value, dict) else f"{value:.2f}"

    exits = [
        [exit, f"block 1-{exit}" if exit > 1 else "block 1", show(value)]
        for exit, value in zip(summary["exits"], summary["exit_accuracy"], strict=True)
    ]
    epochs = summary["best_epoch"]
    best = f"epoch {epochs}" if isinstance(epochs, int) else f"epochs {', '.join(map(str, epochs['values']))}"
    files = ("summary.json", "metrics.jsonl", "curves.png", "checkpoints")
    digests = summary["params_sha256"]
    return "\n".join(
        [
            table(["exit", "uses", "test accuracy %"], exits),
            "",
            f"test accuracy {show(summary['test_accuracy'])} %; best on validation: {best}, test "
            f"{show(summary['best_test_accuracy'])} %",
            f"params_sha256 {' '.join(digests) if isinstance(digests, list) else digests}",
            "wrote " + "  ".join(str(workdir.folder_of(folder) / name) for name in files),
        ]
    )
