"""Pipeline over processes of one core each, against the sequential engine on one core.

Same model, same batches, one run: S processes joined by `jax.distributed`, each pinned to a core, take turns with a
sequential process pinned to one core.  There is one of those on each of the S cores, asked one at a time, because cores
of a shared machine are not equally fast: a repetition's ratio is the mean of their times over the pipeline's.  State
stays in flight between measurements, so the prediction is that of a long run.  The sequential processes also run all at
once: S times alone over at once is the ceiling, what the machine gives to work that shares nothing.

Two figures: the median of the repetitions' ratios, and the ratio of the fastest repetitions of either engine.  A shared
machine only ever adds time, and adds more to a pipeline, whose every tick waits for the core that is slower just then:
the fastest repetitions are the nearest to a machine of one's own.

    python -m experiments.bench_pipeline --stages=2

Hardware: any machine with S cores.  At S = 2 expect about 1.8, and less by the median the busier the machine; five
minutes.
"""

import json
import os
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from experiments import setup
from localgrad import al, init, ledger, mlp, sequential, spmd
from localgrad.base import Engine, PyTree
from localgrad.data import batches
from localgrad.report import table

flags.DEFINE_integer("stages", 2, "stages, processes and cores")
flags.DEFINE_integer("depth", 8, "blocks of the MLP, all of one width")
flags.DEFINE_integer("width", 1024, "width of every block")
flags.DEFINE_integer("batch_size", 1024, "examples a batch")
flags.DEFINE_integer("batches", 4, "batches a measurement")
flags.DEFINE_integer("repetitions", 30, "measurements of each engine, taken in turns")
flags.DEFINE_string("out", "experiments/results/bench_pipeline.json", "file to write")
flags.DEFINE_string("role", None, "set by the program itself: sequential or pipeline")
setup.define_process_flags()
FLAGS = flags.FLAGS


def build(role: str) -> tuple[Engine, PyTree, float]:
    """The engine of a role, its first state, and the speed-up that the ledger predicts for it."""
    model = al(
        mlp((FLAGS.width,) * FLAGS.depth),
        jax.ShapeDtypeStruct((FLAGS.batch_size, FLAGS.width), jnp.float32),
        10,
        tx=optax.adam(1e-3),
        profile="neco",
        bridge=(),
    )
    engine = sequential(model) if role == "sequential" else spmd(model, stages=FLAGS.stages)
    states = init(model, jax.random.key(0))
    return engine, engine.load(states, jax.random.key(1)), ledger(model, states, engine.plan, 10**6).speed_up


