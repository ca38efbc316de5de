"""Time of an epoch against the number of blocks, one block a device: the papers' O(n + l) against O(n l).

Equal blocks of Associated Learning.  Measured: unpipelined on one core, at every depth; the pipeline at one and two
blocks, in as many processes of one core each, from empty to empty, for several numbers of batches n.  The line through
the times at two blocks has a slope, the tick, and an intercept, which the law says is (l - 1) ticks.  Modelled:
(n + l - 1) ticks at more blocks than there are cores, with the tick measured at two.  That so many ticks are what it
takes is counted: the same program on virtual devices, up to 32, with blocks of no size.

    python -m experiments.benchmarks.depth

Hardware: two cores.  Figures: experiments/results/bench_depth.md; ten minutes.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from experiments import tables
from experiments.benchmarks import pinned, turns
from localgrad import al, init, mlp, sequential, spmd
from localgrad.base import Batches, Engine, Model
from localgrad.cli import shell
from localgrad.data import batches

flags.DEFINE_list("depths", ["1", "2", "4", "8", "16", "32"], "numbers of blocks l")
flags.DEFINE_list("lengths", ["4", "8", "16", "32"], "numbers of batches n at two blocks; the last is that of all else")
flags.DEFINE_integer("width", 768, "width of every block")
flags.DEFINE_integer("batch_size", 512, "examples a batch")
turns.define_flags(7)
pinned.define_flags()
FLAGS = flags.FLAGS

CLASSES = 10


def depths() -> list[int]:
    return [1, 2, 4] if FLAGS.smoke else [int(depth) for depth in FLAGS.depths]


def lengths() -> list[int]:
    return [2, 4] if FLAGS.smoke else [int(length) for length in FLAGS.lengths]


def make_model(depth: int, width: int, batch: int) -> Model:
    """Blocks that are all one program: the target side has the width of the labels."""
    spec = jax.ShapeDtypeStruct((batch, width), jnp.float32)
    tx = optax.adam(1e-3)
    return al(mlp((width,) * depth), spec, CLASSES, tx=tx, profile="neco", bridge=(), target_width=CLASSES)


def sized(depth: int) -> Model:
    return make_model(depth, *((16, 8) if FLAGS.smoke else (FLAGS.width, FLAGS.batch_size)))


def examples(model: Model, count: int, bubbles: int) -> Batches:
    """`count` batches and then as many empty ones as it takes to drain a pipeline."""
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.standard_normal((count + bubbles, *model.x_spec.shape), np.float32))
    ys = jnp.asarray(rng.integers(0, CLASSES, (count + bubbles, model.batch_size), np.int32))
    fed = batches(xs, ys)
    return fed._replace(batch_id=jnp.where(fed.batch_id < count, fed.batch_id, -1))


def training(model: Model, engine: Engine, count: int, bubbles: int = 0) -> Callable[[], None]:
    """A call that trains on `count` batches, from empty to empty."""
    fed = engine.put(examples(model, count, bubbles))
    state = engine.load(init(model, jax.random.key(0)), jax.random.key(1))

    def run() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(engine.run(state, fed))

    return run


def work_alone() -> None:
    """On one core: every depth unpipelined, and the pipeline of one block."""
    shell.devices(1)
    programs = {f"l = {depth}": training(sized(depth), sequential(sized(depth)), lengths()[-1]) for depth in depths()}
    one = sized(1)
    programs["pipeline, l = 1"] = training(one, spmd(one, stages=1), lengths()[-1])
    pinned.serve(programs, {})


def work_together() -> None:
    """One of two processes: the pipeline of two blocks."""
    shell.devices(2)
    two = sized(2)
    engine = spmd(two, stages=2)
    pinned.serve({f"n = {n}": training(two, engine, n, bubbles=1) for n in lengths()}, {})


def count_ticks() -> None:
    """Prints, for every depth, the tick on which the last block has trained on the last batch."""
    shell.devices(max(depths()))
    count = lengths()[-1]
    for depth in depths():
        model = make_model(depth, 16, 8)
        engine = spmd(model, stages=depth)
        state = engine.load(init(model, jax.random.key(0)), jax.random.key(1))
        _, metrics = engine.run(state, engine.put(examples(model, count, depth - 1)))
        top = np.asarray(metrics.batch_id[-1]).tolist()
        print(f"{depth} {top.index(count - 1) + 1}", flush=True)


def ticks() -> dict[int, int]:
    """What `count_ticks` counted, in a process that has so many virtual devices."""
    flags_given = [flag for flag in sys.argv[1:] if not flag.startswith("--role")]
    command = [sys.executable, "-m", "experiments.benchmarks.depth", *flags_given, "--role=ticks"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=dict(os.environ))
    return {int(depth): int(tick) for depth, tick in map(str.split, done.stdout.splitlines())}


def line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Slope and intercept of the least squares line."""
    slope, intercept = np.polyfit(xs, ys, 1)
    return float(slope), float(intercept)


