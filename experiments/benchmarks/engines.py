"""What a program a stage saves: compilation, and what a device holds, of `spmd` and of `mpmd` on eight stages.

    python -m experiments.benchmarks.engines

`early_exit` on an MLP, whose blocks are equal, and on a CNN, whose blocks are not, eight of each, eight virtual CPU
devices, calls of eight batches.  Seconds are processor time of the first call less that of the second: tracing,
lowering and compiling, without a cache.  Instructions are those of the optimized programs that a device runs, as XLA
writes them down; bytes are of its state.  Nothing here is speed: eight devices share this machine's cores.  Writes
experiments/results/bench_engines.md and .json; two minutes on two cores.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from experiments import tables
from localgrad import init, mpmd, spmd
from localgrad.base import Block, Engine, Model
from localgrad.blocks import cnn, mlp
from localgrad.cli import shell
from localgrad.data import batches
from localgrad.methods import METHODS

flags.DEFINE_string("method", "early_exit", "a local method")
flags.DEFINE_integer("blocks", 8, "of each network")
flags.DEFINE_integer("stages", 8, "and devices; at most as many as blocks")
flags.DEFINE_list("nets", ["mlp", "cnn"], "networks to measure")
flags.DEFINE_integer("width", 256, "of the MLP; the CNN has a sixteenth")
flags.DEFINE_string("out", "experiments/results", "folder of the JSON and the markdown table")
shell.define_process_flags()
FLAGS = flags.FLAGS

BATCH, CALL = 32, 8
OPTIMIZED = "*cpu_after_optimizations.txt"
PROGRAMS = ("call", "_enter", "_forward", "metrics_of")  # the first of spmd, the others of mpmd
ENGINES: dict[str, Callable[..., Engine]] = {"spmd": spmd, "mpmd": mpmd}


def networks() -> dict[str, tuple[list[Block], tuple[int, ...]]]:
    """By name, the blocks and the shape of an example."""
    known = {
        "mlp": (mlp((FLAGS.width,) * FLAGS.blocks), (FLAGS.width,)),
        "cnn": (cnn((max(1, FLAGS.width // 16),) * FLAGS.blocks), (16, 16, 3)),
    }
    return {net: known[net] for net in FLAGS.nets}


def instructions(text: str) -> int:
    """How many an optimized module has, in all its computations."""
    return sum(" = " in line for line in text.splitlines())


def largest_device(found: list[tuple[str, int]], stages: int) -> int:
    """Instructions of the device that has the most, of programs `(name, instructions)` in the order of compilation.

    One of `spmd` is on all devices; those of `mpmd` with one name are of the stages, in order, and what makes the first
    message is on the first.
    """
    of = lambda name: [count for each, count in found if each == name]
    forward, reports = of("_forward"), of("metrics_of")
    if not forward:
        return sum(of("call"))
    by_stage = [a + b for a, b in zip(forward, reports, strict=True)]
    assert len(by_stage) == stages, found
    by_stage[0] += sum(of("_enter"))
    return max(by_stage)


def measured(model: Model, states: Any, make: Callable[..., Engine], folder: Path) -> dict[str, Any]:
    """One engine: what its first call costs beside the second, and what its devices hold."""
    before = set(folder.glob(OPTIMIZED))
    engine = make(model, stages=FLAGS.stages)
    xs, ys = np.zeros((CALL, *model.x_spec.shape), np.float32), np.zeros((CALL, BATCH), np.int32)
    fed, state, seconds = engine.put(batches(xs, ys)), engine.load(states, jax.random.key(1)), []
    for _ in range(2):
        began = time.process_time()
        state, _ = jax.block_until_ready(engine.run(state, fed))
        seconds.append(time.process_time() - began)
    texts = sorted(set(folder.glob(OPTIMIZED)) - before)
    programs = [(path.name.split(".")[1].removeprefix("jit_"), instructions(path.read_text())) for path in texts]
    ours = [each for each in programs if each[0] in PROGRAMS]
    return {
        "cpu_seconds": seconds[0] - seconds[1],
        "programs": len(ours),
        "instructions": largest_device(ours, FLAGS.stages),
        "held_bytes": [engine.plan.slot_bytes] * FLAGS.stages if make is spmd else list(engine.plan.stage_bytes),
        "stage_bytes": list(engine.plan.stage_bytes),
    }


def main(argv: list[str]) -> int:
    """Measures and writes."""
    tables.place(FLAGS.out, folder=True)
    if not 1 <= FLAGS.stages <= FLAGS.blocks:
        return shell.refuse(f"--stages={FLAGS.stages}: expected 1 to {FLAGS.blocks}, as many as there are blocks.")
    if not set(FLAGS.nets) <= {"mlp", "cnn"}:
        return shell.refuse(f"--nets={','.join(FLAGS.nets)}: there are mlp, cnn.")
    given = os.environ.get("XLA_FLAGS", "")
    with tempfile.TemporaryDirectory() as dump:
        own = f"--xla_dump_to={dump} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=jit_({'|'.join(PROGRAMS)})"
        os.environ["XLA_FLAGS"] = f"{given} {own}"
        shell.devices(FLAGS.stages)
        jax.config.update("jax_enable_compilation_cache", False)
        rows = {}
        for name, (network, shape) in networks().items():
            spec = jax.ShapeDtypeStruct((BATCH, *shape), jnp.float32)
            model = METHODS[FLAGS.method](network, spec, 10, lambda scale: optax.adam(1e-3 * scale))
            states = init(model, jax.random.key(0))
            for kind, make in ENGINES.items():
                rows[f"{name}, {kind}"] = measured(model, states, make, Path(dump))
                shell.say(f"{name}, {kind}: {rows[f'{name}, {kind}']}")
    os.environ["XLA_FLAGS"] = given  # a result file names it, and a folder that is gone is no part of the run
    cells = [
        [
            name, f"{row['cpu_seconds']:.1f}", str(row["programs"]), f"{row['instructions']:,}",
            f"{max(row['held_bytes']) / 1024:,.0f}", f"{1 - sum(row['stage_bytes']) / sum(row['held_bytes']):.0%}",
        ]
        for name, row in rows.items()
    ]  # fmt: skip
    header = [
        "network, engine", "compiled in s of processor", "programs", "instructions on a device, at most",
        "state on a device KiB, at most", "padding, of all devices",
    ]  # fmt: skip
    note = (
        f"`{FLAGS.method}`, {FLAGS.blocks} blocks on {FLAGS.stages} virtual CPU devices, calls of {CALL} batches of "
        f"{BATCH}, jax {jax.__version__}. On each device of `spmd` is the program of all stages (of one, if equal) "
        "and a state as large as the largest stage's; on each device of `mpmd` are its own programs and state, each "
        "compiled for that device. No speed: the devices share this machine's cores."
    )
    tables.write("bench_engines", header, cells, {"rows": rows}, note)
    return 0


if __name__ == "__main__":
    app.run(main)
