"""Memory of a training step against depth, and what each stage of a pipeline keeps between forward and update.

The step is the sequential engine's on an MLP of equal blocks, compiled and not run.  Its footprint is

    arguments + temporaries + outputs - what is donated - the batches

A block with a loss of its own keeps nothing for later, so its network should grow by its state alone: parameters and
optimizer.  The key figure is growth of the footprint / growth of the state, from 8 blocks to the most; 1 means that
depth costs no activations.  Backpropagation keeps the activations of all blocks; `bp remat` keeps the input of each
block, `bp remat sqrt` that of each of sqrt(depth) groups of blocks, `bp accumulate` runs on a quarter of a batch at a
time and keeps a sum of gradients.

Then the stages of a pipeline on the deepest network: what the engine's plan lays out for `local`, `delayed` (dkp) and
GPipe, plain (all that a block's vjp keeps, masks too) and with `remat`; and 1F1B, which this library does not have: at
most min(M, S - s) micro-batches on stage s, each of as many bytes as GPipe's, `modelled`.

    python -m experiments.benchmarks.memory      # half an hour on two cores, nearly all of it compilation

Expect 1.00 within 1 % for the local methods on jax 0.12.  On a CPU, jax 0.10 begins blocks before those below have
learnt, and holds arrays of several at once: weights' gradients of `al`, (B, B) arrays of the loss of `scl`.  Figures of
a version: experiments/results/bench_memory_jax-VERSION.md and bench_memory_stages_jax-VERSION.md.  Where a device tells
the peak of its memory (a GPU), every step also runs, the smallest first.
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from absl import app, flags
from matplotlib.figure import Figure

from experiments import tables
from localgrad import al, bp, dgl, dkp, early_exit, mlp, predsim, remat, scl, sequential, spmd
from localgrad.base import Batches, Engine, Model
from localgrad.blocks import regroup
from localgrad.cli import shell
from localgrad.data import batches
from localgrad.pipeline import specs
from localgrad.pipeline.partition import state_bytes

LOCAL = ("al", "scl", "early_exit", "predsim", "dgl")
METHODS = (*LOCAL, "bp", "bp remat", "bp remat sqrt", "bp accumulate")
CLASSES, COUNT = 10, 2  # batches a call
ACCUMULATED = 4  # micro-batches of `bp accumulate`
STAGES, PARTS = 4, (4, 8, 16)  # micro-batches M of GPipe and 1F1B
MIB = 2**20

flags.DEFINE_list("depths", ["2", "4", "8", "16", "32", "64"], "numbers of blocks")
flags.DEFINE_integer("width", 256, "features of every block and of the input")
flags.DEFINE_integer("batch_size", 1024, "examples a batch")
flags.DEFINE_list("methods", list(METHODS), "contenders")
flags.DEFINE_bool("smoke", False, "the smallest size, for tests")
flags.DEFINE_string("out", "experiments/results", "folder of the JSON, the markdown tables and the figure")
shell.define_process_flags()
FLAGS = flags.FLAGS


class Size(NamedTuple):
    """What every network here is of."""

    width: int
    batch: int


class Step(NamedTuple):
    """A compiled step, kept only where it will run, and its figures."""

    model: Model
    engine: Engine
    compiled: Any
    figures: dict[str, Any]


# --- the step --------------------------------------------------------------------------------------------------------


def make_model(method: str, depth: int, size: Size) -> Model:
    """A contender on an MLP of `depth` equal blocks, with Adam."""
    adam = optax.adam(1e-3)
    spec = jax.ShapeDtypeStruct(size[::-1], jnp.float32)
    part = jax.ShapeDtypeStruct((size.batch // ACCUMULATED, size.width), jnp.float32)
    network = mlp((size.width,) * depth)
    thin = [remat(block) for block in network]
    groups = [remat(block) for block in regroup(network, round(depth**0.5))]
    accumulate = optax.MultiSteps(adam, ACCUMULATED).gradient_transformation()
    on = lambda method, network=network, spec=spec, tx=adam, **options: functools.partial(
        method, network, spec, CLASSES, tx=tx, **options
    )
    makers: dict[str, Callable[[], Model]] = {
        "al": on(al, profile="neco", bridge=(), target_width=size.width),
        "scl": on(scl, head="identity"),
        "early_exit": on(early_exit),
        "predsim": on(predsim),
        "dgl": on(dgl, aux="hidden"),
        "bp": on(bp),
        "bp remat": on(bp, thin),
        "bp remat sqrt": on(bp, groups),
        "bp accumulate": on(bp, spec=part, tx=accumulate),
        "dkp": on(dkp),
        "dkp remat": on(dkp, thin),
    }
    return makers[method]()


def feed(model: Model) -> Batches:
    xs = jnp.zeros((COUNT, *model.x_spec.shape), model.x_spec.dtype)
    return batches(xs, jnp.zeros((COUNT, model.batch_size), model.y_spec.dtype))


def compile_step(model: Model) -> Step:
    """The sequential step of a model, from shapes alone: nothing is allocated."""
    engine, states = sequential(model), tuple(specs(model)[0])
    state, fed = jax.eval_shape(lambda states: (engine.load(states, jax.random.key(0)), feed(model)), states)
    began = time.perf_counter()
    compiled = engine.run.lower(state, fed).compile()  # type: ignore[attr-defined]
    seconds = time.perf_counter() - began
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    footprint, own = held - memory.alias_size_in_bytes - state_bytes(fed), state_bytes(states)
    figures = {
        "footprint_bytes": footprint,
        "state_bytes": own,
        "over_state_bytes": footprint - own,
        "temporary_bytes": memory.temp_size_in_bytes,
        "batches_bytes": state_bytes(fed),
        "compile_s": round(seconds, 1),
    }
    return Step(model, engine, compiled if _tells_its_peak() else None, figures)


def run_for_peaks(steps: list[Step]) -> None:
    """Adds `peak_bytes`, batches included, where the device tells it.

    The peak of a process never falls, so the smallest goes first, and a step that does not raise it has None.
    """
    if not _tells_its_peak():
        return
    peak = lambda: jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    for step in sorted(steps, key=lambda step: step.figures["footprint_bytes"] + step.figures["batches_bytes"]):
        before = peak()
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tuple(specs(step.model)[0]))
        state = step.engine.load(zeros, jax.random.key(0))
        del zeros
        jax.block_until_ready(step.compiled(state, feed(step.model)))
        step.figures["peak_bytes"] = peak() if peak() > before else None


def _tells_its_peak() -> bool:
    return jax.devices()[0].memory_stats() is not None


def growth(rows: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """How the footprint grows beside the state, from 8 blocks (or the fewest) to the most."""
    first, last = 8 if 8 in rows else min(rows), max(rows)
    more = {key: rows[last][key] - rows[first][key] for key in ("footprint_bytes", "state_bytes", "over_state_bytes")}
    return {
        "from": first,
        "to": last,
        "growth": more["footprint_bytes"] / more["state_bytes"],
        "over_state_bytes_a_block": more["over_state_bytes"] / (last - first),
    }


# --- the stages ------------------------------------------------------------------------------------------------------


def stage_laws(depth: int, size: Size) -> dict[str, dict[str, Any]]:
    """Bytes that each stage keeps between forward and update: of the engine's plan, or modelled."""
    lay = lambda model, **options: spmd(model, stages=STAGES, devices=jax.devices("cpu"), **options).plan
    found: dict[str, dict[str, Any]] = {}

    def add(row: str, kept: list[float], source: str = "plan") -> None:
        found[row] = {"stash_bytes": kept, "source": source}

    add("local (al)", list(lay(make_model("al", depth, size)).stash_bytes or (0,) * STAGES))
    add("delayed (dkp)", list(lay(make_model("dkp", depth, size)).stash_bytes))
    add("delayed (dkp), remat", list(lay(make_model("dkp remat", depth, size)).stash_bytes))
    for method, name in (("bp", "GPipe"), ("bp remat", "GPipe, remat")):
        model = make_model(method, depth, size)
        for parts in PARTS:
            kept = lay(model, micro_batches=parts).stash_bytes
            add(f"{name}, M = {parts}", list(kept))
            if method == "bp":
                law = [min(parts, STAGES - s) / parts * whole for s, whole in enumerate(kept)]
                add(f"1F1B, M = {parts}", law, "modelled")
    return found


