"""The training step of every method against the same step written by hand, in plain jax and in PyTorch; one device.

    python -m experiments.benchmarks.step  # all cores
    taskset -c 0 python -m experiments.benchmarks.step  # one core, of both frameworks
    python -m experiments.benchmarks.step --dtype=bfloat16 --batch_size=1024 --batches=50 --peak_tflops=989  # an H100
    python -m experiments.benchmarks.step --nets=vgg8b,resnet18 --methods=bp,al,predsim  # alone

The library's sequential engine, N batches a call, its state carried.  Against it, from the same parameters and with
the same numbers (`tests/experiments/benchmarks/test_plain.py`): `plain_jax` beside this file, as one scan over the N
batches and as a call a batch, and `plain_torch`, where PyTorch is installed: eager with `torch.optim.Adam` as it comes,
eager with the fused one, which has to be asked for, and through `torch.compile`, which takes minutes.  All take turns,
the library's own backpropagation among them.  mlp is three layers of 512 on 784 features, cnn five convolutions of 16,
16, 32, 32 and 64 channels on images of 28 x 28; of any other network the library's step is measured alone.

On a CPU jax's own convolution is tens of times slower inside a loop (`experiments.benchmarks.convolution`).  There the
scan has the library's, so that it compares all but the convolution; the calls have jax's own everywhere.

A second part, `--tick`, is what the choice of a stage costs: a pipeline of one stage, whose tick chooses it, against
the same without, and against the sequential engine.

Hardware: any one device; on a GPU both frameworks must be built for it.  The machine should do nothing else: PyTorch's
threads wait for each other after every operation, and on cores that are busy two of them can be slower than one, which
says nothing of either framework.  The JSON has the load before.  Measured figures are in
experiments/results/bench_step.md.
"""

import importlib.util
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from experiments import tables
from experiments.benchmarks import plain_jax, turns
from localgrad import al, init, mlp, sequential, spmd
from localgrad.base import Block, BlockState, Engine
from localgrad.blocks import NETWORKS, networks_of
from localgrad.blocks.convolution import convolution
from localgrad.cli import shell
from localgrad.data import batches
from localgrad.methods import METHODS

flags.DEFINE_list("nets", ["mlp", "cnn"], "networks")
flags.DEFINE_list("methods", ["bp", "al", "scl", "early_exit", "predsim", "dgl", "dfa"], "methods")
flags.DEFINE_list(
    "rivals", ["jax_scan", "jax_calls", "torch", "torch_fused", "torch_compiled"], "what it is measured against"
)
flags.DEFINE_integer("batches", 10, "batches a measurement")
flags.DEFINE_integer("batch_size", 128, "examples a batch")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "of parameters and features")
flags.DEFINE_float("peak_tflops", None, "the device's TFLOP/s at that dtype; for the share of it that is used")
flags.DEFINE_bool("tick", True, "also measure what the choice of a stage costs")
turns.define_flags(7)
FLAGS = flags.FLAGS

CLASSES, RATE, POOL = 10, 1e-3, 1024
POOLED = ("al", "scl", "early_exit", "predsim", "dgl")
Program = Callable[[], Any]


class Size(NamedTuple):
    """A network and what it is fed; `widths` is None for the network's own."""

    widths: tuple[int, ...] | None
    shape: tuple[int, ...]

    def make(self, net: str) -> list[Block]:
        return NETWORKS[net](**({} if self.widths is None else {"widths": self.widths}))


SIZES = {"mlp": Size((512,) * 3, (784,)), "cnn": Size((16, 16, 32, 32, 64), (28, 28, 1))}
SMOKE = {"mlp": Size((16, 12), (20,)), "cnn": Size((4, 6), (8, 8, 1))}
OTHERS = Size(None, (28, 28, 1))


# --- contenders ------------------------------------------------------------------------------------------------------


def library(engine: Engine, states: Sequence[BlockState], xs: jax.Array, ys: jax.Array) -> Program:
    """A call of an engine, its state carried."""
    state, fed = engine.load(tuple(states), jax.random.key(1)), engine.put(batches(xs, ys))

    def train() -> Any:
        nonlocal state
        state, metrics = engine.run(state, fed)
        return metrics

    return train


def jax_scan(method: str, params: plain_jax.Params, xs: jax.Array, ys: jax.Array) -> Program:
    """Plain jax, one scan over all batches."""
    training = plain_jax.training(method, params, pool=POOL, rate=RATE, convolution=convolution)
    state = training.state

    def train() -> Any:
        nonlocal state
        state, losses = training.run(state, xs, ys)
        return losses

    return train


def jax_calls(method: str, params: plain_jax.Params, xs: jax.Array, ys: jax.Array) -> Program:
    """Plain jax, a call a batch."""
    training = plain_jax.training(method, params, pool=POOL, rate=RATE)
    state, each = training.state, list(zip(xs, ys, strict=True))

    def train() -> Any:
        nonlocal state
        for batch in each:
            state, losses = training.step(state, batch)
        return losses

    return train


