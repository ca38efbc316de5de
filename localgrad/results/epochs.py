"""From the records of a run to arrays of its epochs."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from localgrad.report import EXITS, score_of
from localgrad.report.facts import Epochs


def epochs_of(trials: Sequence[Sequence[dict[str, Any]]]) -> Epochs | None:
    """The records of a run as arrays; None where there is no whole epoch of training.

    Args:
      trials: the objects of `metrics.jsonl`, of each trial that has a file of its own; of epochs that not all have only
        each trial's last is read, and records that do not say what the first says are left out.
    """
    evaluated = [record for records in trials for record in records if record["split"] != "train"]
    score = next((score_of(record) for record in evaluated if any(EXITS + key in record for key in record)), "accuracy")
    each = {split: _of_split(trials, split, score) for split in ("train", "validation", "test")}
    by_split = {split: _common(found) for split, found in each.items()}
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
        {
            split: _by_trial([_last(found)[EXITS + score] for found in each[split]])
            if by_split[split]
            else np.zeros((0, 1))
            for split in ("validation", "test")
        },
        tuple(_last(found)["epoch"] for found in each["train"]),
        tuple(_last(found)["step"] for found in each["train"]),
    )


def _last(found: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """The last record of a trial."""
    return found[max(found)]


def _common(found: Sequence[dict[int, dict[str, Any]]]) -> list[tuple[dict[str, Any], ...]]:
    """The records of all trials together, of the steps that all have, in order."""
    steps = sorted(set.intersection(*map(set, found)))
    return [tuple(each[step] for each in found) for step in steps]


def _of_split(trials: Sequence[Sequence[dict[str, Any]]], split: str, score: str) -> list[dict[int, dict[str, Any]]]:
    """The records of a split by their steps, of each trial."""
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
    return found


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