def draw(rows: dict[str, dict[int, dict[str, Any]]], path: Path) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for method, of_depth in rows.items():
        style = "o-" if method in LOCAL else "s--"
        axes.plot(list(of_depth), [row["over_state_bytes"] / MIB for row in of_depth.values()], style, label=method)
    axes.set(xlabel="blocks", ylabel="footprint less state, MiB", xscale="log", yscale="log")
    depths = sorted({depth for of_depth in rows.values() for depth in of_depth})
    axes.set_xticks(depths, labels=[str(depth) for depth in depths])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)


def main(argv: list[str]) -> int:
    tables.place(FLAGS.out, folder=True)
    size = Size(16, 32) if FLAGS.smoke else Size(FLAGS.width, FLAGS.batch_size)
    depths = [2, 4] if FLAGS.smoke else sorted(map(int, FLAGS.depths))
    unknown = [name for name in FLAGS.methods if name not in METHODS]
    if unknown:
        return shell.refuse(f"--methods={unknown[0]}: there are {', '.join(METHODS)}.")
    if len(depths) < 2 or depths[-1] < STAGES or size.batch % max(PARTS):
        return shell.refuse(
            f"--depths are two or more, the last at least {STAGES}, and --batch_size is a multiple of {max(PARTS)}; "
            f"got {depths} and {size.batch}."
        )
    shell.devices(STAGES)
    steps: dict[str, dict[int, Step]] = {}
    for method in FLAGS.methods:
        steps[method] = {}
        for depth in depths:
            steps[method][depth] = step = compile_step(make_model(method, depth, size))
            over = step.figures["over_state_bytes"] / MIB
            shell.say(f"{method}, {depth} blocks: {over:.2f} MiB over the state; {step.figures['compile_s']} s")
    run_for_peaks([step for each in steps.values() for step in each.values()])
    rows = {method: {depth: step.figures for depth, step in each.items()} for method, each in steps.items()}
    grown = {method: growth(each) for method, each in rows.items()}

    version = f"jax-{jax.__version__}"
    network = f"MLP of equal blocks of {size.width}, batch {size.batch}, Adam"
    title = f"Memory of a training step against depth: {network}, jax {jax.__version__}"
    span = next(iter(grown.values()))
    cells = [
        [method, *(f"{row['over_state_bytes'] / MIB:.2f}" for row in each.values()),
         f"{each[depths[-1]]['state_bytes'] / MIB:.2f}", f"{grown[method]['growth']:.4f}"]
        for method, each in rows.items()
    ]  # fmt: skip
    header = ["method", *map(str, depths), f"state of {depths[-1]}", "growth"]
    note = (
        f"{title}. MiB over the state by number of blocks, and growth of the footprint / growth of the state from "
        f"{span['from']} to {span['to']} blocks."
    )
    written = [
        {"method": method, **grown[method], "depths": [{"blocks": depth, **row} for depth, row in each.items()]}
        for method, each in rows.items()
    ]
    tables.write(f"bench_memory_{version}", header, cells, {"title": title, "rows": written}, note)
    path = Path(FLAGS.out) / f"bench_memory_{version}.png"
    draw(rows, path)
    shell.say(f"wrote {path}")

    laws = stage_laws(depths[-1], size)
    title = f"Bytes kept between forward and update on {STAGES} stages: {network}, {depths[-1]} blocks"
    cells = [[row, *(f"{kept / MIB:.2f}" for kept in law["stash_bytes"]), law["source"]] for row, law in laws.items()]
    header = ["schedule", *(f"stage {s}" for s in range(STAGES)), "source"]
    tables.write(f"bench_memory_stages_{version}", header, cells, {"title": title, "rows": laws}, f"{title}; in MiB.")
    return 0


if __name__ == "__main__":
    app.run(main)