def draw(path: Path, unpipelined: dict[int, float], measured: dict[int, float], modelled: dict[int, float]) -> None:
    """Seconds against blocks: what was measured filled, what was modelled hollow and dashed."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(*zip(*unpipelined.items(), strict=True), "o-", color="C1", label="one core, measured")
    axes.plot(*zip(*measured.items(), strict=True), "s", color="C0", label="one block a core, measured")
    style: dict[str, Any] = {"color": "C0", "marker": "s", "markerfacecolor": "none", "linestyle": "--"}
    axes.plot(*zip(*modelled.items(), strict=True), **style, label="one block a core, modelled: (n + l - 1) ticks")
    axes.set(xlabel="blocks l", ylabel=f"seconds, {lengths()[-1]} batches", xscale="log", yscale="log")
    axes.set_xticks(depths(), map(str, depths()))
    axes.minorticks_off()
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def measured() -> dict[str, list[float]]:
    """Seconds of every program, one value a repetition."""
    where = pinned.cores(2)
    alone = pinned.Worker("alone", where[0])
    alone.hear()
    together = pinned.team("together", where)
    for worker in together:
        worker.hear()
    seconds: dict[str, list[float]] = {}
    for repetition in range(FLAGS.repetitions):
        for program in [*(f"l = {depth}" for depth in depths()), "pipeline, l = 1"]:
            seconds.setdefault(program, []).extend(pinned.at_once([alone], program))
        for n in lengths():
            program = f"n = {n}"
            seconds.setdefault(f"pipeline, l = 2, {program}", []).append(max(pinned.at_once(together, program)))
        shell.say(f"repetition {repetition + 1} of {FLAGS.repetitions}")
    for worker in (alone, *together):
        worker.end()
    for worker in (alone, *together):
        worker.wait()
    return seconds


def main(argv: list[str]) -> int:
    tables.place(FLAGS.out, folder=True)
    if FLAGS.role:
        {"alone": work_alone, "together": work_together, "ticks": count_ticks}[FLAGS.role]()
        return 0
    try:
        pinned.cores(2)
    except ValueError as error:
        return shell.refuse(str(error))
    counted = ticks()
    seconds = measured()
    n = lengths()[-1]
    median = {program: float(np.median(values)) for program, values in seconds.items()}
    unpipelined = {depth: median[f"l = {depth}"] for depth in depths()}
    pipelined = {1: median["pipeline, l = 1"], 2: median[f"pipeline, l = 2, n = {n}"]}
    tick, start = line(lengths(), [median[f"pipeline, l = 2, n = {count}"] for count in lengths()])
    block, rest = line(depths(), list(unpipelined.values()))
    modelled = {depth: (n + depth - 1) * tick for depth in depths() if depth >= 2}
    result: dict[str, Any] = {
        "batches": n,
        "ticks_counted": counted,
        "fit_at_two_blocks": {"tick_s": tick, "intercept_s": start, "intercept_ticks": start / tick},
        "fit_unpipelined": {"slope_s": block, "intercept_s": rest, "slope_over_batches_s": block / n},
        "measured_s": {"unpipelined": unpipelined, "pipelined": pipelined},
        "modelled_s": modelled,
        "seconds": seconds,
    }
    cells = []
    for depth in depths():
        best = pipelined.get(depth, modelled.get(depth, 0.0))
        cells.append(
            [
                depth,
                f"{unpipelined[depth]:.2f}",
                f"{pipelined[depth]:.2f}" if depth in pipelined else "",
                f"{modelled[depth]:.2f}" if depth in modelled else "",
                counted[depth],
                n + depth - 1,
                f"{unpipelined[depth] / best:.2f}" + ("" if depth in pipelined else " (modelled)"),
            ]
        )
    header = ["blocks", "one core, s", "one block a core, s", "modelled, s", "ticks counted", "n + l - 1", "speed-up"]
    note = (
        f"{n} batches, median of {FLAGS.repetitions}. Two blocks on two cores, for n from {lengths()[0]} to {n}: "
        f"{1e3 * tick:.1f} ms a batch, and {start / tick:.2f} ticks more, where the law says 1. Unpipelined: "
        f"{1e3 * block / n:.1f} ms a batch and block. Modelled figures are no measurements."
    )
    tables.write("bench_depth", header, cells, result, note)
    draw(Path(FLAGS.out) / "bench_depth.png", unpipelined, pipelined, modelled)
    return 0


if __name__ == "__main__":
    app.run(main)
