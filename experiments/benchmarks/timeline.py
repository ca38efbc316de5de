"""What each stage of a pipeline does when: ticks of a real run, as a trace and as a chart.

Every block is given stamps at the beginning and at the end of its work, and at those of its backward half where it
waits for a signal: host callbacks that read the machine's monotonic clock, which all processes share.  A number of each
array that the work begins with goes through the callback and back to its place, so that the work cannot begin earlier.
(An `optimization_barrier` alone orders nothing: XLA drops it before it schedules, and jax 0.10 then runs the work
before its stamp.)  No number changes: the digest of the network is that of the same run without stamps, which is made
as well; the trace says whether they agree, and how long either took.

    python -m experiments.benchmarks.timeline --method=al        # local; also dkp (delayed) and bp (GPipe)
    python -m experiments.benchmarks.timeline --method=bp --stages=4 --virtual

Writes `pipeline_timeline_METHOD.json`, which chrome://tracing and ui.perfetto.dev open, and a chart, one row a stage.
In the trace, process 0 has a row a stage, from the first beginning of a batch to its last end there; process 1 a row a
block.  Blocks of one stage may overlap: within a tick their order is the compiler's.  Between two bars of a stage are
its updates' last addition, the packing of its state, the hop, and waiting.  A bubble runs no block and leaves no bar;
for that, stages are chosen here even where all are the same program.

Hardware: any machine with S cores, a process each; with `--virtual`, devices of one process, which share its cores.
Expect `al` to be busy on all stages between fill and drain, and `bp` to wait twice a batch; a minute a method.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from jax.experimental import io_callback
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments import tables
from experiments.benchmarks import pinned
from localgrad import al, bp, dkp, init, mlp, params_sha256, spmd
from localgrad.base import Backward, BlockState, Engine, Forward, Key, LocalBlock, Message, Model, PyTree
from localgrad.cli import shell
from localgrad.data import batches
from localgrad.descent import Around, descending

METHODS: dict[str, Callable[..., Model]] = {"al": al, "dkp": dkp, "bp": bp}
SHADES = {"train": 0.9, "forward": 0.45, "backward": 0.9, "update": 0.2}

flags.DEFINE_enum("method", "al", list(METHODS), "al: local; dkp: delayed broadcast; bp: chain")
flags.DEFINE_integer("stages", 2, "stages, processes and cores")
flags.DEFINE_bool("virtual", False, "virtual devices of one process")
flags.DEFINE_integer("depth", 8, "blocks of the MLP, all of one width")
flags.DEFINE_integer("width", 1024, "features of every block and of the input")
flags.DEFINE_integer("batch_size", 1024, "examples a batch")
flags.DEFINE_integer("batches", 8, "batches of the run")
flags.DEFINE_integer("micro_batches", 4, "parts of a batch, for bp")
flags.DEFINE_string("out", "experiments/results", "folder of the trace and the chart")
pinned.define_flags()
shell.define_process_flags()
FLAGS = flags.FLAGS

Log = list[tuple[int, str, str, int]]  # block, kind of work, "begin" or "end", nanoseconds


class Bar(NamedTuple):
    """Some work on a batch, or on a part of it, in nanoseconds of the machine's monotonic clock."""

    block: int
    kind: str
    batch: int
    part: int
    begin: int
    end: int


# --- stamps ----------------------------------------------------------------------------------------------------------


def stamp(log: Log, block: int, kind: str, edge: str, given: PyTree, after: PyTree = ()) -> PyTree:
    """`given`, whose arrays nobody can read before the time has been noted; it is noted once `after` is there too."""
    leaves, structure = jax.tree.flatten(given)
    places = [i for i, leaf in enumerate(leaves) if _is_array(leaf)]
    firsts = [_first(leaves[i]) for i in places]

    def note(firsts: list, after: list) -> list:
        log.append((block, kind, edge, time.perf_counter_ns()))
        return firsts

    specs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in firsts]
    noted = io_callback(note, specs, firsts, [_first(x) for x in jax.tree.leaves(after) if _is_array(x)])
    for i, first in zip(places, noted, strict=True):
        at = (0,) * leaves[i].ndim
        leaves[i] = jax.lax.dynamic_update_slice(leaves[i], first.reshape((1,) * leaves[i].ndim), at)
    return jax.tree.unflatten(structure, leaves)


