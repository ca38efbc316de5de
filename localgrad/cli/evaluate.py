"""What the exits of trained networks give and cost, and what leaving early saves.

    localgrad evaluate --workdir=runs/digits --exits --anytime
    localgrad evaluate --workdir=runs/one,runs/another --anytime --out=exits

Reads the newest checkpoint of each run of `localgrad train`, and writes OUT.json and, with `--anytime`, OUT.png; OUT
is `evaluation` in the workdir, if there is one workdir.  Of trials that were trained as one model `--trial` says which.

- `--exits`: accuracy (of another task its first score), FLOPs and latency at every exit; exits take turns, and latency
  is the median.
- `--alignment`: for each block the cosine of its own update with the true gradient of the network's loss, and of its
  feedback with what it stands for, all of one training step on a batch of the test split: the same batch statistics and
  the same dropout.  Of backpropagation's update it is 1.
- `--probes`: for each block the test accuracy of a linear classifier on its features, fitted on the training split, so
  that blocks without an exit are seen too; and beside it the floors: that of the network as it is drawn, and of the
  inputs themselves.
- `--anytime`: accuracy against FLOPs where an example leaves at the first exit whose calibrated confidence passes a
  threshold.  Temperatures are fitted on the validation split, accuracy is that of the test split.
"""

import math
from typing import Any

import jax
from absl import flags
from etils import epath

