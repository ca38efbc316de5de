"""The training step of Associated Learning by how its codes are made: frozen ones against those that learn beside it.

    python -m experiments.benchmarks.codes        # a minute
    taskset -c 0 python -m experiments.benchmarks.codes --repetitions=15

Three layers of 512 on 784 features, profile `neco`, the sequential engine, batches of 128; all forms take turns.  A
frozen step has no g and h in it and looks codes up.  Most of what is left is the bridge, whose hidden layer is five
times as wide as a code: expect a few percent less time, and more with the one-layer bridge.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from experiments import tables
from experiments.benchmarks import turns
from localgrad import al, init, mlp, sequential
from localgrad.cli import shell
from localgrad.data import batches

flags.DEFINE_integer("batches", 20, "batches a measurement")
flags.DEFINE_integer("batch_size", 128, "examples a batch")
turns.define_flags(9)
FLAGS = flags.FLAGS

CODES: dict[str, dict[str, Any]] = {
    "learned": {},
    "first": {"codes": "first"},
    "first then learning": {"codes": "first", "codes_learn_on": True},
}
BRIDGES: dict[str, Sequence[int] | None] = {"bridge of the profile": None, "one-layer bridge": ()}
CLASSES = 10


def program(options: dict[str, Any], xs: jax.Array, ys: jax.Array, width: int) -> tuple[Callable[[], Any], float]:
    """A call that trains all batches, its state carried; and the FLOPs of a step."""
    spec = jax.ShapeDtypeStruct(xs.shape[1:], xs.dtype)
    model = al(mlp((width,) * 3), spec, CLASSES, tx=optax.adam(1e-3), target_width=width // 4, **options)
    engine = sequential(model)
    state, fed = engine.load(init(model, jax.random.key(0)), jax.random.key(1)), engine.put(batches(xs, ys))

    def train() -> Any:
        nonlocal state
        state, metrics = engine.run(state, fed)
        return metrics

    return train, float(sum(engine.plan.flops))


def main(argv: list[str]) -> int:
    tables.place(FLAGS.out, folder=True)
    shell.devices(1)
    batch, count, width, features = (8, 2, 16, 20) if FLAGS.smoke else (FLAGS.batch_size, FLAGS.batches, 512, 784)
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.standard_normal((count, batch, features), np.float32))
    ys = jnp.asarray(rng.integers(0, CLASSES, (count, batch), np.int32))
    cells: list[list[str]] = []
    rows: dict[str, dict[str, Any]] = {}
    for bridge, widths in BRIDGES.items():
        made = {form: program({**options, "bridge": widths}, xs, ys, width) for form, options in CODES.items()}
        seconds = turns.in_turns({form: train for form, (train, _) in made.items()}, FLAGS.repetitions)
        for form, values in seconds.items():
            ratio, flops = turns.ratio(values, seconds["learned"]), made[form][1]
            each = [value / count for value in values]
            name = f"{form}, {bridge}"
            rows[name] = {"seconds_a_step": each, "to_learned": ratio, "flops_a_step": flops}
            cells.append([name, f"{1e3 * np.median(each):.2f}", turns.show(ratio), f"{flops / 1e6:,.0f}"])
    title = f"Associated Learning's step by how its codes are made, three layers of {width}, {batch} examples"
    note = f"{title}; ms is the median of {FLAGS.repetitions}, taken in turns; the ratio is median (least to largest)."
    tables.write("bench_codes", ["row", "ms", "/ learned", "MFLOP"], cells, {"title": title, "rows": rows}, note)
    return 0


if __name__ == "__main__":
    app.run(main)
