"""A run from its configuration to its summary."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from localgrad.pipeline import specs
from localgrad.report import Ledger, ledger, params_sha256, table
from localgrad.training import workdir
from localgrad.training.config import Config
from localgrad.training.job import Job, check_workdir, prepare
from localgrad.training.loop import Outcome, fit

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
                workdir=str(Path(config.workdir) / f"trial{trial}"),
                grow_from=None if config.grow_from is None else str(Path(config.grow_from) / f"trial{trial}"),
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
      Interrupted, DivergedError: as `fit`.
    """
    folder = Path(config.workdir)
    path = folder / "summary.json"
    if path.exists():
        log(f"{folder} is a finished run; give another --workdir to train anew")
        return json.loads(path.read_text())
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        workdir.write_json(folder / "config.json", config.to_json())
    outcomes = [fit(job, log) for job in jobs]
    if jax.process_index() != 0:
        return {}
    summary = merge([part for job, outcome in zip(jobs, outcomes, strict=True) for part in summaries(job, outcome)])
    workdir.write_json(path, summary)
    return summary


def make_ledger(job: Job) -> Ledger:
    """The ledger of a run, from shapes alone."""
    return ledger(job.model, specs(job.model)[0], job.engine.plan, job.total_steps)


def summaries(job: Job, outcome: Outcome) -> list[dict[str, Any]]:
    """One summary a trial."""
    config, book = job.config, make_ledger(job)
    count = job.model.trials
    of = lambda value, trial: value if count is None else value[trial]
    pick = lambda split: [record for record in outcome.records if record["split"] == split]
    train, validation, test = pick("train"), pick("validation"), pick("test")
    results = []
    for trial in range(count or 1):
        best = int(np.argmax([of(record["accuracy"], trial) for record in validation]))
        states = outcome.states if count is None else jax.tree.map(lambda x, t=trial: x[t], outcome.states)
        results.append(
            {
                "method": config.method,
                "net": config.net,
                "dataset": config.dataset,
                "stages": config.stages,
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
                "examples_per_sec": outcome.examples_per_sec,
                "params_sha256": params_sha256(states),
                "versions": {"jax": jax.__version__, "backend": jax.default_backend()},
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
            "wrote " + "  ".join(str(Path(folder) / name) for name in files),
        ]
    )
