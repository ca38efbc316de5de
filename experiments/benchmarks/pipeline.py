"""What a pipeline over pinned processes gains, against one core, GPipe and PyTorch's pipeline, beside the cost model.

Every program runs in processes of one core each, stages cut so that what their blocks take by the clock is equal. In
turns, within one run: each method unpipelined on one core; its pipeline over S processes (`local` for al, scl, predsim
and dgl, `delayed` for dkp, GPipe with M = S, 2 S and 4 S micro-batches for bp); PyTorch on one core, and through its
own pipeline, GPipe and 1F1B. Cores of a shared machine are not equally fast, so what is unpipelined is asked on each
core, one at a time, and its time is their mean. What the host of a virtual machine disturbs is measured again
(`experiments.stolen_time`).

The model: the work of each stage alone, all stages at once and nothing travelling, and one hop, a `ppermute` of the
largest message.  A tick is the dearest of the stages at work on it, which on a shared machine is now one and now the
other, and a hop; a batch costs

    local, delayed   one tick                    state stays in flight between calls: the bubble is once a run
    chain            M + S - 1 ticks of a part   and as many hops again, back; while it fills and drains not all work

Predicted from these and measured should agree to 5 %.  `ledger` is the speed-up foretold from FLOPs alone, before
anything runs; `ceiling` is what S unpipelined processes at once reach, which share nothing but the machine.  A local
method gains on GPipe as long as its heads cost less than (S - 1) / M of the network: `heavy` shows where it loses.
`long` has ticks of a second, which the jitter of a shared machine disturbs less.

    python -m experiments.benchmarks.pipeline

`--nets` measures some networks anew and leaves the figures of the others; each says in the JSON what measured it.

Hardware: any machine with S cores.  Figures: experiments/results/bench_pipeline.md; twenty minutes a network.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments import tables
from experiments.benchmarks import pinned, turns
from experiments.benchmarks.contenders import MODELS, SMOKE, Network, examples, make_model, stage_model
from localgrad import init, ledger, sequential, spmd
from localgrad.base import Engine, Model
from localgrad.cli import shell
from localgrad.methods import METHODS
from localgrad.pipeline import balance, block_seconds, specs
from localgrad.pipeline.partition import state_bytes

flags.DEFINE_list("nets", list(MODELS), "networks of experiments/benchmarks/contenders.py")
flags.DEFINE_list("methods", ["al", "scl", "predsim", "dgl", "dkp", "bp"], "methods")
flags.DEFINE_integer("stages", 2, "stages S, processes and cores")
flags.DEFINE_integer("batches", 4, "batches a measurement")
flags.DEFINE_bool("torch", True, "PyTorch's pipeline too")
flags.DEFINE_string("net", None, "set by the program itself: the network of a worker")
flags.DEFINE_string("cuts", None, "set by the program itself: row -> where stages begin and end")
turns.define_flags(9)
pinned.define_flags()
FLAGS = flags.FLAGS

HOPS = 100  # of a measurement
Call = Callable[[], Any]


def network(net: str) -> Network:
    return (SMOKE if FLAGS.smoke else MODELS)[net]


def parts() -> list[int]:
    """Numbers of micro-batches."""
    return [FLAGS.stages * n for n in ((1,) if FLAGS.smoke else (1, 2, 4))]


def rows(net: str) -> dict[str, tuple[str, int]]:
    """Row -> (method, micro-batches): what is pipelined on a network."""
    there = network(net).methods or FLAGS.methods
    found = {method: (method, 1) for method in FLAGS.methods if method in there and method != "bp"}
    return found | ({f"bp, M = {m}": ("bp", m) for m in parts()} if "bp" in FLAGS.methods else {})


def training(model: Model, engine: Engine, count: int) -> Call:
    """A call that trains on so many batches, its state carried from call to call."""
    fed = engine.put(examples(model, count))
    state = engine.load(init(model, jax.random.key(0)), jax.random.key(1))

    def run() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(engine.run(state, fed))

    return run


# --- workers ---------------------------------------------------------------------------------------------------------


def work_out_cuts(net: str) -> None:
    """On one core: the cuts that balance what each block takes by the clock."""
    shell.devices(1)
    found = {}
    for row, (method, micro) in rows(net).items():
        model = make_model(network(net), method)
        found[row] = balance(block_seconds(model, parts=micro), FLAGS.stages)
    if FLAGS.torch:
        from experiments.benchmarks import torch_pipeline

        found["torch"] = balance(torch_pipeline.layer_seconds(network(net)), FLAGS.stages)
    pinned.serve({}, {"cuts": found})


def cuts_of(row: str) -> list[int]:
    return json.loads(FLAGS.cuts)[row]


def work_alone(net: str) -> None:
    """On one core: every method unpipelined, and the work of each stage."""
    shell.devices(1)
    programs: dict[str, Call] = {}
    for row, (method, micro) in rows(net).items():
        model = make_model(network(net), method)
        if method not in programs:
            programs[method] = training(model, sequential(model), FLAGS.batches)
        for stage in range(FLAGS.stages):
            part = stage_model(model, cuts_of(row), stage, micro)
            one = spmd(part, stages=1, micro_batches=micro) if method == "bp" else sequential(part)
            programs[f"{row}, stage {stage}"] = training(part, one, 1)
    pinned.serve(programs, {})


def work_together(net: str) -> None:
    """One of S processes: every pipeline, and its hops."""
    shell.devices(FLAGS.stages)
    programs: dict[str, Call] = {}
    about = {}
    for row, (method, micro) in rows(net).items():
        model = make_model(network(net), method)
        laid = partial(spmd, model, stages=FLAGS.stages, micro_batches=micro if method == "bp" else None)
        engine = laid(cuts=cuts_of(row))
        programs[row] = training(model, engine, FLAGS.batches)
        largest = max(map(state_bytes, specs(model, 1, micro)[1][1:-1]))
        assert engine.mesh is not None
        programs[f"{row}, hop"] = _hops(engine.mesh, largest)
        about[row] = {
            "cuts": engine.plan.cuts,
            "cuts_by_flops": laid().plan.cuts,
            "ledger": ledger(model, specs(model)[0], laid().plan, 10**6).speed_up,
            "hop_bytes": largest,
        }
    pinned.serve(programs, {"rows": about})


def work_in_torch(net: str) -> None:
    """PyTorch: a stage of its pipeline where there are several processes, else the whole on one core."""
    from experiments.benchmarks import torch_pipeline

    one = network(net)
    if FLAGS.num_processes is None:
        pinned.serve({"torch": torch_pipeline.alone(one, FLAGS.batches)}, {})
        return
    torch_pipeline.join()
    programs = {
        f"{schedule}, M = {m}": torch_pipeline.pipeline(one, cuts_of("torch"), schedule, m, FLAGS.batches)
        for schedule in torch_pipeline.SCHEDULES
        for m in parts()
    }
    pinned.serve(programs, {})


def _hops(mesh: jax.sharding.Mesh, size: int) -> Call:
    """A call of `HOPS` hops of so many bytes from stage to stage."""
    up = [(s, s + 1) for s in range(FLAGS.stages - 1)]
    hop = lambda x, _: (jax.lax.ppermute(x, "stage", up), None)
    body = lambda x: jax.lax.scan(hop, x, None, length=HOPS)[0]
    spec = jax.sharding.PartitionSpec(None, "stage")
    run = jax.jit(jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))
    there = jax.sharding.NamedSharding(mesh, spec)
    x = jax.jit(lambda: jnp.zeros((size // 4, FLAGS.stages)), out_shardings=there)()
    return lambda: jax.block_until_ready(run(x))


# --- the measurement -------------------------------------------------------------------------------------------------


def measured(net: str) -> dict[str, Any]:
    """All seconds of a network: row or program -> one value a repetition, and what the workers say of themselves."""
    where, own = pinned.cores(FLAGS.stages), [f"--net={net}"]
    chooser = pinned.Worker("cuts", where[0], *own)
    own.append(f"--cuts={json.dumps(chooser.hear()['cuts'])}")
    chooser.end()
    chooser.wait()
    alone = [pinned.Worker("alone", core, *own) for core in where]
    for worker in alone:
        worker.hear()
    together = pinned.team("together", where, *own)
    about, *_ = [worker.hear() for worker in together]
    torch_alone, torch_together = [], []
    if FLAGS.torch:
        torch_alone = [pinned.Worker("torch", core, *own) for core in where]
        torch_together = pinned.team("torch", where, *own)
        for worker in torch_alone + torch_together:
            worker.hear()
    seconds: dict[str, list[float]] = {}
    first = next(iter(rows(net)))
    note = lambda name, value: seconds.setdefault(name, []).append(value)
    mean = lambda workers, name: float(np.mean([pinned.at_once([worker], name)[0] for worker in workers]))
    for repetition in range(FLAGS.repetitions):
        for row, (method, _) in rows(net).items():
            if len(seconds.get(f"{method} on one core", ())) == repetition:
                note(f"{method} on one core", mean(alone, method))
            if row == first:
                note("unpipelined at once", max(pinned.at_once(alone, method)))
            stages = [f"{row}, stage {s}" for s in range(FLAGS.stages)]
            each = np.array([pinned.at_once(alone, stages) for _ in range(FLAGS.batches)])
            note(f"{row}, dearest stage", float(each.max(1).sum()))
            for stage, spent in zip(stages, each.sum(0), strict=True):
                note(stage, float(spent))
            note(f"{row}, hop", max(pinned.at_once(together, f"{row}, hop")) / HOPS)
            note(row, max(pinned.at_once(together, row)))
        if FLAGS.torch:
            note("torch on one core", mean(torch_alone, "torch"))
            for schedule in ("gpipe", "1f1b"):
                for m in parts():
                    name = f"{schedule}, M = {m}"
                    note(f"torch {name}", max(pinned.at_once(torch_together, name)))
        shell.say(f"{net}: repetition {repetition + 1} of {FLAGS.repetitions}")
    workers = [*alone, *together, *torch_alone, *torch_together]
    for worker in workers:
        worker.end()
    for worker in workers:
        worker.wait()
    return {"seconds": seconds, "rows": about["rows"]}


def predicted(row: str, micro: int, method: str, seconds: dict[str, list[float]]) -> np.ndarray:
    """Seconds of a measurement by the model, one value a repetition."""
    dearest, hop = (np.array(seconds[f"{row}, {what}"]) for what in ("dearest stage", "hop"))
    if method != "bp":
        return dearest + FLAGS.batches * hop
    stages = [np.array(seconds[f"{row}, stage {s}"]) for s in range(FLAGS.stages)]
    ticks = micro + FLAGS.stages - 1
    at_work = [stages[max(0, tick - micro + 1) : tick + 1] for tick in range(ticks)]
    busy = sum(dearest if len(some) == FLAGS.stages else np.max(some, 0) for some in at_work)
    return busy / micro + FLAGS.batches * 2 * ticks * hop


def ceiling(net: str, seconds: dict[str, list[float]]) -> dict[str, float]:
    """What S unpipelined processes at once do of the first row's method, which share nothing but the machine."""
    method, _ = next(iter(rows(net).values()))
    return turns.ratio(FLAGS.stages * np.array(seconds[f"{method} on one core"]), seconds["unpipelined at once"])


