"""A job, carried out: from the newest sound checkpoint of its workdir to its end."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from localgrad.base import BlockState, DivergedError
from localgrad.prediction import about
from localgrad.training import config_file, plan_file, workdir
from localgrad.training.job import Job, check_still
from localgrad.training.lock import owned
from localgrad.training.loop import Loop, versions
from localgrad.training.records import curves, made_on, steady_rate


class Outcome(NamedTuple):
    """A finished run: the states of its blocks, its records, the rate of training, and what made its last states."""

    states: tuple[BlockState, ...]
    records: list[dict[str, Any]]
    examples_per_sec: float
    made_on: dict[str, Any]  # stages and versions, as the last checkpoint has them


def run_job(job: Job, log: Callable[[str], None] = print) -> Outcome:
    """Trains to the end, from the newest sound checkpoint of the workdir if there is one.

    Args:
      job: the run.
      log: takes a line of text for the user.

    Returns:
      An `Outcome`.

    Raises:
      Interrupted: after a SIGTERM or Ctrl-C, with everything saved; signals reach the main thread only.
      DivergedError: if a loss is not finite, with the state before that batch saved.
      InUseError: if another process trains in the workdir.
      SaveError, OSError: if something cannot be written; what was saved is as it was, and the same call goes on.
    """
    folder = workdir.folder_of(job.config.workdir)
    workdir.check_folder(folder)
    if jax.process_index() != 0:
        return train(job, log)
    workdir.make_folder(folder)
    with owned(folder):
        check_still(job.config, [job])
        return train(job, log)


def train(job: Job, log: Callable[[str], None]) -> Outcome:
    """`run_job`, in a workdir that is this run's own."""
    folder = workdir.folder_of(job.config.workdir)
    main = jax.process_index() == 0
    told = config_file.replace(folder, job.config.to_json()) if main else ""
    run = Loop(job, log if main else lambda line: None)
    try:
        position, meta, found = run.start()
        run.records += meta.get("records", [])
        if position.step:
            log(f"resuming {folder} at batch {position.step} of {job.total_steps}")
        elif run.checkpoints.steps():
            log(f"beginning {folder} again at batch 0")
        if job.config.trace is not None and position.step >= job.config.trace[1]:
            log(f"the batches of trace={','.join(map(str, job.config.trace))} are done already: nothing is traced")
        if main:
            for line in () if position.step else job.begin.notes:
                log(line)
            run.checkpoints.review(position.step)
            if told:
                log(told)
            workdir.restore_records(run.records_path, run.records, log)
            say = log if position.step else lambda line: None  # the first beginning makes them, and says nothing
            plan_file.keep(folder, plan_file.as_file(plan_file.planned(job, job.engine.plan)), say)
            if job.about is not None:
                workdir.renew(folder / about.NAME, workdir.as_json(job.about.to_json()), say)
        run.telling.open(position.step, {"versions": versions()})
        position, states = run.to_the_end(position, meta.get("seconds", 0.0))
        if states is None:  # killed between the last checkpoint and the summary
            states, made = run.settle(position), made_on(found)
        else:
            made = made_on(run.facts)
    except DivergedError as error:
        raise run.rescue(error) from None
    finally:
        run.close()
    if main:
        workdir.write_bytes(folder / "curves.png", curves(run.records))
    return Outcome(states, run.records, steady_rate(run.records), made)
