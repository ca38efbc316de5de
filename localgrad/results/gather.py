"""From the folder of a run to the facts that a page shows of it."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax

from localgrad.data import Dataset
from localgrad.report.facts import Run
from localgrad.results.epochs import epochs_of
from localgrad.results.measure import THRESHOLDS, measure
from localgrad.results.opened import Given, Opened, open_given, open_run
from localgrad.results.seen import seen
from localgrad.training import Config, prepare, read_config
from localgrad.training.checkpoint_reader import CheckpointReader
from localgrad.training.command import command_of
from localgrad.training.config_file import config_of, is_own, saved_config
from localgrad.training.plan_file import Planned, plan_on, planned, read_planned
from localgrad.training.run_config import RunConfig
from localgrad.training.workdir import folder_of, read_json, read_records


def gather(
    workdir: str,
    name: str,
    *,
    given: Given | None = None,
    evaluate: bool = True,
    alignment: bool = False,
    log: Callable[[str], None] = print,
) -> Run:
    """Reads a run: its records, its configuration, and, where its data are there, its network.

    What cannot be read besides the records is left out, and a note says why.

    Args:
      workdir: its folder; of several trials that of all.
      name: what the page calls it.
      given: of a run of `localgrad.fit`, its model and examples to predict on.
      evaluate: predict on the test split: exits, the curve of leaving early, confusion and worst examples.
      alignment: compare each block's update with the true gradient as well.
      log: takes a line for each checkpoint that cannot be used.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: it has no records yet, or is of another version; what is given is not of it.
    """
    folder = folder_of(workdir)
    saved = saved_config(workdir)
    if saved is None:
        path = folder / "config.json"
        if not path.exists():
            raise FileNotFoundError(f"{workdir} is not the workdir of a run: it has no config.json.")
        raise ValueError(f"{path} is damaged, and no checkpoint says what it was: the same command again mends it.")
    run = _recorded(workdir, name, saved)
    if is_own(saved):
        return _own(run, given, evaluate, alignment, log)
    if given is not None:
        raise ValueError(f"{workdir} is a run that names its model: give None in place of one.")
    return _named(run, evaluate, alignment, log)


def _recorded(workdir: str, name: str, saved: dict[str, Any]) -> Run:
    """A run with what it wrote."""
    config = config_of(saved)
    home = _homes(config, workdir)[0]
    epochs = epochs_of([_records(each) for each in _homes(config, workdir)])
    if epochs is None:
        raise ValueError(f"{workdir} has no records of an epoch: let the run reach the end of its first one.")
    summary = read_json(folder_of(workdir) / "summary.json")
    summary = summary if isinstance(summary, dict) else {}
    again = command_of(config) if isinstance(config, Config) else _call(config)
    notes = () if summary else ("The run is not finished: it has no summary.",)
    run = Run(name, workdir, saved, again, _versions(summary, home), epochs, summary, notes=notes)
    known = read_planned(folder_of(home))
    return run if known is None else _with(run, known)


def _own(run: Run, given: Given | None, evaluate: bool, alignment: bool, log: Callable[[str], None]) -> Run:
    """A run of `localgrad.fit` with what its network shows, if that is given."""
    if given is None:
        without = "" if run.ledger is not None else ", without ledger and timeline"
        return _noted(
            run,
            "The model was given to localgrad.fit in a program, and there are no names to make it of: what is shown is "
            f"what the run wrote{without}, and nothing is predicted anew. localgrad.write_report shows more, given the "
            "model and examples.",
        )
    trials = config_of(run.config).trials  # type: ignore[attr-defined]  # of both kinds
    return _looked_at(run, open_given(run.workdir, given, log), trials, alignment) if evaluate else run


def _named(run: Run, evaluate: bool, alignment: bool, log: Callable[[str], None]) -> Run:
    """A run with what its network shows, which is made again by its names."""
    config = Config.from_json(run.config)
    home = _homes(config, run.workdir)[0]
    with jax.enable_x64(config.dtype == "float64"):
        try:
            job = prepare(read_config(home), resume=False)
            if run.ledger is None:
                run = _with(run, planned(job, plan_on(job, Config.from_json(saved_config(home) or run.config))))
        except (ValueError, OSError, ImportError) as error:
            without = "" if run.ledger is not None else ", without ledger and timeline"
            return _noted(run, f"The network could not be made again, so that nothing is predicted{without}: {error}")
        try:
            return _looked_at(run, open_run(job, log), config.trials, alignment) if evaluate else run
        except (ValueError, OSError, ImportError) as error:
            return _noted(run, f"The trained network could not be read: {error}")


def _looked_at(run: Run, opened: Opened, trials: int, alignment: bool) -> Run:
    """A run with what its trained network shows."""
    several = len(opened.model.exits) > 1 and "validation" in opened.splits
    early = THRESHOLDS if several and opened.leaves_early else ()
    test = opened.splits["test"]
    run = run._replace(
        measured=measure(opened, alignment=alignment, thresholds=early),
        seen=seen(opened.scores[-1], test) if opened.leaves_early and isinstance(test, Dataset) else None,
    )
    first = "What is evaluated on the test split is the network of the first trial."
    return _noted(run, first) if trials > 1 else run


def _noted(run: Run, note: str) -> Run:
    return run._replace(notes=(*run.notes, note))


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
    """A run with what is known of it without a number that it computed; of one that ended early, what it came to."""
    percent = known.percent.get(run.epochs.score, run.epochs.percent)
    return run._replace(
        blocks=known.blocks,
        exits=known.exits,
        plan=known.plan,
        ledger=known.ledger,
        batches=max(run.epochs.steps) if run.summary else known.batches,
        epochs=run.epochs._replace(percent=percent),
    )