def _is_array(leaf: jax.Array) -> bool:
    return leaf.size > 0 and jnp.issubdtype(leaf.dtype, jnp.floating)


def _first(x: jax.Array) -> jax.Array:
    return x[(0,) * x.ndim]


def stamped(block: LocalBlock, index: int, log: Log) -> LocalBlock:
    """A block that notes when it works.

    Kinds of work by what it waits for: nothing, `train`; the error, `forward` and `backward` with the update; the
    gradient from above, `forward` and `backward`, and `update` once a batch.
    """
    waits, chained = block.signal != "none", block.signal == "above"
    note = lambda *args: stamp(log, index, *args)
    last = "update" if chained else "backward" if waits else "train"

    def forward(state: BlockState, message: Message, key: Key) -> Forward:
        found = block.forward(state, note("forward" if waits else "train", "begin", message), key)
        return found._replace(message=note("forward", "end", found.message, found.stash)) if waits else found

    def backward(state: BlockState, stash: PyTree, signal: PyTree) -> Backward:
        assert block.backward is not None
        if signal is None:  # the last block makes its own
            stash = note("backward", "begin", stash)
        else:
            signal = note("backward", "begin", signal)
        found = block.backward(state, stash, signal)
        if chained and index:
            return found._replace(down=note("backward", "end", found.down, found.grads))
        if chained:  # nobody is below, and what would be handed down is not worked out
            return found._replace(grads=note("backward", "end", found.grads))
        return found

    ((groups, tx),) = block.tx.items()  # one moment, one optimizer

    def update(own: PyTree, opt_state: PyTree, params: PyTree = None, **extra: PyTree):
        own = note("update", "begin", own) if chained else own
        updates, opt_state = descending(tx).update(own, opt_state, params, **extra)
        # Not through the updates: what adds them to the parameters would round differently.
        return updates, note(last, "end", jax.lax.optimization_barrier(opt_state), updates)

    stamped_tx = {groups: Around(tx.init, update)}
    return block._replace(forward=forward, backward=backward if waits else None, tx=stamped_tx)


def bars_of(log: Log, micro_batches: int) -> list[Bar]:
    """Every beginning with its end; the n-th of a block is on batch n, or on part n of so many a batch.

    The last block of `dkp` begins its backward half twice, the first time to make the error alone: an end belongs to
    the latest beginning.
    """
    found, began, count = list[Bar](), dict[tuple[int, str], int](), dict[tuple[int, str], int]()
    for block, kind, edge, now in sorted(log, key=lambda mark: mark[-1]):
        if edge == "begin":
            began[block, kind] = now
            continue
        n = count.get((block, kind), 0)
        count[block, kind] = n + 1
        batch, part = divmod(n, 1 if kind == "update" else micro_batches)
        found.append(Bar(block, kind, batch, part, began[block, kind], now))
    return found


def by_stage(bars: list[Bar], stage_of: list[int]) -> dict[int, list[Bar]]:
    """Bars of whole stages: from the first beginning of a batch, or a part of it, on a stage to its last end there."""
    found: dict[tuple, Bar] = {}
    for bar in bars:
        key = (stage_of[bar.block], bar.kind, bar.batch, bar.part)
        old = found.get(key, bar)
        found[key] = old._replace(begin=min(old.begin, bar.begin), end=max(old.end, bar.end))
    ordered = sorted(found.items(), key=lambda item: item[1].begin)
    return {s: [bar for key, bar in ordered if key[0] == s] for s in sorted(set(stage_of))}


# --- the run ---------------------------------------------------------------------------------------------------------


