"""Trains the same networks on every engine, number of stages and batches a call, and compares the digests.

Float32, Adam with a cosine schedule, clipping by norm; a four-block MLP and a six-block CNN with dropout, a CNN with
batch norm, and on random texts a three-block BiLSTM with dropout and buckets.  Writes
`experiments/results/exactness_jax-VERSION.json` with the cores that it ran on.

    python -m experiments.checks.exactness

Expect equal digests in every cell; half an hour on two cores.  `--nets` and `--engines` check some and leave the
cells of the others in the file; the sequential engine, with which all are compared, is always trained.
"""

import json
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from experiments import tables
from localgrad import al, cnn, init, mlp, mpmd, params_sha256, sequential, spmd
from localgrad.base import Engine, Model
from localgrad.blocks import bilstm
from localgrad.cli import shell
from localgrad.data import Dataset, get, pixel_stats, source
from localgrad.report import largest_difference, table

BATCH, WORDS, LENGTH = 32, 500, 24
PER_CALL = (1, 7, 32)
HOST_DRIVEN = (1, 2, 3)  # stages of mpmd
ORDER = ("sequential", "spmd", "mpmd")


def digits() -> Dataset:
    return get("digits", "train")


def texts() -> Dataset:
    """Random texts of a quarter to all of the places."""
    rng = np.random.default_rng(0)
    words = rng.integers(1, WORDS, (1500, LENGTH), np.int32)
    words[np.arange(LENGTH) >= rng.integers(LENGTH // 4, LENGTH + 1, (len(words), 1))] = 0
    labels = rng.integers(0, 10, len(words), np.int32)
    return Dataset("texts", words, labels, classes=10, words=tuple(map(str, range(WORDS))))


NETWORKS = {
    "mlp dropout": (lambda: mlp((64, 48, 32, 32), dropout=0.2), digits, (1, 2, 4)),
    "cnn dropout": (lambda: cnn((8, 8, 16, 16, 32, 32), dropout=0.1), digits, (1, 2, 3, 6)),
    "cnn batch norm": (lambda: cnn((8, 16, 16), norm=True), digits, (1, 2, 3)),
    "bilstm dropout": (
        lambda: bilstm(WORDS, widths=(32, 32), embed_width=32, dropout=0.3, buckets=(12,)),
        texts,
        (1, 2, 3),
    ),
}

flags.DEFINE_string("out", None, "file to write")
flags.DEFINE_integer("batches", 224, "batches of each run; a multiple of 1, 7 and 32")
flags.DEFINE_list("nets", list(NETWORKS), "networks to check")
flags.DEFINE_list("engines", ["spmd", "mpmd"], "pipelines to check")
shell.define_process_flags()
FLAGS = flags.FLAGS


def engines(model: Model, stage_counts: Sequence[int]) -> Iterator[tuple[str, int | str, Engine]]:
    """Names, stages and engines, the one to compare with first."""
    yield "sequential", "sequential", sequential(model)
    if "spmd" in FLAGS.engines:
        yield from (("spmd", stages, spmd(model, stages=stages, bubble=float("nan"))) for stages in stage_counts)
    if "mpmd" in FLAGS.engines:
        yield from (("mpmd", stages, mpmd(model, stages=stages)) for stages in HOST_DRIVEN)


def main(argv: list[str]) -> int:
    if not FLAGS.nets or not set(FLAGS.nets) <= set(NETWORKS):
        return shell.refuse(f"--nets={','.join(FLAGS.nets)}: there are {', '.join(NETWORKS)}.")
    if not FLAGS.engines or not set(FLAGS.engines) <= {"spmd", "mpmd"}:
        return shell.refuse(f"--engines={','.join(FLAGS.engines)}: there are spmd, mpmd.")
    shell.devices(6)
    out = tables.place(FLAGS.out or f"experiments/results/exactness_jax-{jax.__version__}.json", folder=False)
    about = {
        "cores": len(os.sched_getaffinity(0)),
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "batches": FLAGS.batches,
    }
    again = {"sequential", *FLAGS.engines}
    rows = [row for row in checked_before(out, about) if row["network"] not in FLAGS.nets or row["engine"] not in again]
    for name in FLAGS.nets:
        network, dataset, stage_counts = NETWORKS[name]
        train = dataset()
        mean, std = (None, None) if train.words else pixel_stats(train)
        adam = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(1e-3, FLAGS.batches)))
        dtype = jnp.int32 if train.words else jnp.float32
        spec = jax.ShapeDtypeStruct((BATCH, *train.inputs.shape[1:]), dtype)
        model = al(network(), spec, train.learnt, tx={"f+b": adam, "g+h": adam}, target_width=32)
        states, expected = init(model, jax.random.key(0)), None
        for kind, stages, engine in engines(model, stage_counts):
            fed = source(train, batch_size=BATCH, seed=0, mean=mean, std=std, put=engine.put)
            for per_call in PER_CALL:
                state = engine.load(states, jax.random.key(1))
                for first in range(0, FLAGS.batches, per_call):
                    # Waiting keeps many short calls on many virtual devices from starving each other of threads.
                    state, _ = jax.block_until_ready(engine.run(state, fed.batches(first, per_call)))
                trained = jax.device_get(engine.states(state))
                digest = params_sha256(trained)
                expected = expected or (digest, trained)
                apart = largest_difference(trained, expected[1])
                rows.append(
                    {
                        "network": name, "engine": kind, "stages": stages, "per_call": per_call,
                        "params_sha256": digest, "equal": digest == expected[0], "difference": apart,
                    }
                )  # fmt: skip
                print(rows[-1], flush=True)
    rows.sort(key=lambda row: (list(NETWORKS).index(row["network"]), ORDER.index(row["engine"])))
    result = {"command": shell.command_line(), **about, "rows": rows}
    out.write_text(json.dumps(result, indent=2) + "\n")
    show = lambda row: "equal" if row["equal"] else f"{row['difference']:.1e}"
    cells = [[row["network"], row["engine"], row["stages"], row["per_call"], show(row)] for row in rows]
    print(table(["network", "engine", "stages", "batches a call", "digest"], cells))
    print(f"wrote {out}")
    return 0


def checked_before(out: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells of a file that is there, if of the same machine and size: a run replaces its own networks alone."""
    before = json.loads(out.read_text()) if out.exists() else {}
    if not all(before.get(key) == value for key, value in about.items()):
        return []
    kind = lambda row: "sequential" if row["stages"] == "sequential" else "spmd"
    return [{"engine": kind(row), **row} for row in before["rows"]]  # in files of before there was another pipeline


if __name__ == "__main__":
    app.run(main)
