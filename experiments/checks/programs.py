"""Every local method on every network: float32 digests of `mpmd` on one, two and three stages and of `sequential`.

    python -m experiments.checks.programs

Thin networks on 16 x 16 images, 32 x 32 for `vgg19`, cut into three blocks; three batches, Adam with clipping by norm,
dropout and batch norm where the network has them.  Writes experiments/results/check_programs.json and .md, pair by
pair: a cell is `equal` where all digests are, and otherwise the largest difference of any number.  Expect `equal`
everywhere; the status says whether it was.  Pairs that cannot be are refused, with the reason in the JSON.  `--nets`
and `--methods` check some and leave the others' cells in the files; two cores, five to twenty minutes a network.
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from experiments import tables
from experiments.checks.thin_networks import FEW, IMAGE, LARGER_IMAGES, THIN, thin
from localgrad import init, mpmd, params_sha256, sequential
from localgrad.base import Model
from localgrad.cli import shell
from localgrad.data import batches
from localgrad.methods import METHODS
from localgrad.pipeline import signal_of
from localgrad.report import largest_difference

flags.DEFINE_list("methods", list(METHODS), "methods to check, of which those that wait for signals are left out")
flags.DEFINE_list("nets", list(THIN), "networks to check")
flags.DEFINE_string("out", "experiments/results", "folder of the JSON and the markdown table")
shell.define_process_flags()
FLAGS = flags.FLAGS

BATCH, CLASSES, COUNT = 12, 3, 3
STAGES = (1, 2, 3)
Cell = str | dict[str, Any]


def model_of(method: str, net: str) -> Model:
    """A method on a thin network.

    Raises:
      ValueError: if the method refuses the network.
    """
    side = LARGER_IMAGES.get(net, IMAGE)
    adam = lambda scale: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3 * scale))
    spec = jax.ShapeDtypeStruct((BATCH, side, side, 1), jnp.float32)
    return METHODS[method](thin(net), spec, CLASSES, adam, **FEW.get(method, {}))


def compared(model: Model) -> dict[str, Any]:
    """The digest of the sequential engine, the stages on which `mpmd` has another, and the largest difference."""
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.normal(size=(COUNT, *model.x_spec.shape)), jnp.float32)
    fed = batches(xs, jnp.asarray(rng.integers(0, CLASSES, (COUNT, BATCH)).astype(np.int32)))
    states = init(model, jax.random.key(0))

    def trained(engine: Any) -> Any:
        state, _ = engine.run(engine.load(states, jax.random.key(1)), fed)
        return jax.device_get(engine.states(state))

    expected, differing, largest = trained(sequential(model)), [], 0.0
    for stages in [n for n in STAGES if n <= len(model.blocks)]:
        found = trained(mpmd(model, stages=stages))
        if params_sha256(found) != params_sha256(expected):
            differing.append(stages)
        largest = float(np.maximum(largest, largest_difference(found, expected)))  # a NaN stays
    return {"params_sha256": params_sha256(expected), "differ": differing, "difference": largest}


def cell_of(method: str, net: str) -> Cell | None:
    """What one pair gives; None for a method that waits for signals."""
    try:
        model = model_of(method, net)
        return compared(model) if signal_of(model) == "none" else None
    except ValueError as error:
        return str(error)


def show(cell: Cell | None) -> str:
    """A cell of the table.

    Examples:
      >>> show({"differ": [], "difference": 0.0}), show({"differ": [2], "difference": 2e-8}), show("no images")
      ('equal', '2e-08', 'refused')
    """
    if cell is None:
        return ""
    if isinstance(cell, str):
        return "refused"
    return f"{cell['difference']:.0e}" if cell["differ"] else "equal"


def sound(cell: Cell | None) -> bool:
    return not isinstance(cell, dict) or not cell["differ"]


def write(rows: dict[str, dict[str, Cell]], by: dict[str, Any]) -> None:
    """The table so far, in the order of the program's own lists."""
    nets = [net for net in THIN if net in rows]
    methods = [method for method in METHODS if any(method in rows[net] for net in nets)]
    cells = [[method, *(show(rows[net].get(method)) for net in nets)] for method in methods]
    found = [cell for net in nets for cell in rows[net].values() if isinstance(cell, dict)]
    note = (
        f"Float32 digests of `mpmd` on 1, 2 and 3 stages against `sequential` after {COUNT} batches: {len(found)} "
        f"pairs, all digests equal in {sum(map(sound, found))}. Otherwise the largest difference. Refused: the method "
        "cannot train the network, for the reason in the JSON."
    )
    tables.write("check_programs", ["method", *nets], cells, {"rows": rows, "by": by}, note)


def main(argv: list[str]) -> int:
    for flag, given, known in (("methods", FLAGS.methods, METHODS), ("nets", FLAGS.nets, THIN)):
        if not set(given) <= set(known):
            return shell.refuse(f"--{flag}={','.join(given)}: there are {', '.join(known)}.")
    shell.devices(max(STAGES))
    path = tables.place(FLAGS.out, folder=True) / "check_programs.json"
    before = json.loads(path.read_text()) if path.exists() else {"rows": {}, "by": {}}
    rows, by = before["rows"], before["by"]
    for net in FLAGS.nets:
        for method in FLAGS.methods:
            cell = cell_of(method, net)
            shell.say(f"{net} {method}: {cell}")
            if cell is not None:
                rows.setdefault(net, {})[method], by[net] = cell, tables.provenance()
                write(rows, by)
        jax.clear_caches()
    return 0 if all(sound(rows.get(net, {}).get(method)) for net in FLAGS.nets for method in FLAGS.methods) else 1


if __name__ == "__main__":
    app.run(main)
