r"""Trains a network with a local learning rule.

    localgrad train --method=al --profile=iclr_head --net=mlp --dataset=digits --stages=4 --epochs=40 \
      --learning_rate=3e-3 --workdir=runs/digits

The same command again resumes where the run stopped.  `--dry_run` prints the plan and stops.  Several processes train
one network when each is started with `--coordinator=HOST:PORT --num_processes=N --process_id=I`, or, where the cluster
says those itself (TPU pods, SLURM), with `--coordinator=auto`.  Without `--method` and `--profile` it is `al` in its
form `iclr_head`.
"""

import dataclasses
from typing import Any

from absl import flags

from localgrad.cli import shell
from localgrad.pipeline import balance, block_seconds
from localgrad.report import format_ledger, format_seconds
from localgrad.training import (
    Config,
    DivergedError,
    Interrupted,
    InUseError,
    format_summary,
    make_ledger,
    prepare_all,
    run,
)
from localgrad.training.memory import check_memory
from localgrad.training.options import rejoined

# Of a command that names no method: this form of al learns from the first epoch on, where the method's default form
# spends most of a short run on its codes and is at chance until they are there.
_FIRST_PROFILE = "iclr_head"
_DEFAULTS: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(Config)}
_SAYS = shell.attribute_docs(Config)

for _name in (
    "method", "profile", "net", "activation", "dataset", "data_dir", "optimizer", "schedule", "trials_by", "dtype",
    "workdir", "grow_from", "engine", "staleness", "decay_on", "feedback_optimizer", "feedback_schedule",
    "word_vectors",
):  # fmt: skip
    flags.DEFINE_string(_name, _DEFAULTS[_name], _SAYS[_name])
for _name in (
    "target_width", "limit", "batch_size", "epochs", "seed", "trials", "stages", "data_parallel", "batches_per_call",
    "checkpoint_every_steps", "frozen", "micro_batches", "max_length", "vocabulary",
):  # fmt: skip
    flags.DEFINE_integer(_name, _DEFAULTS[_name], _SAYS[_name])
for _name in (
    "dropout",
    "learning_rate",
    "weight_decay",
    "clip_norm",
    "label_noise",
    "feedback_learning_rate",
    "feedback_weight_decay",
):
    flags.DEFINE_float(_name, _DEFAULTS[_name], _SAYS[_name])
for _name in ("norm", "resident", "decay_times_rate", "new_delays"):
    flags.DEFINE_bool(_name, _DEFAULTS[_name], _SAYS[_name])
for _name in ("widths", "blocks", "bridge", "cuts", "augment", "method_options", "net_options"):
    flags.DEFINE_list(_name, _DEFAULTS[_name], _SAYS[_name])
flags.DEFINE_bool("dry_run", False, "print the plan and stop")
flags.DEFINE_bool("measure", False, "with --dry_run: what blocks take by the clock, and the --cuts that balance it")
shell.define_process_flags()
FLAGS = flags.FLAGS


def config_from_flags() -> Config:
    """The configuration that the flags give; a list flag is a tuple of whole numbers, or of texts.

    Raises:
      ValueError: for a list flag that is not of whole numbers, or a field out of range.
    """
    values: dict[str, Any] = {name: FLAGS[name].value for name in _DEFAULTS}
    for name in ("widths", "blocks", "bridge", "cuts"):
        try:
            values[name] = None if values[name] is None else tuple(map(int, values[name]))
        except ValueError:
            given = ",".join(values[name])
            raise ValueError(f"--{name} is a list of whole numbers such as 64,32; got {given!r}.") from None
    values["augment"] = tuple(values["augment"])
    for name in ("method_options", "net_options"):
        values[name] = rejoined(values[name])
    if not FLAGS["method"].present and values["profile"] is None:
        values["profile"] = _FIRST_PROFILE
    return Config(**values)


def main(argv: list[str]) -> int:
    """Trains, and returns the exit status."""
    if len(argv) > 1:
        return shell.refuse(f"unexpected arguments {argv[1:]}: every option is a --flag=value.")
    if FLAGS.measure and not FLAGS.dry_run:
        return shell.refuse("--measure prints what blocks take by the clock and trains nothing: say --dry_run too.")
    try:
        config = config_from_flags()
        count = 1 if config.engine == "sequential" else config.stages * config.data_parallel
        shell.devices(count, x64=config.dtype == "float64")
        jobs = prepare_all(config)
        for job in () if FLAGS.dry_run else jobs:  # a plan may be of another machine
            check_memory(job.model, config.stages)
    except (ValueError, OSError, ImportError) as error:
        return shell.refuse(str(error))
    if FLAGS.dry_run:
        shell.say(format_ledger(make_ledger(jobs[0])))
        if FLAGS.measure:
            seconds = block_seconds(jobs[0].model)
            shell.say("\n" + format_seconds(jobs[0].model, seconds, balance(seconds, config.stages)))
        return 0
    try:
        summary = run(config, jobs, shell.say)
    except DivergedError as error:
        return shell.refuse(f"{error}. {' '.join(error.__notes__)}", code=1)
    except InUseError as error:
        return shell.refuse(str(error))
    except OSError as error:  # the disk is full, say
        return shell.refuse(f"{error}. What was saved is as it was; the same command goes on from there.", code=1)
    except Interrupted as stop:
        shell.say(f"{stop}; saved. To go on, run the same command again:\n  {shell.command_line()}")
        return 128 + stop.signum
    if summary:
        shell.say(format_summary(summary, config.workdir))
    return 0
