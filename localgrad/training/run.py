"""A run from its configuration to its summary."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from etils import epath

from localgrad.report import params_sha256
from localgrad.training import config_file, workdir
from localgrad.training.carried_out import run_job, train
from localgrad.training.config import Config
from localgrad.training.finished import check_left, look_finished, placed, repair
from localgrad.training.job import Job, check_still, check_workdir, prepare
from localgrad.training.lock import owned
from localgrad.training.records import by_trial
from localgrad.training.run_config import RunConfig
from localgrad.training.summary import merge, summaries


def prepare_all(config: Config, *, resume: bool = True) -> list[Job]:
    """The jobs of a run: one, or one a trial where trials are trained one after another.

    Args:
      config: the run.
      resume: as for `prepare`.

    Raises:
      ValueError, FileNotFoundError: as `prepare`, before any compilation; or the checkpoints that the run would go on
        from were deleted.
    """
    if resume:
        check_workdir(config)
    jobs = _prepared(config, resume)
    if resume:
        check_left(config, jobs)
    return jobs


def _prepared(config: Config, resume: bool) -> list[Job]:
    if config.trials == 1 or config.trials_by == "vmap":
        return [prepare(config, resume=resume)]
    return [
        prepare(
            dataclasses.replace(
                config,
                trials=1,
                seed=config.seed + trial,
                workdir=str(workdir.folder_of(config.workdir) / f"trial{trial}"),
                grow_from=_of_trial(config.grow_from, trial),
                begin_from=_of_trial(config.begin_from, trial),
            ),
            resume=resume,
        )
        for trial in range(config.trials)
    ]


def run(config: RunConfig, jobs: Sequence[Job], log: Callable[[str], None] = print) -> dict[str, Any]:
    """Trains, evaluates and writes the workdir; the same call again resumes, or returns the summary of what is done.

    Args:
      config: the run.
      jobs: what `prepare_all` made of it.
      log: takes a line of text for the user.

    Returns:
      The object of `summary.json`; of several processes only the first has the records and returns it, the others {}.

    Raises:
      Interrupted, DivergedError, InUseError, OSError: as `run_job`.
    """
    folder, log = workdir.folder_of(config.workdir), _once(log)
    workdir.check_folder(folder)
    main = jax.process_index() == 0
    done = look_finished(config, jobs, log)
    if done is not None:
        if main:
            repair(folder, done, log)
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
            told = config_file.replace(folder, placed(config, jobs[0].config.to_json()))
            if told:
                log(told)
        outcomes = [train(job, log) if alone else run_job(job, log) for job in jobs]
        parts = []
        for job, outcome in zip(jobs, outcomes, strict=True):
            digests = [params_sha256(states) for states in by_trial(outcome.states, job.model.trials)]
            parts += summaries(job, outcome.records, digests, outcome.made_on)
        summary = merge(parts)
        workdir.write_json(folder / "summary.json", summary)
    return summary


def _of_trial(workdir: str | None, trial: int) -> str | None:
    """The workdir of a trial within that of a run, where there is one."""
    return None if workdir is None else str(epath.Path(workdir) / f"trial{trial}")


def _once(log: Callable[[str], None]) -> Callable[[str], None]:
    """Says each line once: a damaged checkpoint is met by whoever asks whether the run is done, and by the run."""
    said: set[str] = set()

    def say(line: str) -> None:
        if line not in said:
            said.add(line)
            log(line)

    return say
