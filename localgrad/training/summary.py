"""The summary of a run: of one trial, of several, and as text."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from localgrad.report import EXITS, Ledger, ledger, table
from localgrad.tasks import Task
from localgrad.training import workdir
from localgrad.training.job import Job
from localgrad.training.records import steady_rate

# What of a summary is measured; with several trials each becomes a mean, a deviation and its values.
_FIGURES = ("test_", "validation_", EXITS, "best_", "block_loss", "examples_per_sec")


def make_ledger(job: Job) -> Ledger:
    """The ledger of a run, from shapes alone."""
    return ledger(job.model, job.specs, job.engine.plan, job.total_steps)


def summaries(
    job: Job, records: Sequence[dict[str, Any]], digests: Sequence[str], made: dict[str, Any]
) -> list[dict[str, Any]]:
    """One summary a trial, of a run's records, the digests of its networks, and where its last states were made."""
    config, book = job.config, make_ledger(job)
    count = job.model.trials
    of = lambda value, trial: value if count is None else value[trial]
    pick = lambda split: [record for record in records if record["split"] == split]
    train, validation, test = pick("train"), pick("validation"), pick("test")
    name, score = next(iter(job.model.task.scores.items()))
    find_best = np.argmin if score.best == "min" else np.argmax
    results = []
    for trial in range(count or 1):
        best = int(find_best([of(record[name], trial) for record in validation]))
        results.append(
            {
                "method": config.method,
                "net": config.net,
                "dataset": config.dataset,
                "stages": made["stages"],
                "steps": job.total_steps,
                f"test_{name}": of(test[-1][name], trial),
                f"validation_{name}": of(validation[-1][name], trial),
                "exits": list(job.model.exits),
                EXITS + name: [of(value, trial) for value in test[-1][EXITS + name]],
                "block_loss": [of(value, trial) for value in train[-1]["block_loss"]],
                "best_epoch": validation[best]["epoch"],
                f"best_validation_{name}": of(validation[best][name], trial),
                f"best_test_{name}": of(test[best][name], trial),
                f"best_{EXITS}{name}": [of(value, trial) for value in test[best][EXITS + name]],
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
        if key.startswith(_FIGURES):
            merged[key] = spread(values)
        elif key == "params_sha256":
            merged[key] = values
    return merged


def format_summary(summary: dict[str, Any], folder: str, task: Task) -> str:
    """The table of exits and the paths of a finished run, as text."""
    name, score = next(iter(task.scores.items()))
    words, form, unit = name.replace("_", " "), ".2f" if score.percent else ".4g", " %" if score.percent else ""

    def show(value: Any) -> str:
        return f"{value['mean']:{form}} ± {value['std']:{form}}" if isinstance(value, dict) else f"{value:{form}}"

    exits = [
        [exit, f"block 1-{exit}" if exit > 1 else "block 1", show(value)]
        for exit, value in zip(summary["exits"], summary[EXITS + name], strict=True)
    ]
    epochs = summary["best_epoch"]
    best = f"epoch {epochs}" if isinstance(epochs, int) else f"epochs {', '.join(map(str, epochs['values']))}"
    files = ("summary.json", "metrics.jsonl", "curves.png", "checkpoints")
    digests = summary["params_sha256"]
    return "\n".join(
        [
            table(["exit", "uses", f"test {words}{unit}"], exits),
            "",
            f"test {words} {show(summary[f'test_{name}'])}{unit}; best on validation: {best}, test "
            f"{show(summary[f'best_test_{name}'])}{unit}",
            f"params_sha256 {' '.join(digests) if isinstance(digests, list) else digests}",
            "wrote " + "  ".join(str(workdir.folder_of(folder) / name) for name in files),
        ]
    )
