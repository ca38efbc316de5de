"""Codes first: Associated Learning to any depth, whose codes are learnt beside the features, before them, or fixed.

    python -m experiments.studies.al_codes                                  # 4, 16 and 64 blocks; digits, one CPU core
    python -m experiments.studies.al_codes --rows="4 blocks,16 blocks" --trials=3
    python -m experiments.studies.al_codes --rows="64 blocks fixed,64 blocks first lecun" --trials=3  # those alone

MLPs of blocks of 128 on digits, profile `neco`, codes of 128, Adam 1e-3, batch 64; test accuracy after 1, 6 and 12
epochs.  Expect the exits of the published form at chance above the first few, and those of codes made before training
to rise together, the higher the later.  Features of blocks that He's normal draws grow with the depth, and saturate the
hidden sigmoids of deep bridges: with bridges and decoders drawn by LeCun's normal (`lecun`), and with more updates
(`batch 32`, `batch 16`), expect the last exits sooner.  Blocks that add their input and end in a layer norm (`skip`,
with Adam 2e-3) hand on features of one size: expect every exit of 64 above 96 % after six epochs, and of the published
form all but the first few at chance, with skips or without.  Compiling 64 blocks takes a minute or two a row.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

import localgrad as lg
from experiments import tables
from experiments.rows import about_kept, chosen_rows, kept_rows
from localgrad.cli import shell
from localgrad.pipeline import completing_seconds

tables.define_flags("al_codes")
FLAGS = flags.FLAGS

TITLE = "Associated Learning by the number of blocks and by how its codes are made: digits, blocks of 128"
WIDTH, EPOCHS, SHOWN = 128, 12, (1, 6, 12)


class Form(NamedTuple):
    """How a row trains: options of `al`, the size of a batch, Adam's rate, and whether layers add their input."""

    options: dict[str, Any]
    batch: int = 64
    rate: float = 1e-3
    skip: bool = False


_LECUN = {"codes": "first", "kernel_init": "lecun"}
FORMS: dict[str, Form] = {
    "learned": Form({"codes": "learned"}),
    "first": Form({"codes": "first"}),
    "first lecun": Form(_LECUN),
    "first lecun batch 32": Form(_LECUN, batch=32),
    "first lecun batch 16": Form(_LECUN, batch=16),
    "skip learned": Form({"codes": "learned", "kernel_init": "lecun"}, batch=32, rate=2e-3, skip=True),
    "skip first": Form(_LECUN, batch=32, rate=2e-3, skip=True),
    "first then learning": Form({"codes": "first", "codes_learn_on": True}),
    "fixed": Form({"codes": "fixed"}),
}


def exits_of(depth: int) -> list[int]:
    """The first exit, and those at every quarter of the depth."""
    return sorted({1, *(max(1, depth * quarter // 4) for quarter in (1, 2, 3, 4))})


def measured(depth: int, form: Form, trials: int, width: int, epochs: int) -> dict[str, Any]:
    """A row: accuracy by epoch and exit over trials, the seconds that codes take, and what a step costs."""
    train, test = (lg.data.get("digits", split) for split in ("train", "test"))
    mean, std = lg.data.pixel_stats(train)
    x_spec = jax.ShapeDtypeStruct((form.batch, *train.inputs.shape[1:]), jnp.float32)
    network = lg.mlp((width,) * depth, skip=form.skip)
    model = lg.al(network, x_spec, 10, tx=optax.adam(form.rate), target_width=width, **form.options)
    engine, exits = lg.sequential(model), exits_of(depth)
    predict = jax.jit(lambda states, x: jnp.stack([model.predict(states, x, exit) for exit in exits]))
    shown = [epoch for epoch in SHOWN if epoch <= epochs]
    right: dict[int, list[list[float]]] = {epoch: [] for epoch in shown}
    digests = []
    for seed in range(trials):
        source = lg.data.source(train, batch_size=form.batch, seed=seed, mean=mean, std=std, put=engine.put)
        first, own_key = jax.random.split(jax.random.key(seed))
        state = engine.load(lg.init(model, first), own_key)
        for epoch in range(1, epochs + 1):
            steps = source.steps_per_epoch
            state, metrics = engine.run(state, source.batches((epoch - 1) * steps, steps))
            metrics.check()
            if epoch in shown:
                right[epoch].append(accuracies(predict, engine.states(state), test, mean, std))
        digests.append(lg.params_sha256(engine.states(state)))
    return {
        "exits": exits,
        "accuracy": {
            str(epoch): [tables.figure(values) for values in zip(*found, strict=True)] for epoch, found in right.items()
        },
        "seconds_of_codes": completing_seconds(model) or 0.0,
        "step_mflop": sum(engine.plan.flops) / 1e6,
        "handed_on_bytes": engine.plan.message_bytes[0],
        "params_sha256": digests,
    }


def accuracies(predict: Any, states: Any, test: Any, mean: Any, std: Any) -> list[float]:
    """Test accuracy in percent at every exit."""
    sums: Any = 0.0
    count = 0
    for x, y, mask in lg.data.eval_batches(test, 300, mean, std):
        hits = jnp.argmax(predict(states, x), axis=-1).astype(y.dtype) == y[None]
        sums, count = sums + np.sum(np.asarray(hits) & np.asarray(mask)[None], axis=1), count + int(np.sum(mask))
    return [float(value) for value in 100 * sums / count]


def main(argv: list[str]) -> int:
    tables.place(FLAGS.out, folder=True)
    depths = (4,) if FLAGS.smoke else (4, 16, 64)
    rows = {f"{depth} blocks {name}": (depth, form) for depth in depths for name, form in FORMS.items()}
    try:
        shell.devices(1)
        chosen = chosen_rows(rows, FLAGS.rows)
        kept = kept_rows(Path(FLAGS.out) / "al_codes.json", TITLE, [row for row in rows if row not in chosen])
    except (ValueError, OSError) as error:
        return shell.refuse(str(error))
    trained: dict[str, dict[str, Any]] = {}
    for row in chosen:
        shell.say(f"--- {row}")
        size = (16, 1) if FLAGS.smoke else (WIDTH, EPOCHS)
        trained[row] = measured(*rows[row], FLAGS.trials, *size)
        write({name: summary for name in rows if (summary := trained.get(name) or kept.get(name))}, kept)
    return 0


def write(found: dict[str, dict[str, Any]], kept: dict[str, dict[str, Any]]) -> None:
    """Writes the rows that there are."""
    accuracy = lambda summary, epoch: ", ".join(tables.spread(of, 1) for of in summary["accuracy"].get(str(epoch), []))
    cells = [
        [
            row,
            ", ".join(map(str, summary["exits"])),
            *(accuracy(summary, epoch) for epoch in SHOWN),
            f"{summary['seconds_of_codes']:.2f}",
            f"{summary['step_mflop']:,.0f}",
            f"{summary['handed_on_bytes']:,}",
        ]
        for row, summary in found.items()
    ]
    shown = [f"test % after epoch {epoch}" for epoch in SHOWN]
    header = ["row", "exits", *shown, "codes, seconds", "step MFLOP", "hands on, bytes"]
    note = f"{TITLE}. Mean and deviation of {FLAGS.trials} trials."
    tables.write("al_codes", header, cells, {"title": TITLE, "rows": found}, note, about_kept(kept))


if __name__ == "__main__":
    app.run(main)