def pytorch(
    method: str, params: plain_jax.Params, xs: jax.Array, ys: jax.Array, *, fused: bool = False, compiled: bool = False
) -> Program:
    """Plain PyTorch on the same cores or a GPU: as it comes, with its `fused` Adam, or compiled."""
    import torch

    from experiments.benchmarks import plain_torch

    device, dtype = "cuda" if torch.cuda.is_available() else "cpu", getattr(torch, FLAGS.dtype)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_flush_denormal(True)  # as XLA does
    if device == "cuda":  # as jax does by itself
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    adam = {"fused": True} if fused else {}
    training = plain_torch.training(
        method, params, xs.shape[2:], pool=POOL, rate=RATE, device=device, dtype=dtype, **adam
    )
    each = list(zip(*plain_torch.inputs(xs, ys, device, dtype), strict=True))
    if compiled:
        torch.compiler.reset()  # its limit of programs counts those of every method
    step = torch.compile(training.step) if compiled else training.step

    def train() -> Any:
        losses = [step(*batch) for batch in each]
        return losses[-1].cpu()  # waits for the device

    return train


RIVALS: dict[str, Callable[..., Program]] = {
    "jax_scan": jax_scan,
    "jax_calls": jax_calls,
    "torch": pytorch,
    "torch_fused": partial(pytorch, fused=True),
    "torch_compiled": partial(pytorch, compiled=True),
}


def begin(rival: str, *given: Any) -> tuple[Program, str]:
    """A rival's program, and why it cannot be run if it cannot: there is no PyTorch, or nothing that compiles it."""
    if rival.startswith("torch") and importlib.util.find_spec("torch") is None:
        return lambda: None, "no PyTorch here"
    program = RIVALS[rival](*given)
    if rival == "torch_compiled":
        try:
            program()
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            return program, f"{type(error).__name__}: {lines[0]}"[:100].replace("|", "/")
    return program, ""


# --- rows ------------------------------------------------------------------------------------------------------------


def measured(net: str) -> dict[str, dict[str, Any]]:
    """Every method on one network: seconds a step of all contenders, one value a repetition, and what follows."""
    size = (SMOKE if FLAGS.smoke else SIZES).get(net, OTHERS)
    batch, count = (8, 2) if FLAGS.smoke else (FLAGS.batch_size, FLAGS.batches)
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.standard_normal((count, batch, *size.shape), np.float32), FLAGS.dtype)
    ys = jnp.asarray(rng.integers(0, CLASSES, (count, batch), np.int32))

    def own(method: str) -> tuple[Engine, tuple[BlockState, ...]]:
        options: dict[str, Any] = {"pool": POOL} if method in POOLED else {}
        options |= {"aux": "hidden"} if method == "dgl" else {}
        spec = jax.ShapeDtypeStruct(xs.shape[1:], xs.dtype)
        adam = lambda scale: optax.adam(scale * RATE)
        model = METHODS[method](size.make(net), spec, CLASSES, adam, **options)
        return sequential(model), init(model, jax.random.key(0))

    def row(method: str) -> dict[str, Any]:
        engine, states = base if method == "bp" else own(method)
        programs = {"localgrad bp": base_program}
        if method != "bp":
            programs[f"localgrad {method}"] = library(engine, states, xs, ys)
        failed: dict[str, str] = {}
        for rival in FLAGS.rivals if net in SIZES and method in plain_jax.RULES else ():
            program, why = begin(rival, method, tuple(state.params for state in states), xs, ys)
            if why:
                failed[rival] = why
            else:
                programs[rival] = program
        found = turns.in_turns(programs, FLAGS.repetitions)
        mine, flops = found[f"localgrad {method}"], sum(engine.plan.flops)
        seconds = float(np.median(mine)) / count
        shell.say(f"{net} {method}: {1e3 * seconds:.2f} ms")
        return {
            "seconds_a_step": {name: [value / count for value in values] for name, values in found.items()},
            "median_seconds": seconds,
            "examples_per_second": batch / seconds,
            "to_bp": turns.ratio(mine, found["localgrad bp"]),
            "to_localgrad": {rival: turns.ratio(found[rival], mine) for rival in FLAGS.rivals if rival in found},
            "failed": failed,
            "flops_a_step": flops,
            "flops_per_second": flops / seconds,
            "share_of_peak": flops / seconds / (1e12 * FLAGS.peak_tflops) if FLAGS.peak_tflops else None,
        }

    base = own("bp")
    base_program = library(*base, xs, ys)
    return {method: row(method) for method in FLAGS.methods}


def cells_of(name: str, row: dict[str, Any]) -> list[str]:
    shown = {key: turns.show(value) for key, value in row["to_localgrad"].items()} | row["failed"]
    speed = [f"{row['flops_per_second'] / 1e9:,.0f}"]
    speed += [f"{100 * row['share_of_peak']:.1f}"] if FLAGS.peak_tflops else []
    return [
        name,
        f"{1e3 * row['median_seconds']:.2f}",
        f"{row['examples_per_second']:,.0f}",
        turns.show(row["to_bp"]),
        *(shown.get(rival, "") for rival in FLAGS.rivals),
        *speed,
    ]