def make_model() -> Model:
    options: dict[str, Any] = {"bridge": ()} if FLAGS.method == "al" else {}
    spec = jax.ShapeDtypeStruct((FLAGS.batch_size, FLAGS.width), jnp.float32)
    return METHODS[FLAGS.method](mlp((FLAGS.width,) * FLAGS.depth), spec, 10, tx=optax.adam(1e-3), **options)


def train(model: Model, states: tuple[BlockState, ...]) -> tuple[Engine, Callable[[], tuple[str, float]]]:
    """The engine, and a run from given states, drain included: `(digest of the network, seconds)`."""
    parts = FLAGS.micro_batches if FLAGS.method == "bp" else None
    engine = spmd(model, stages=FLAGS.stages, uniform=False, micro_batches=parts)
    rng = np.random.default_rng(0)
    xs = rng.standard_normal((FLAGS.batches, *model.x_spec.shape), np.float32)
    ys = rng.integers(0, model.task.classes, (FLAGS.batches, model.batch_size), np.int32)
    fed = engine.put(batches(jnp.asarray(xs), jnp.asarray(ys)))

    def run() -> tuple[str, float]:
        state = jax.block_until_ready(engine.load(states, jax.random.key(1)))
        began = time.perf_counter()
        state, _ = engine.run(state, fed)
        trained = jax.block_until_ready(engine.states(state, fed))
        seconds = time.perf_counter() - began
        jax.effects_barrier()
        return params_sha256(trained), seconds

    return engine, run


def work() -> dict[str, Any]:
    """Trains without stamps and with them, each once before to compile: what this process has noted of the latter."""
    shell.devices(FLAGS.stages)
    log: Log = []
    model = make_model()
    traced = model._replace(blocks=tuple(stamped(block, i, log) for i, block in enumerate(model.blocks)))
    states = init(model, jax.random.key(0))
    engine, plain = train(model, states)
    _, noting = train(traced, states)
    plain()
    noting()
    log.clear()
    digest, seconds = dict[str, str](), dict[str, float]()
    for name, run in (("plain", plain), ("traced", noting)):
        digest[name], seconds[name] = run()
    return {
        "log": log,
        "params_sha256": digest,
        "seconds": seconds,
        "cuts": engine.plan.cuts,
        "schedule": engine.plan.schedule.name,
    }


def team() -> list[dict[str, Any]]:
    """What every process of one core has noted."""
    shell.devices(1)
    workers = pinned.team("worker", pinned.cores(FLAGS.stages))
    found = [worker.hear() for worker in workers]
    for worker in workers:
        worker.end()
    for worker in workers:
        worker.wait()
    return found


# --- what it writes --------------------------------------------------------------------------------------------------


def trace(stages: dict[int, list[Bar]], bars: list[Bar], micro_batches: int) -> list[dict[str, Any]]:
    """Events of the Chrome trace format, in microseconds since the first."""
    zero = min(bar.begin for bar in bars)
    names = [(0, s, f"stage {s}") for s in stages] + [(1, b, f"block {b}") for b in sorted({b.block for b in bars})]
    events: list[dict[str, Any]] = [
        {"name": "process_name", "ph": "M", "pid": pid, "args": {"name": name}}
        for pid, name in ((0, "stages"), (1, "blocks"))
    ]
    events += [{"name": "thread_name", "ph": "M", "pid": p, "tid": t, "args": {"name": name}} for p, t, name in names]
    rows = [(0, s, bar) for s, own in stages.items() for bar in own] + [(1, bar.block, bar) for bar in bars]
    for pid, tid, bar in rows:
        of_parts = micro_batches > 1 and bar.kind != "update"
        events.append(
            {
                "name": f"batch {bar.batch}" + (f".{bar.part}" if of_parts else ""),
                "cat": bar.kind,
                "ph": "X",
                "pid": pid,
                "tid": tid,
                "ts": (bar.begin - zero) / 1e3,
                "dur": (bar.end - bar.begin) / 1e3,
                "args": {"kind": bar.kind, "batch": bar.batch, "part": bar.part},
            }
        )
    return events


