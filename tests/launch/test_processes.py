"""Two processes over jax.distributed train the network that one trains."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from ..quick import QUICK

ROOT = Path(__file__).parents[2]
RUN = [
    "-m",
    "experiments.train",
    "--net=mlp",
    "--widths=32,24",
    "--target_width=16",
    "--epochs=1",
    "--stages=2",
    "--dropout=0.1",
]
LATE = """
import time
import jax, optax
from absl import app
from experiments import setup
from localgrad import al, data, init, mlp, spmd

setup.define_process_flags()

def main(argv):
    setup.devices(2)
    xs, ys = jax.numpy.ones((3, 4, 5)), jax.numpy.zeros((3, 4), "int32")
    model = al(mlp((6, 5)), jax.ShapeDtypeStruct((4, 5), "float32"), 3, tx=optax.sgd(0.1))
    engine = spmd(model, stages=2)
    time.sleep(35 * jax.process_index())
    state = engine.load(init(model, jax.random.key(0)), jax.random.key(1))
    jax.block_until_ready(engine.run(state, engine.put(data.batches(xs, ys))))

app.run(main)
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("taskset") is None or len(os.sched_getaffinity(0)) < 2, reason="needs two cores"),
]


def two(*flags, **environment):
    run(["bash", "launch/processes.sh", "2", *RUN, *flags], PYTHON=sys.executable, **environment)


def one(*flags, **environment):
    run(["taskset", "-c", "0", sys.executable, *RUN, *flags], **environment)


def run(command, **environment):
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def saved(folder):
    manager = ocp.CheckpointManager(folder / "checkpoints")
    return manager.restore(manager.latest_step(), args=ocp.args.Composite(blocks=ocp.args.StandardRestore()))["blocks"]


def digest(folder):
    return json.loads((folder / "summary.json").read_text())["params_sha256"]


@pytest.mark.full
def test_two_processes_agree_with_one(tmp_path):
    import jax

    two("--dtype=float64", f"--workdir={tmp_path / 'two'}", **QUICK)
    one("--dtype=float64", f"--workdir={tmp_path / 'one'}", **QUICK)
    ours, theirs = jax.tree.leaves(saved(tmp_path / "two")), jax.tree.leaves(saved(tmp_path / "one"))
    assert len(ours) == len(theirs) > 20
    assert all(np.max(np.abs(a - b)) < 1e-12 for a, b in zip(ours, theirs, strict=True))


def test_digests_are_equal_where_each_process_has_as_many_cores(tmp_path):
    two(f"--workdir={tmp_path / 'two'}")
    one(f"--workdir={tmp_path / 'one'}")
    assert digest(tmp_path / "two") == digest(tmp_path / "one")


@pytest.mark.full
def test_processes_wait_for_one_that_compiles_for_long(tmp_path):
    """Those of a CPU give up a first meeting after 30 s; they have met when the engine is made."""
    (tmp_path / "late.py").write_text(LATE)
    places = {"PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
    run(["bash", "launch/processes.sh", "2", str(tmp_path / "late.py")], **places, **QUICK)
