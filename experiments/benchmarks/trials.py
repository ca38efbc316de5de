"""Whole epochs on the device, shuffled and normalised there: one trial, and several one after another or as one model.

    python -m experiments.benchmarks.trials  # a GPU: 50 epochs are extrapolated
    python -m experiments.benchmarks.trials --nets=two_conv --trials=3 --limit=2560  # two CPU cores, five minutes

Fashion-MNIST, batch 128.  A measurement is one epoch, without evaluation and checkpoints; all take turns.  `loop`
trains trial after trial with one compiled program, `vmap` all of them as one batched model, whose convolutions become
grouped ones: slower on a CPU, and on a GPU what it is worth is the question.  Choose `--trials_by` by the ratio.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from absl import app, flags

from experiments import tables
from experiments.benchmarks import turns
from localgrad.blocks import networks_of
from localgrad.cli import shell
from localgrad.keys import fold_in
from localgrad.methods import METHODS, trial_keys
from localgrad.training import Config, prepare

flags.DEFINE_list("nets", ["two_conv", "vgg8b"], "networks")
flags.DEFINE_list("methods", ["bp", "al", "predsim"], "methods")
flags.DEFINE_integer("trials", 10, "trials of the loop and of the batched model")
flags.DEFINE_integer("epochs", 50, "of a training whose seconds are extrapolated")
flags.DEFINE_integer("limit", None, "training examples")
turns.define_flags(5)
FLAGS = flags.FLAGS

POOLED = ("al", "scl", "early_exit", "predsim", "dgl")


def epoch_of(config: Config, copies: int) -> Callable[[], Any]:
    """A call that trains so many trials for one epoch, each state carried from call to call."""
    job = prepare(config)
    keys = trial_keys(config.seed, job.model.trials)
    begin = lambda: job.engine.load(job.begin.draw(fold_in(keys, 0)), fold_in(keys, 1))
    states = [begin() for _ in range(copies)]
    fed = job.source.batches(0, job.source.steps_per_epoch)

    def run() -> Any:
        found = None
        for i, state in enumerate(states):
            states[i], found = job.engine.run(state, fed)
        return found

    return run


def measured(net: str, method: str) -> dict[str, list[float]]:
    """Seconds an epoch of one trial, of all by loop and of all by vmap, one value a repetition."""
    fields: dict[str, Any] = {
        "net": net, "method": method, "dataset": "digits" if FLAGS.smoke else "fashion_mnist", "limit": FLAGS.limit,
        "batch_size": 128, "method_options": ("pool=1024",) if method in POOLED else (),
    }  # fmt: skip
    if FLAGS.smoke:
        fields |= {"widths": (4, 4, 8), "limit": 256}
    one = Config(**fields)
    programs = {
        "one": epoch_of(one, 1),
        "loop": epoch_of(one, FLAGS.trials),
        "vmap": epoch_of(Config(**fields, trials=FLAGS.trials), 1),
    }
    return turns.in_turns(programs, FLAGS.repetitions)


def main(argv: list[str]) -> int:
    tables.place(FLAGS.out, folder=True)
    for flag, given, known in (("methods", FLAGS.methods, METHODS), ("nets", FLAGS.nets, networks_of("images"))):
        if not given or not set(given) <= set(known):
            return shell.refuse(f"--{flag}={','.join(given)}: there are {', '.join(known)}.")
    if FLAGS.trials < 2:
        return shell.refuse(f"--trials={FLAGS.trials}: a loop and a batch of trials differ from two on.")
    shell.devices(1)
    rows: dict[str, dict[str, Any]] = {}
    for net in FLAGS.nets:
        for method in FLAGS.methods:
            try:
                seconds = measured(net, method)
            except (ValueError, FileNotFoundError) as error:
                return shell.refuse(f"{net} {method}: {error}")
            rows[f"{net} {method}"] = {
                "seconds": seconds,
                "loop_to_vmap": turns.ratio(seconds["loop"], seconds["vmap"]),
                "vmap_to_one": turns.ratio(seconds["vmap"], seconds["one"]),
            }
            shell.say(f"{net} {method}: {np.median(seconds['one']):.2f} s an epoch of one trial")
    median = lambda row, name: float(np.median(row["seconds"][name]))
    cells = [
        [name, f"{median(row, 'one'):.3g}", f"{FLAGS.epochs * median(row, 'one'):.3g}",
         *(f"{FLAGS.epochs * median(row, way):.3g}" for way in ("loop", "vmap")), turns.show(row["loop_to_vmap"])]
        for name, row in rows.items()
    ]  # fmt: skip
    header = [
        "row", "s an epoch", f"s for {FLAGS.epochs} epochs", f"{FLAGS.trials} trials by loop", "by vmap", "loop / vmap",
    ]  # fmt: skip
    note = f"Median of {FLAGS.repetitions} epochs each, in turns; {FLAGS.epochs} epochs are that many times one."
    tables.write("bench_trials", header, cells, {"trials": FLAGS.trials, "epochs": FLAGS.epochs, "rows": rows}, note)
    return 0


if __name__ == "__main__":
    app.run(main)
