"""A run that is done: what its last checkpoints say of it, and its files, which can be made again from them."""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from etils import epath

from localgrad.prediction import about
from localgrad.report import shows_curves
from localgrad.training import config_file, plan_file, workdir
from localgrad.training.job import Job, checkpoints_of
from localgrad.training.json_lines import JsonLines
from localgrad.training.lock import owned
from localgrad.training.records import curves, made_on, past_its_best
from localgrad.training.run_config import RunConfig
from localgrad.training.summary import merge, summaries


class Finished(NamedTuple):
    """What a finished run comes to, by its last checkpoints: its summary, its files' contents, and its records."""

    summary: dict[str, Any]
    contents: dict[epath.Path, bytes]
    records: dict[epath.Path, list[dict[str, Any]]]


def look_finished(config: RunConfig, jobs: Sequence[Job], log: Callable[[str], None]) -> Finished | None:
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
        early = job.config.stop_after is not None or checkpoints.newest().get("ended")
        may_be = steps and (steps[0] >= job.total_steps or early)
        found = checkpoints.find() if may_be else None
        records = [] if found is None else checkpoints.meta(found["step"])["records"]
        if found is None or not records or not _over(job, found, records):
            break
        if jax.process_index() == 0:
            checkpoints.review(found["step"])
        contents |= {
            home / config_file.NAME: workdir.as_json(found["config"]),
            home / "metrics.jsonl": workdir.as_lines(records),
        }
        plan = plan_file.plan_on(job, type(job.config).from_json(found["config"]))
        contents[home / plan_file.NAME] = plan_file.as_file(plan_file.planned(job, plan))
        if job.about is not None:
            contents[home / about.NAME] = workdir.as_json(job.about.to_json())
        drawn[home] = records
        parts += summaries(job, records, found["params_sha256"], made_on(found))
    else:
        if len(jobs) > 1:
            last = json.loads(contents[workdir.folder_of(jobs[-1].config.workdir) / config_file.NAME])
            contents[folder / config_file.NAME] = workdir.as_json(placed(config, last))
        summary = merge(parts)
        return Finished(summary, {**contents, folder / "summary.json": workdir.as_json(summary)}, drawn)
    path = folder / "summary.json"
    if some or not path.exists():
        return None
    written = _summary_in(folder)
    if written is None:
        log(f"{path} is damaged and is made anew")
        return None
    check_left(config, jobs)
    return Finished(written, {}, {})  # somebody deleted the checkpoints of a run that is done, which takes much room


def check_left(config: RunConfig, jobs: Sequence[Job]) -> None:
    """Refuses what needs the checkpoints of a run that is done, where somebody deleted them.

    Of a run by names its summary is what the same command returns; `localgrad.fit` returns its network as well.

    Raises:
      ValueError: if more epochs are asked for, or the network.
    """
    folder = workdir.folder_of(config.workdir)
    summary = _summary_in(folder)
    if summary is None or any(checkpoints_of(job.config).steps() for job in jobs):
        return
    done = [_steps_of(summary, trial) for trial in range(len(jobs))]
    records = lambda job: workdir.read_records(workdir.folder_of(job.config.workdir) / "metrics.jsonl")
    ends = [
        step == job.total_steps or past_its_best(records(job), job.config.stop_after)
        for job, step in zip(jobs, done, strict=True)
    ]
    if all(ends) and not config_file.is_own(config.to_json()):
        return
    raise ValueError(
        f"{folder} holds a run that ended after {max(done)} batches, and its checkpoints are gone, which held its "
        f"network: there is nothing to go on from. Put {folder / 'checkpoints'} back, or give another --workdir."
    )


def _summary_in(folder: epath.Path) -> dict[str, Any] | None:
    """The summary in a folder; None where there is none, or it is damaged."""
    summary = workdir.read_json(folder / "summary.json")
    return summary if isinstance(summary, dict) and "params_sha256" in summary else None


def _steps_of(summary: dict[str, Any], trial: int) -> int:
    """How many batches a trial of a summary has learnt from."""
    steps = summary["steps"]
    return steps["values"][trial] if isinstance(steps, dict) else steps


def _over(job: Job, found: dict[str, Any], records: list[dict[str, Any]]) -> bool:
    """Whether training ended at a checkpoint: at its last step, for want of a better validation, or by a callback.

    A callback ends a run of as many epochs as were asked for then; more of them go on.
    """
    step = found["step"]
    asked = found.get("ended", False) and found["config"]["epochs"] >= job.config.epochs
    ended = step == records[-1]["step"] and (asked or past_its_best(records, job.config.stop_after))
    return step == job.total_steps or (step < job.total_steps and ended)


def repair(folder: epath.Path, done: Finished, log: Callable[[str], None]) -> None:
    """Gives a finished run the files back that are lost or damaged; touches nothing where there are none."""

    def differs(path: epath.Path, content: bytes) -> bool:
        return not path.exists() or path.read_bytes() != content

    def undrawn(home: epath.Path) -> bool:
        path = home / "curves.png"
        return not path.exists() or not shows_curves(path.read_bytes(), done.records[home])

    for home, records in done.records.items():
        JsonLines(home / workdir.CALLS, log).review(records[-1]["step"])  # which tells of what no one can make again
    wrong = [path for path, content in done.contents.items() if differs(path, content)]
    unseen = [home for home in done.records if undrawn(home)]
    if not wrong and not unseen:
        return
    with owned(folder):
        for path in wrong:
            workdir.renew(path, done.contents[path], log)
        for home in unseen:
            workdir.renew(home / "curves.png", curves(done.records[home]), log)


def placed(config: RunConfig, of_trial: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run of several trials, placed as one of them was."""
    names = ("trials", "seed", "workdir", "grow_from", "begin_from")
    return {**of_trial, **{name: getattr(config, name) for name in names}}
