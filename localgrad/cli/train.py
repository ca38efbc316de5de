r"""Trains a network with a local learning rule.

    localgrad train --method=al --profile=iclr_head --net=mlp --dataset=digits --stages=4 --epochs=40 \
      --learning_rate=3e-3 --workdir=runs/digits

The same command again resumes where the run stopped.  `--dry_run` prints the plan and stops; it looks at the workdir
only where one is given.  Several processes train one network when each is started with `--coordinator=HOST:PORT
--num_processes=N --process_id=I`, or, where the cluster says those itself (TPU pods, SLURM), with
`--coordinator=auto`.  Without `--method` and `--profile` it is `al` in its form `iclr_head`.
`--compile_for=tpu:v5e:2x4` compiles the pipeline for chips that need not be here, and says what one of them holds and
does.
"""

import jax
from absl import flags

from localgrad.cli import config_flags, shell
from localgrad.machines import compile_for, format_compiled
from localgrad.pipeline import balance, block_seconds, completing_seconds
from localgrad.report import format_ledger, format_seconds
from localgrad.results import write_report
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
from localgrad.training.builders import build_model, on_mesh
from localgrad.training.config_file import saved_plugins
from localgrad.training.inputs import read_inputs
from localgrad.training.memory import check_memory
from localgrad.training.workdir import folder_of

# Of a command that names no method: this form of al learns from the first epoch on, where the method's default form
# spends most of a short run on its codes and is at chance until they are there.
_FIRST_PROFILE = "iclr_head"

FLAGS = flags.FLAGS


def define_flags() -> None:
    """The flags of a run: its configuration's, and what to do instead of training."""
    config_flags.define()
    flags.DEFINE_bool("dry_run", False, "print the plan and stop")
    flags.DEFINE_bool("measure", False, "with --dry_run: what blocks take by the clock, and the --cuts that balance it")
    flags.DEFINE_bool("report", False, "write the page of `localgrad report` into the workdir: report.html")
    flags.DEFINE_string(
        "compile_for",
        None,
        "compile the pipeline for accelerators that need not be here, such as tpu:v5e:2x4, print what a device holds "
        "and does, and stop",
    )
    shell.define_process_flags()


def config_from_flags() -> Config:
    """The configuration that the flags give; a run that is in the workdir already brings its plugins.

    Raises:
      ValueError: for a flag that cannot be.
    """
    values = config_flags.values()
    own = any(pair.partition("=")[0].strip() == "profile" for pair in values["method_options"])
    if not FLAGS["method"].present and values["profile"] is None and not own:
        values["profile"] = _FIRST_PROFILE
    if not FLAGS["plugin"].present and in_a_workdir():
        values["plugin"] = saved_plugins(values["workdir"])
    return Config(**values)


def in_a_workdir() -> bool:
    """Whether the command is of a workdir: a plan is so only where one is given."""
    return not FLAGS.dry_run or bool(FLAGS["workdir"].present)


def compile_only(target: str) -> int:
    """Compiles the run's pipeline for accelerators that need not be here, and prints what a device holds and does."""
    try:
        config = config_from_flags()
        if config.engine in ("sequential", "mpmd"):
            raise ValueError(f"--compile_for is of the pipeline as one program: leave out --engine={config.engine}.")
        if config.replay is not None:
            raise ValueError("--compile_for is of the pipeline: leave out --replay, which has none.")
        jax.config.update("jax_platforms", "cpu")  # an accelerator of this machine has nothing to do with it
        jax.config.update("jax_enable_x64", config.dtype == "float64")
        model = build_model(config, read_inputs(config))
        found = compile_for(model, target, batches=config.batches_per_call, **on_mesh(config))
    except (ValueError, OSError, ImportError) as error:
        return shell.refuse(str(error))
    shell.say(format_compiled(found))
    return 0


def main(argv: list[str]) -> int:
    """Trains, and returns the exit status."""
    if len(argv) > 1:
        return shell.refuse(f"unexpected arguments {argv[1:]}: every option is a --flag=value.")
    if FLAGS.measure and not FLAGS.dry_run:
        return shell.refuse("--measure prints what blocks take by the clock and trains nothing: say --dry_run too.")
    if FLAGS.report and FLAGS.coordinator is not None:
        return shell.refuse("--report is of one process: leave it out, and run `localgrad report WORKDIR` afterwards.")
    if FLAGS.compile_for:
        return compile_only(FLAGS.compile_for)
    try:
        config = config_from_flags()
        count = 1 if config.engine == "sequential" else config.stages * config.data_parallel
        shell.devices(count, x64=config.dtype == "float64")
        jobs = prepare_all(config, resume=in_a_workdir())
        for job in () if FLAGS.dry_run else jobs:  # a plan may be of another machine
            check_memory(job.model, job.config)
    except (ValueError, OSError, ImportError) as error:
        return shell.refuse(str(error))
    if FLAGS.dry_run:
        shell.say(format_ledger(make_ledger(jobs[0])))
        if FLAGS.measure:
            model = jobs[0].model
            seconds, completing = block_seconds(model), completing_seconds(model)
            shell.say("\n" + format_seconds(model, seconds, balance(seconds, config.stages), completing))
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
        shell.say(format_summary(summary, config.workdir, jobs[0].model.task))
    return _page(config.workdir) if FLAGS.report else 0


def _page(workdir: str) -> int:
    """Writes the page of a run that is done into its workdir, and returns the exit status."""
    try:
        write_report(workdir, folder_of(workdir) / "report.html", command=shell.command_line(), log=shell.say)
    except (ValueError, OSError, ImportError) as error:
        return shell.refuse(f"the run is done, and its page could not be made: {error}", code=1)
    return 0
