"""Every method on every network: three batches on one and on three stages, in float64.

    python -m experiments.checks.pairs

Thin networks on 16 x 16 images, 32 x 32 for `vgg19`, cut into three blocks, or layer by layer for the methods that
need one layer a block; SGD with momentum, bubbles full of NaN. Neither images nor batches are smaller than that, nor
is the rate higher: a network so thin amplifies the last bit in any two programs. At ten times the rate two
compilations of one sequential program are 4e-12 apart after three batches (`bp_matched` on `alexnet`), at this one
2e-14; `kp` on `vgg19` is 3e-12 apart on images of 16 and 3e-13 on images of 32, where the last four layers see more
than one place. Writes the largest difference of any parameter, statistic or optimizer state to
`experiments/results/check_pairs_jax-VERSION.json` and `.md`. Expect at most 1e-12; the status says whether it was.
Pairs that cannot be are refused, with the reason. Methods that wait for the error at the output are checked locked and
delayed. Some hours on two cores; `--nets` and `--methods` check some and leave the figures of the others in the files.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from experiments import tables
from experiments.checks.thin_networks import FEW, IMAGE, LARGER_IMAGES, THIN, engines, thin
from localgrad import init
from localgrad.cli import shell
from localgrad.data import batches
from localgrad.methods import METHODS
from localgrad.report import largest_difference

flags.DEFINE_list("methods", list(METHODS), "methods to check")
flags.DEFINE_list("nets", list(THIN), "networks to check")
flags.DEFINE_string("out", "experiments/results", "folder of the JSON and the markdown table")
shell.define_process_flags()
FLAGS = flags.FLAGS

ONE_LAYER = ("fa", "kp", "bp_fc")
BATCH, CLASSES, STAGES, RATE, LAW = 12, 3, 3, 0.01, 1e-12
NAME = f"check_pairs_jax-{jax.__version__}"


def apart(method: str, net: str) -> float | str:
    """The largest difference between one and three stages, or why the method refuses the network."""
    side = LARGER_IMAGES.get(net, IMAGE)
    spec = jax.ShapeDtypeStruct((BATCH, side, side, 1), jnp.float64)
    try:
        network, tx = thin(net, fine=method in ONE_LAYER), lambda scale: optax.sgd(RATE * scale, momentum=0.9)
        model = METHODS[method](network, spec, CLASSES, tx, **FEW.get(method, {}))
    except ValueError as error:
        return str(error)
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.normal(size=(3, *model.x_spec.shape)))
    fed = batches(xs, jnp.asarray(rng.integers(0, CLASSES, (3, BATCH)).astype(np.int32)))
    states, largest = init(model, jax.random.key(0)), 0.0
    for pair in engines(model, STAGES):
        found = []
        for engine in pair:
            state, _ = engine.run(engine.load(states, jax.random.key(1)), fed)
            found.append(jax.device_get(engine.states(state, fed)))
        largest = float(np.maximum(largest, largest_difference(*found)))  # a NaN stays
    return largest


def main(argv: list[str]) -> int:
    for flag, given, known in (("methods", FLAGS.methods, METHODS), ("nets", FLAGS.nets, THIN)):
        if not set(given) <= set(known):
            return shell.refuse(f"--{flag}={','.join(given)}: there are {', '.join(known)}.")
    tables.place(FLAGS.out, folder=True)
    shell.devices(STAGES, x64=True)
    jax.config.update("jax_disable_most_optimizations", True)  # the law holds with and without; compiles faster
    table, by = checked_before()
    for net in FLAGS.nets:
        row: dict[str, float | str] = {}
        for method in FLAGS.methods:
            row[method] = apart(method, net)
            shell.say(f"{net} {method}: {row[method]}")
        jax.clear_caches()
        table[net] = {**table.get(net, {}), **row}
        others = [{**run, "methods": [m for m in run["methods"] if m not in row]} for run in by.get(net, [])]
        by[net] = [*(run for run in others if run["methods"]), {"methods": list(row), **tables.provenance()}]
        write(table, by)
    return 0 if np.max([largest_of(table[net]) for net in FLAGS.nets]) <= LAW else 1  # a NaN is neither


def checked_before() -> tuple[dict[str, dict[str, float | str]], dict[str, Any]]:
    """Figures that are there, by network and method, and what each was made by: a run replaces its own alone."""
    path = Path(FLAGS.out) / f"{NAME}.json"
    before = json.loads(path.read_text()) if path.exists() else {"rows": {}, "by": {}}
    return before["rows"], before["by"]


def largest_of(row: dict[str, float | str]) -> float:
    """The largest difference of a network; 0 if every method refuses it."""
    return float(np.max([0.0, *(value for value in row.values() if not isinstance(value, str))]))


def write(table: dict[str, dict[str, float | str]], by: dict[str, Any]) -> None:
    """The table of the networks so far, in the order of the program's own list."""
    table = {net: table[net] for net in THIN if net in table}
    largest = np.max([largest_of(row) for row in table.values()])
    pairs = sum(not isinstance(value, str) for row in table.values() for value in row.values())
    show = lambda value: "" if value is None else "refused" if isinstance(value, str) else f"{value:.0e}"
    cells = [[net, *(show(row.get(method)) for method in METHODS)] for net, row in table.items()]
    note = (
        f"Largest difference after three batches between one and {STAGES} stages, float64; {pairs} pairs, the "
        f"largest {largest:.1e}. Refused: the method cannot train the network, for the reason in the JSON; empty: "
        "not checked."
    )
    tables.write(NAME, ["network", *METHODS], cells, {"rows": table, "by": by}, note)


if __name__ == "__main__":
    app.run(main)