from localgrad.cli import shell
from localgrad.evaluation.probes import linear_probe, probe_floors
from localgrad.report import draw_anytime, form_of, table, unit_of
from localgrad.results import THRESHOLDS, leaves_early, measure, open_run
from localgrad.training import Config, Job, prepare, read_config
from localgrad.training.workdir import check_parent, folder_of, write_json

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Which runs, and what to look at."""
    flags.DEFINE_list("workdir", None, "folders of runs", required=True)
    flags.DEFINE_bool("exits", True, "accuracy, FLOPs and latency at every exit")
    flags.DEFINE_bool("alignment", False, "cosine of each block's update with the true gradient")
    flags.DEFINE_bool(
        "probes",
        False,
        "accuracy of a linear classifier on each block's features, and on untrained ones and the inputs",
    )
    flags.DEFINE_bool("anytime", False, "the curve of leaving early")
    flags.DEFINE_list("thresholds", ",".join(map(str, THRESHOLDS)), "confidences of leaving early")
    flags.DEFINE_integer("trial", None, "which of several trials that were trained as one model, from 0")
    flags.DEFINE_string("out", None, "path of the files to write, without .json and .png")


def opened(config: Config) -> Job:
    """The run of a configuration, of which what is asked for can be found, as far as can be told before predicting.

    Raises:
      ValueError, FileNotFoundError: it cannot, or as `prepare`.
    """
    job = prepare(config, resume=False)
    if FLAGS.anytime and not leaves_early(job.model):
        raise ValueError(
            f"--anytime leaves at the first exit that is sure of a class, and {config.dataset} is for "
            f"{job.model.task.name}: leave it out."
        )
    return job


def evaluate(job: Job, config: Config, thresholds: list[float]) -> dict[str, Any]:
    """Everything that was asked for of one run, printed and returned."""
    run = open_run(job, trial=FLAGS.trial or 0)
    model, task = run.model, run.model.task
    early = thresholds if FLAGS.anytime else []
    result: dict[str, Any] = {"workdir": config.workdir, "method": config.method, "step": run.step, "batch": len(run.x)}
    result |= {} if FLAGS.trial is None else {"trial": FLAGS.trial}
    result |= measure(run, exits=FLAGS.exits, alignment=FLAGS.alignment, thresholds=early)
    names = [block.name for block in model.blocks]
    shell.say(f"{config.workdir}: {config.method} on {config.net}, {config.dataset}, after {run.step} batches")
    if "exits" in result:
        name, score = next(iter(task.scores.items()))
        form = form_of(score.percent)
        cells = [
            [row["exit"], names[row["exit"] - 1], f"{row[name]:{form}}", f"{row['flops'] / 1e6:.3f}",
             f"{1e3 * row['seconds']:.2f}"]
            for row in result["exits"]
        ]  # fmt: skip
        words = f"test {name.replace('_', ' ')}{unit_of(score.percent)}"
        shell.say(table(["exit", "block", words, "MFLOP an example", f"ms a batch of {len(run.x)}"], cells))
    if FLAGS.alignment:
        shown = {
            "update and true gradient": result["cosine"],
            "a B^T and output": result["projection_cosine"],
            "B^T and weights": result["weight_cosine"],
        }
        shown = {name: values for name, values in shown.items() if set(values) != {None}}
        cells = [
            [i + 1, block, *("" if values[i] is None else f"{values[i]:.3f}" for values in shown.values())]
            for i, block in enumerate(names)
        ]
        shell.say(table(["block", "cosine of", *shown], cells))
    if FLAGS.probes:
        splits = run.batches("train"), run.batches("test")
        result["probes"] = linear_probe(model, run.states, *splits)
        result["probe_floors"] = floors = probe_floors(model, jax.random.key(config.seed + (FLAGS.trial or 0)), *splits)
        cells = [
            [name, f"{result['probes'][name]:.2f}" if name in result["probes"] else "", f"{floor:.2f}"]
            for name, floor in floors.items()
        ]
        shell.say(table(["probe of", "test accuracy %", "untrained"], cells))
    if FLAGS.anytime:
        cells = [
            [row["threshold"], f"{row['accuracy']:.2f}", f"{row['flops'] / 1e6:.3f}",
             " ".join(f"{share:.0%}" for share in row["shares"])]
            for row in result["anytime"]
        ]  # fmt: skip
        shell.say(table(["threshold", "test accuracy %", "MFLOP an example", "leave at exit"], cells))
    return result


def checked() -> tuple[list[Config], list[float], epath.Path]:
    """The configurations of the runs, the thresholds and the path to write.

    Raises:
      ValueError, FileNotFoundError: for a flag that cannot be, or a workdir without a run.
    """
    if not FLAGS.workdir:
        raise ValueError("--workdir= names no folder: give that of a run, or those of several with commas between.")
    configs = [read_config(folder) for folder in FLAGS.workdir]
    for config in configs:
        check_trial(config, FLAGS.trial)
        if config.dtype != configs[0].dtype:
            raise ValueError("the runs have different --dtype; evaluate them one by one.")
    if len(configs) > 1 and FLAGS.out is None:
        raise ValueError("several workdirs: say with --out where to write.")
    try:
        thresholds = sorted(map(float, FLAGS.thresholds))
        finite = thresholds and all(map(math.isfinite, thresholds))
    except ValueError:
        finite = False
    if not finite:
        raise ValueError(f"--thresholds is a list of finite numbers; got {','.join(FLAGS.thresholds)!r}.")
    return configs, thresholds, place_of(FLAGS.out, FLAGS.workdir[0])


def check_trial(config: Config, trial: int | None) -> None:
    """Refuses a run of several trials of which none is chosen, or one that there is not.

    Raises:
      ValueError: saying how to choose.
    """
    several, count = config.trials > 1, config.trials
    if several and config.trials_by == "loop":
        one = folder_of(config.workdir) / "trial0"
        raise ValueError(f"{config.workdir} holds {count} trials; give the workdir of one of them, such as {one}.")
    if several and (trial is None or not 0 <= trial < count):
        raise ValueError(f"{config.workdir} holds {count} trials: choose one, --trial=0 to --trial={count - 1}.")
    if trial is not None and not several:
        raise ValueError(f"{config.workdir} holds one network and no trials: leave out --trial={trial}.")


def place_of(out: str | None, workdir: str) -> epath.Path:
    """The path of the files to write without their endings, looked at before anything is worked out.

    Raises:
      ValueError: its folder is not there.
    """
    if out is None:
        return folder_of(workdir) / "evaluation"
    check_parent(out)
    return folder_of(out.removesuffix(".json").removesuffix(".png"))


def main(argv: list[str]) -> int:
    """Evaluates, and returns the exit status."""
    if len(argv) > 1:
        return shell.refuse(f"unexpected arguments {argv[1:]}: every option is a --flag=value.")
    try:
        configs, thresholds, out = checked()
        shell.own_devices(1, x64=configs[0].dtype == "float64")
        jobs = [opened(config) for config in configs]
        results = [evaluate(*each, thresholds) for each in zip(jobs, configs, strict=True)]
        save(results, out)
    except (ValueError, OSError, ImportError) as error:
        return shell.refuse(str(error))
    return 0


def save(results: list[dict[str, Any]], out: epath.Path) -> None:
    """Writes what was found, and draws the curves."""
    write_json(epath.Path(f"{out}.json"), {"command": shell.command_line(), "runs": results})
    if FLAGS.anytime:
        draw_anytime([(result["method"], result) for result in results], epath.Path(f"{out}.png"))
        saved = max(map(most_saved, results))
        most = f"saves at most {saved:.0%}" if saved > 0 else f"saves nothing, it costs at least {-saved:.0%} more"
        shell.say(f"leaving early {most} of the FLOPs of the last exit alone")
    shell.say(f"wrote {out}.json" + (" and .png" if FLAGS.anytime else ""))


def most_saved(result: dict[str, Any]) -> float:
    """The largest share of the FLOPs of the last exit alone that a threshold does without; below 0 where all cost more.

    Those who leave late have tried the exits before, which cost something too.

    Examples:
      >>> most_saved({"anytime": [{"flops": 82.0}, {"flops": 90.0}], "exits": [{"flops": 50.0}, {"flops": 100.0}]})
      0.18
    """
    return round(1 - min(row["flops"] for row in result["anytime"]) / result["exits"][-1]["flops"], 6)