def draw(stages: dict[int, list[Bar]], title: str, path: Path) -> None:
    """The chart: one row a stage, batches by colour, kinds of work by shade."""
    zero = min(bar.begin for own in stages.values() for bar in own)
    figure = Figure(figsize=(11, 1.2 + 0.6 * len(stages)), layout="constrained")
    axes = figure.subplots()
    kinds = [kind for kind in SHADES if any(bar.kind == kind for own in stages.values() for bar in own)]
    span = max(bar.end for own in stages.values() for bar in own) - zero
    for stage, own in stages.items():
        for bar in own:
            left, width = (bar.begin - zero) / 1e6, (bar.end - bar.begin) / 1e6
            axes.barh(stage, width, left=left, height=0.8, color=f"C{bar.batch % 10}", alpha=SHADES[bar.kind])
            if bar.part == 0 and bar.kind != "update" and FLAGS.batches < 50:
                axes.text(left + 0.003 * span / 1e6, stage, str(bar.batch), va="center", fontsize=7)
    axes.set(xlabel="ms", yticks=list(stages), title=title)
    axes.set_yticklabels([f"stage {stage}" for stage in stages])
    axes.invert_yaxis()
    if len(kinds) > 1:
        patches = [Patch(color="black", alpha=SHADES[kind], label=kind) for kind in kinds]
        axes.legend(handles=patches, fontsize=7, ncols=len(kinds), loc="upper right", bbox_to_anchor=(1, -0.12))
    figure.savefig(path, dpi=120)


def main(argv: list[str]) -> int:
    folder = tables.place(FLAGS.out, folder=True)
    try:
        if FLAGS.role:
            print(json.dumps(work()), flush=True)
            return 0
        found = [work()] if FLAGS.virtual else team()
    except ValueError as error:
        return shell.refuse(str(error))
    parts = FLAGS.micro_batches if FLAGS.method == "bp" else 1
    cuts = found[0]["cuts"]
    stage_of = [s for s, (a, b) in enumerate(zip(cuts, cuts[1:], strict=False)) for _ in range(a, b)]
    bars = bars_of([mark for each in found for mark in each["log"]], parts)
    stages = by_stage(bars, stage_of)
    begin, end = min(bar.begin for bar in bars), max(bar.end for bar in bars)
    about = tables.provenance() | {
        "method": FLAGS.method,
        "schedule": found[0]["schedule"],
        "model": {"depth": FLAGS.depth, "width": FLAGS.width, "batch_size": FLAGS.batch_size},
        "batches": FLAGS.batches,
        "micro_batches": parts,
        "cuts": cuts,
        "params_sha256": found[0]["params_sha256"],
        "same_numbers": len(set(found[0]["params_sha256"].values())) == 1,
        "seconds": found[0]["seconds"],
        "busy_share": [sum(bar.end - bar.begin for bar in own) / (end - begin) for own in stages.values()],
    }
    path = folder / f"pipeline_timeline_{FLAGS.method}.json"
    path.write_text(json.dumps({"traceEvents": trace(stages, bars, parts), "otherData": about}) + "\n")
    where = "virtual devices" if FLAGS.virtual else "processes of one core"
    draw(stages, f"{FLAGS.method}, {about['schedule']}: {len(stages)} stages, {where}", path.with_suffix(".png"))
    for stage, share in enumerate(about["busy_share"]):
        shell.say(f"stage {stage}: busy {share:.0%} of the run, fill and drain included")
    same = "the same numbers as" if about["same_numbers"] else "not the same numbers as"
    seconds = about["seconds"]
    shell.say(f"{same} without stamps; {seconds['traced']:.2f} s with them, {seconds['plain']:.2f} s without")
    shell.say(f"wrote {path} and .png")
    return 0


if __name__ == "__main__":
    app.run(main)