def work(role: str) -> None:
    """Answers every line of standard input with the seconds that it took to train on the batches."""
    setup.devices(1 if role == "sequential" else FLAGS.stages)
    engine, state, predicted = build(role)
    rng = np.random.default_rng(0)
    xs = rng.standard_normal((FLAGS.batches, FLAGS.batch_size, FLAGS.width), np.float32)
    ys = rng.integers(0, 10, (FLAGS.batches, FLAGS.batch_size), np.int32)
    fed = engine.put(batches(jnp.asarray(xs), jnp.asarray(ys)))
    state, _ = jax.block_until_ready(engine.run(state, fed))
    print(json.dumps({"ready": role, "predicted": predicted, "uniform": engine.plan.uniform}), flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        state, metrics = jax.block_until_ready(engine.run(state, fed))
        seconds = time.perf_counter() - begun
        print(json.dumps({"seconds": seconds, "loss": float(metrics.values[-1]["loss"][-1])}), flush=True)


def start(role: str, core: int, *more: str) -> subprocess.Popen:
    """Starts this program again in a role, pinned to a core."""
    own = [flag for flag in sys.argv[1:] if not flag.startswith("--role")]
    command = ["taskset", "-c", str(core), sys.executable, "-m", "experiments.bench_pipeline", *own]
    return subprocess.Popen(
        [*command, f"--role={role}", *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def ask(workers: list[subprocess.Popen]) -> list[dict]:
    """Sends every worker one line, and returns their answers."""
    for worker in workers:
        print("go", file=worker.stdin, flush=True)
    return [hear(worker) for worker in workers]


def hear(worker: subprocess.Popen) -> dict:
    """The next answer of a worker; whatever else its libraries print is passed over."""
    for line in worker.stdout or ():
        if line.startswith("{"):
            return json.loads(line)
    raise RuntimeError("a worker stopped; its own message is above.")


def main(argv: list[str]) -> int:
    if FLAGS.role:
        work(FLAGS.role)
        return 0
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < FLAGS.stages:
        return setup.refuse(f"--stages={FLAGS.stages} needs as many cores; this machine has {len(cores)}.")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        join = [f"--coordinator=127.0.0.1:{probe.getsockname()[1]}", f"--num_processes={FLAGS.stages}"]
    alone = []
    for core in cores[: FLAGS.stages]:
        alone.append(start("sequential", core))
        hear(alone[-1])  # compiles before the next one starts, so that nobody shares a core
    together = [start("pipeline", core, *join, f"--process_id={i}") for i, core in enumerate(cores[: FLAGS.stages])]
    plan, *_ = [hear(worker) for worker in together]
    rows = []
    for repetition in range(FLAGS.repetitions):
        one_by_one = [ask([worker])[0]["seconds"] for worker in alone]
        at_once = max(answer["seconds"] for answer in ask(alone))
        pipeline = max(answer["seconds"] for answer in ask(together))
        alone_s = float(np.mean(one_by_one))
        rows.append(
            {
                "sequential_s": one_by_one,
                "sequential_at_once_s": at_once,
                "pipeline_s": pipeline,
                "ratio": alone_s / pipeline,
                "ceiling": FLAGS.stages * alone_s / at_once,
            }
        )
        measured = f"{rows[-1]['ratio']:.3f} of {rows[-1]['ceiling']:.3f}"
        print(f"{repetition + 1}: {np.round(one_by_one, 2)} s, {pipeline:.2f} s, {measured}", flush=True)
    workers = alone + together
    for worker in workers:
        if worker.stdin:
            worker.stdin.close()
    for worker in workers:  # those of one mesh end together
        worker.wait()
    ratios = [float(row["ratio"]) for row in rows]
    fastest = float(np.mean(np.min([row["sequential_s"] for row in rows], axis=0)))
    by_fastest = fastest / min(row["pipeline_s"] for row in rows)
    result = {
        "command": "python -m experiments.bench_pipeline " + " ".join(sys.argv[1:]),
        "machine": {"processor": platform.processor() or platform.machine(), "cores": len(cores)},
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "model": {
            "depth": FLAGS.depth,
            "width": FLAGS.width,
            "batch_size": FLAGS.batch_size,
            "uniform": plan["uniform"],
        },
        "stages": FLAGS.stages,
        "speed_up": {
            "fastest": by_fastest,
            "median": float(np.median(ratios)),
            "min": min(ratios),
            "max": max(ratios),
        },
        "ceiling": float(np.median([row["ceiling"] for row in rows])),
        "predicted_speed_up": plan["predicted"],
        "repetitions": rows,
    }
    Path(FLAGS.out).write_text(json.dumps(result, indent=2) + "\n")
    print(
        table(
            ["engine", "processes", "median s", "by fastest", "by median", "predicted", "ceiling"],
            [
                ["sequential", 1, f"{np.median([np.mean(row['sequential_s']) for row in rows]):.2f}", *["1"] * 4],
                ["pipeline", FLAGS.stages, f"{np.median([row['pipeline_s'] for row in rows]):.2f}", f"{by_fastest:.3f}",
                 f"{np.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})", f"{plan['predicted']:.3f}",
                 f"{result['ceiling']:.3f}"],
            ],
        )
    )  # fmt: skip
    print(f"wrote {FLAGS.out}")
    return 0


if __name__ == "__main__":
    app.run(main)