def judged(net: str, found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures of every row of a network."""
    seconds, judged_rows = found["seconds"], {}
    gpipe = f"bp, M = {FLAGS.stages}"
    for row, (method, micro) in rows(net).items():
        by_model = predicted(row, micro, method, seconds)
        figures_of = {
            "speed_up": turns.ratio(seconds[f"{method} on one core"], seconds[row]),
            "predicted_speed_up": turns.ratio(seconds[f"{method} on one core"], by_model),
            "ledger": found["rows"][row]["ledger"],
            "of_model": turns.ratio(seconds[row], by_model),
            **{key: found["rows"][row][key] for key in ("cuts", "cuts_by_flops", "hop_bytes")},
        }
        if gpipe in seconds:
            figures_of["to_bp_on_one_core"] = turns.ratio(seconds["bp on one core"], seconds[row])
            figures_of["to_gpipe"] = turns.ratio(seconds[gpipe], seconds[row])
            model_of_gpipe = predicted(gpipe, FLAGS.stages, "bp", seconds)
            figures_of["to_gpipe_predicted"] = turns.ratio(model_of_gpipe, by_model)
        judged_rows[row] = figures_of
    for row in [name for name in seconds if name.startswith("torch ") and name != "torch on one core"]:
        judged_rows[row] = {"speed_up": turns.ratio(seconds["torch on one core"], seconds[row])}
        if gpipe in seconds:
            judged_rows[row]["to_bp_on_one_core"] = turns.ratio(seconds["bp on one core"], seconds[row])
            judged_rows[row]["to_gpipe"] = turns.ratio(seconds[gpipe], seconds[row])
    return judged_rows


def main(argv: list[str]) -> int:
    if FLAGS.role:
        roles = {"cuts": work_out_cuts, "alone": work_alone, "together": work_together, "torch": work_in_torch}
        roles[FLAGS.role](FLAGS.net)
        return 0
    for flag, given, known in (("nets", FLAGS.nets, MODELS), ("methods", FLAGS.methods, METHODS)):
        if not given or not set(given) <= set(known):
            return shell.refuse(f"--{flag}={','.join(given)}: there are {', '.join(known)}.")
    tables.place(FLAGS.out, folder=True)
    for net in FLAGS.nets:
        if not rows(net):
            there = ", ".join(network(net).methods or METHODS)
            return shell.refuse(f"--methods={','.join(FLAGS.methods)}: {net} has {there} and bp.")
    try:
        pinned.cores(FLAGS.stages)
    except ValueError as error:
        return shell.refuse(f"--stages={FLAGS.stages}: {error}")
    result = measured_before()
    for net in FLAGS.nets:
        found = measured(net)
        result[net] = {
            "title": network(net).title,
            "rows": judged(net, found),
            "ceiling": ceiling(net, found["seconds"]),
            "seconds": found["seconds"],
            "by": tables.provenance(),
        }
        write(result)  # after each, so that one that fails loses none
    return 0


def measured_before() -> dict[str, Any]:
    """The networks of a result file that is there: those of this run replace their own figures alone."""
    path = Path(FLAGS.out) / "bench_pipeline.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    return before["networks"] if before.get("stages") == FLAGS.stages else {}


def write(result: dict[str, Any]) -> None:
    """The result files of the networks so far."""
    shown = lambda row, key: turns.show(row[key]) if key in row else ""
    fastest = lambda row, key: f"{row[key]['fastest']:.2f}" if key in row else ""
    keys = ("speed_up", "predicted_speed_up", "of_model", "to_bp_on_one_core", "to_gpipe", "to_gpipe_predicted")
    cells = [
        [net, name, *(shown(row, key) for key in keys), fastest(row, "speed_up"), fastest(row, "of_model")]
        for net, each in result.items()
        for name, row in each["rows"].items()
    ]
    header = [
        "network", "row", "speed-up over one core", "predicted", "measured / predicted time", "over bp on one core",
        f"over GPipe, M = {FLAGS.stages}", "predicted", "speed-up, fastest", "measured / predicted, fastest",
    ]  # fmt: skip
    ceilings = "; ".join(f"{net} {turns.show(each['ceiling'])}" for net, each in result.items())
    note = (
        f"{FLAGS.stages} processes of one core each, in turns; median (least to largest), and the fastest of each. "
        f"Unpipelined at once, what the machine gives to work that shares nothing: {ceilings}. "
        + " ".join(f"`{net}`: {each['title']}." for net, each in result.items())
    )
    tables.write("bench_pipeline", header, cells, {"stages": FLAGS.stages, "networks": result}, note)


if __name__ == "__main__":
    app.run(main)