# --- the choice of a stage -------------------------------------------------------------------------------------------


def ticks() -> tuple[dict[str, Any], str]:
    """Seconds a step of a pipeline of one stage, with a choice and without, and of the sequential engine."""
    width, depth, target, batch, count = (
        (8, 2, 4, 8, 2) if FLAGS.smoke else (512, 3, 128, FLAGS.batch_size, FLAGS.batches)
    )
    spec = jax.ShapeDtypeStruct((batch, width), jnp.dtype(FLAGS.dtype))
    # As many classes as features of the target: then all blocks are one program.
    model = al(mlp((width,) * depth), spec, target, tx=optax.adam(RATE), target_width=target)
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.standard_normal((count, *spec.shape), np.float32), FLAGS.dtype)
    ys = jnp.asarray(rng.integers(0, target, (count, batch), np.int32))
    engines = {
        "choice": spmd(model, stages=1, uniform=False),
        "no choice": spmd(model, stages=1),
        "sequential": sequential(model),
    }
    states = init(model, jax.random.key(0))
    found = turns.in_turns(
        {name: library(engine, states, xs, ys) for name, engine in engines.items()}, FLAGS.repetitions
    )
    rows: dict[str, dict[str, Any]] = {
        name: {
            "uniform": engines[name].plan.uniform,
            "seconds_a_step": [value / count for value in values],
            "to_sequential": turns.ratio(values, found["sequential"]),
        }
        for name, values in found.items()
    }
    choosing, without = (turns.show(rows[name]["to_sequential"]) for name in ("choice", "no choice"))
    says = (
        f"A pipeline of one stage, al on {depth} layers of {width}, takes {choosing} times the sequential engine's "
        f"time with the choice of its stage and {without} times without."
    )
    return rows, says


def draw(rows: dict[str, dict[str, dict[str, Any]]], path: Path) -> None:
    """Draws each contender's time over the library's, by method, a panel a network, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(rows), 4), layout="constrained")
    FigureCanvasAgg(figure)
    panels, width = figure.subplots(1, len(rows), squeeze=False)[0], 0.8 / len(FLAGS.rivals)
    for axes, (net, by_method) in zip(panels, rows.items(), strict=True):
        for i, rival in enumerate(FLAGS.rivals):
            ratios = [row["to_localgrad"].get(rival, {"median": 0.0})["median"] for row in by_method.values()]
            place = np.arange(len(ratios)) + width * (i - (len(FLAGS.rivals) - 1) / 2)
            axes.bar(place, ratios, width, label=rival)
        axes.axhline(1.0, color="black", linewidth=0.8)
        axes.set_xticks(range(len(by_method)), by_method)
        axes.set(title=net, ylabel="its time / localgrad's")
        axes.grid(alpha=0.3, axis="y")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(FLAGS.rivals))
    figure.savefig(path, dpi=120)


def main(argv: list[str]) -> int:
    tables.place(FLAGS.out, folder=True)
    named = (
        ("nets", FLAGS.nets, networks_of("images")),
        ("methods", FLAGS.methods, METHODS),
        ("rivals", FLAGS.rivals, RIVALS),
    )
    for flag, given, known in named:
        if not set(given) <= set(known):
            return shell.refuse(f"--{flag}={','.join(given)}: there are {', '.join(known)}.")
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.45")  # a GPU is shared with PyTorch
    shell.devices(1)
    load = os.getloadavg()[0]
    found = {net: measured(net) for net in FLAGS.nets}
    rows = {f"{net} {method}": row for net, by_method in found.items() for method, row in by_method.items()}
    tick, says = ticks() if FLAGS.tick else ({}, "")
    batch, count = (8, 2) if FLAGS.smoke else (FLAGS.batch_size, FLAGS.batches)
    note = (
        f"A training step of {batch} examples in {FLAGS.dtype}, {count} batches a measurement; ms is the median of "
        f"{FLAGS.repetitions}, taken in turns. `/ bp` is the time over that of localgrad's bp. The columns of jax and "
        "torch, written by hand, are their time over localgrad's in one repetition, median (least to largest): above 1 "
        "localgrad is faster. On a CPU jax_scan has localgrad's convolution, jax_calls jax's own. FLOPs are those of "
        f"the whole step, optimizer included, as the compiler counts them. {says}"
    )
    header = [
        "row",
        "ms",
        "examples/s",
        "/ bp",
        *FLAGS.rivals,
        "GFLOP/s",
        *(["% of peak"] if FLAGS.peak_tflops else []),
    ]
    result = {
        "batch_size": batch,
        "batches": count,
        "dtype": FLAGS.dtype,
        "peak_tflops": FLAGS.peak_tflops,
        "load_before": load,
        "rows": rows,
        "tick": tick,
    }
    tables.write("bench_step", header, [cells_of(*row) for row in rows.items()], result, note.strip())
    drawn = {net: by_method for net, by_method in found.items() if net in SIZES}
    if drawn:
        path = Path(FLAGS.out) / "bench_step.png"
        draw(drawn, path)
        shell.say(f"wrote {path}")
    return 0


if __name__ == "__main__":
    app.run(main)
