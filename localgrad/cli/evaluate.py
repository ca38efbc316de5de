"""What the exits of trained networks give and cost, and what leaving early saves.

    localgrad evaluate --workdir=runs/digits --exits --anytime
    localgrad evaluate --workdir=runs/one,runs/another --anytime --out=exits

Reads the newest checkpoint of each run of `localgrad train`, and writes OUT.json and, with `--anytime`, OUT.png; OUT
is `evaluation` in the workdir, if there is one workdir.

- `--exits`: accuracy (of another task its first score), FLOPs and latency at every exit; exits take turns, and latency
  is the median.
- `--alignment`: for each block the cosine of its own update with the true gradient of the network's loss, and of its
  feedback with what it stands for, all of one training step on a batch of the test split: the same batch statistics and
  the same dropout.  Of backpropagation's update it is 1.
- `--probes`: for each block the test accuracy of a linear classifier on its features, fitted on the training split, so
  that blocks without an exit are seen too.
- `--anytime`: accuracy against FLOPs where an example leaves at the first exit whose calibrated confidence passes a
  threshold.  Temperatures are fitted on the validation split, accuracy is that of the test split.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from localgrad.cli import shell
from localgrad.evaluation.alignment import aligner
from localgrad.evaluation.exits import anytime, anytime_flops, collect, measure_exits, temperatures
from localgrad.evaluation.probes import linear_probe
from localgrad.report import draw_anytime, table
from localgrad.training import Config, prepare, read_config, restore
from localgrad.training.workdir import write_json

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Which runs, and what to look at."""
    flags.DEFINE_list("workdir", None, "folders of runs", required=True)
    flags.DEFINE_bool("exits", True, "accuracy, FLOPs and latency at every exit")
    flags.DEFINE_bool("alignment", False, "cosine of each block's update with the true gradient")
    flags.DEFINE_bool("probes", False, "accuracy of a linear classifier on each block's features")
    flags.DEFINE_bool("anytime", False, "the curve of leaving early")
    flags.DEFINE_list("thresholds", "0,0.5,0.7,0.8,0.9,0.95,0.98,0.99,0.999,1.1", "confidences of leaving early")
    flags.DEFINE_string("out", None, "path of the files to write, without .json and .png")
    shell.define_process_flags()


def evaluate(config: Config, thresholds: list[float]) -> dict[str, Any]:
    """Everything that was asked for of one run, printed and returned."""
    job = prepare(config, resume=False)
    saved = restore(job.specs, config.workdir)
    model, states = job.model, saved.states
    if FLAGS.anytime and (model.task.classes is None or model.task.per_token):
        raise ValueError(
            f"--anytime leaves at the first exit that is sure of a class, and {config.dataset} is for "
            f"{model.task.name}: leave it out."
        )
    scores, labels = collect(model, states, job.eval_batches("test"))
    x, y, mask = next(iter(job.eval_batches("test")))
    x, y = x[mask], y[mask]
    result: dict[str, Any] = {"workdir": config.workdir, "method": config.method, "step": saved.step, "batch": len(x)}
    shell.say(f"{config.workdir}: {config.method} on {config.net}, {config.dataset}, after {saved.step} batches")
    if FLAGS.exits or FLAGS.anytime:
        rows = measure_exits(model, states, scores, labels, x)
        name, score = next(iter(model.task.scores.items()))
        result["exits"] = [{name if key == "score" else key: v for key, v in row._asdict().items()} for row in rows]
        form = ".2f" if score.percent else ".4g"
        cells = [
            [row.exit, model.blocks[row.exit - 1].name, f"{row.score:{form}}", f"{row.flops / 1e6:.3f}",
             f"{1e3 * row.seconds:.2f}"]
            for row in rows
        ]  # fmt: skip
        shell.say(
            table(
                ["exit", "block", f"test {name.replace('_', ' ')}", "MFLOP an example", f"ms a batch of {len(x)}"],
                cells,
            )
        )
    if FLAGS.alignment:
        found = aligner(model)(states, x, y)
        result["cosine"], result["projection_cosine"] = found["update"], found["projection"]
        result["weight_cosine"] = found["weights"]
        shown = {
            "update and true gradient": result["cosine"],
            "a B^T and output": result["projection_cosine"],
            "B^T and weights": result["weight_cosine"],
        }
        shown = {name: values for name, values in shown.items() if set(values) != {None}}
        cells = [
            [i + 1, block.name, *("" if values[i] is None else f"{values[i]:.3f}" for values in shown.values())]
            for i, block in enumerate(model.blocks)
        ]
        shell.say(table(["block", "cosine of", *shown], cells))
    if FLAGS.probes:
        result["probes"] = linear_probe(model, states, job.eval_batches("train"), job.eval_batches("test"))
        cells = [[i, name, f"{found:.2f}"] for i, (name, found) in enumerate(result["probes"].items(), 1)]
        shell.say(table(["place", "probe of", "test accuracy %"], cells))
    if FLAGS.anytime:
        fitted = temperatures(*collect(model, states, job.eval_batches("validation")))
        curve = anytime(scores, labels, fitted, anytime_flops(model, states, x), thresholds)
        result |= {"temperatures": fitted.tolist(), "anytime": [row._asdict() for row in curve]}
        cells = [
            [row.threshold, f"{row.accuracy:.2f}", f"{row.flops / 1e6:.3f}", " ".join(f"{s:.0%}" for s in row.shares)]
            for row in curve
        ]
        shell.say(table(["threshold", "test accuracy %", "MFLOP an example", "leave at exit"], cells))
    return result


def checked() -> tuple[list[Config], list[float], Path]:
    """The configurations of the runs, the thresholds and the path to write.

    Raises:
      ValueError, FileNotFoundError: for a flag that cannot be, or a workdir without a run.
    """
    configs = [read_config(folder) for folder in FLAGS.workdir]
    for config in configs:
        if config.trials > 1:
            raise ValueError(f"{config.workdir} holds {config.trials} trials; give the workdir of one of them.")
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
    return configs, thresholds, Path(FLAGS.out or Path(FLAGS.workdir[0]) / "evaluation")


def main(argv: list[str]) -> int:
    """Evaluates, and returns the exit status."""
    if len(argv) > 1:
        return shell.refuse(f"unexpected arguments {argv[1:]}: every option is a --flag=value.")
    try:
        configs, thresholds, out = checked()
        shell.devices(1, x64=configs[0].dtype == "float64")
        results = [evaluate(config, thresholds) for config in configs]
        save(results, out)
    except (ValueError, OSError, ImportError) as error:
        return shell.refuse(str(error))
    return 0


def save(results: list[dict[str, Any]], out: Path) -> None:
    """Writes what was found, and draws the curves."""
    write_json(out.with_suffix(".json"), {"command": shell.command_line(), "runs": results})
    if FLAGS.anytime:
        draw_anytime([(result["method"], result) for result in results], out.with_suffix(".png"))
        curves = [np.array([row["flops"] for row in result["anytime"]]) for result in results]
        saved = max(1 - curve.min() / curve[-1] for curve in curves)
        shell.say(f"leaving early saves at most {saved:.0%} of the FLOPs")
    shell.say(f"wrote {out.with_suffix('.json')}" + (" and .png" if FLAGS.anytime else ""))
