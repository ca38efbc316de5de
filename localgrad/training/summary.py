"""The summary of a run: of one trial, of several, and as text."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from localgrad.report import EXITS, Ledger, form_of, ledger, table, unit_of
from localgrad.report.scores import better
from localgrad.report.tables import figure
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
    names, book = job.config.to_json(), make_ledger(job)
    name, score = next(iter(job.model.task.scores.items()))
    count = job.model.trials
    of = lambda value, trial: value if count is None else value[trial]
    pick = lambda split: [record for record in records if record["split"] == split]
    train, evaluated = pick("train"), {split: found for split in job.evaluated if (found := pick(split))}
    results = []
    for trial in range(count or 1):
        own = lambda record, trial=trial: of(record[name], trial)
        exits = lambda record, trial=trial: [of(value, trial) for value in record[EXITS + name]]
        figures: dict[str, Any] = {}
        for split in ("test", "validation"):
            if split in evaluated:
                figures[f"{split}_{name}"] = own(evaluated[split][-1])
        figures["exits"] = list(job.model.exits)
        shown = next((split for split in ("test", "validation") if split in evaluated), None)
        if shown is not None:
            figures[EXITS + name] = exits(evaluated[shown][-1])
        figures["block_loss"] = [of(value, trial) for value in train[-1]["block_loss"]]
        if "validation" in evaluated:
            best = int(np.argmax([better(own(record), score.best) for record in evaluated["validation"]]))
            epoch = figures["best_epoch"] = evaluated["validation"][best]["epoch"]
            at = {split: [record for record in found if record["epoch"] == epoch] for split, found in evaluated.items()}
            figures |= {f"best_{split}_{name}": own(found[0]) for split, found in at.items() if found}
            figures[f"best_{EXITS}{name}"] = exits((at[shown or "validation"] or at["validation"])[0])
        results.append(
            {
                **{field: names[field] for field in ("method", "net", "dataset")},
                "stages": made["stages"],
                "steps": train[-1]["step"],
                **figures,
                "params": {"effective": book.effective, "affiliated": book.affiliated},
                "examples_per_sec": steady_rate(records),
                "params_sha256": digests[trial],
                "versions": made["versions"],
            }
        )
    return results


def merge(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One summary of several trials: every figure as mean, sample deviation and values, the digests as a list; so are
    steps, where not all trials have learnt from as many batches.

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
        elif key == "steps" and len(set(values)) > 1:  # each ended after the best of its own
            merged[key] = spread(values)
    return merged


def format_summary(summary: dict[str, Any], folder: str, task: Task) -> str:
    """The table of exits and the paths of a finished run, as text."""
    name, score = next(iter(task.scores.items()))
    words, form, unit = name.replace("_", " "), form_of(score.percent), unit_of(score.percent)
    show = lambda value: figure(value, form)
    split = next((split for split in ("test", "validation") if f"{split}_{name}" in summary), None)
    lines = []
    if split is not None:
        exits = [
            [exit, f"block 1-{exit}" if exit > 1 else "block 1", show(value)]
            for exit, value in zip(summary["exits"], summary[EXITS + name], strict=True)
        ]
        lines = [table(["exit", "uses", f"{split} {words}{unit}"], exits), ""]
        best = ""
        if "best_epoch" in summary:
            epochs = summary["best_epoch"]
            when = f"epoch {epochs}" if isinstance(epochs, int) else f"epochs {', '.join(map(str, epochs['values']))}"
            best = f"; best on validation: {when}, {split} {show(summary[f'best_{split}_{name}'])}{unit}"
        lines.append(f"{split} {words} {show(summary[f'{split}_{name}'])}{unit}{best}")
    files = ("summary.json", "metrics.jsonl", "curves.png", "checkpoints")
    digests = summary["params_sha256"]
    return "\n".join(
        [
            *lines,
            f"params_sha256 {' '.join(digests) if isinstance(digests, list) else digests}",
            "wrote " + "  ".join(str(workdir.folder_of(folder) / name) for name in files),
        ]
    )
