"""The launcher; and two processes over jax.distributed train the network that one trains, or end as they should."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from experiments.checks import process_runs, processes

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
from localgrad.cli import shell
from localgrad import al, data, init, mlp, spmd

shell.define_process_flags()

def main(argv):
    shell.devices(2)
    xs, ys = jax.numpy.ones((3, 4, 5)), jax.numpy.zeros((3, 4), "int32")
    model = al(mlp((6, 5)), jax.ShapeDtypeStruct((4, 5), "float32"), 3, tx=optax.sgd(0.1))
    engine = spmd(model, stages=2)
    time.sleep(35 * jax.process_index())
    state = engine.load(init(model, jax.random.key(0)), jax.random.key(1))
    jax.block_until_ready(engine.run(state, engine.put(data.batches(xs, ys))))

app.run(main)
"""
# Says where it runs and what it hears; --act=N,WHAT is what process N does.
PROGRAM = """
import os, signal, sys, time
flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
mine, act = flags["process_id"], dict(pair.split(":") for pair in flags.get("act", "").split(",") if pair)

def heard(signum, frame):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Not `print`: the signal may come while the program's own is at work, which does not let a second one in.
    os.write(1, f"{mine} heard {signal.Signals(signum).name}\\n".encode())
    os._exit(40 + int(mine))

signal.signal(signal.SIGTERM, heard)
place = f"{mine} of {flags['num_processes']} on {sorted(os.sched_getaffinity(0))} {flags['coordinator']}"
os.write(1, f"{place}\\n".encode())  # in one piece, whatever PYTHONUNBUFFERED says: the test reads while it is written
if act.get(mine) == "fail":
    sys.exit(9)
if act.get(mine) == "end":
    sys.exit(0)
time.sleep(60)
"""
two_cores = pytest.mark.skipif(
    shutil.which("taskset") is None or len(os.sched_getaffinity(0)) < 2, reason="needs two cores"
)


@pytest.fixture
def launcher(tmp_path):
    """`(*flags, count=2, **environment) -> process` of a launcher of PROGRAM, once all programs have said something."""
    (tmp_path / "program.py").write_text(PROGRAM)
    started = []
    for asks in (signal.SIGINT, signal.SIGHUP):
        if (
            signal.getsignal(asks) is signal.SIG_IGN
        ):  # in a shell's background, under nohup: programs would ignore it too
            signal.signal(asks, signal.default_int_handler)

    def start(*flags, count=2, **environment):
        command = ["bash", "launch/processes.sh", str(count), str(tmp_path / "program.py"), *flags]
        started.append(process_runs.launch(command, tmp_path, f"launcher{len(started)}", environment))
        said = lambda: started[-1].out.read_text().count("\n") >= count
        assert process_runs.wait_until(said, [started[-1]], 60), started[-1].err.read_text()
        return started[-1]

    yield start
    for process in started:
        if process.popen.poll() is None:
            os.killpg(process.popen.pid, signal.SIGKILL)
        process.popen.wait()


@pytest.mark.parametrize("arguments", [[], ["0", "-m", "x"], ["two", "-m", "x"], ["2"], ["-m", "x"]])
def test_the_launcher_refuses_what_it_cannot_start(arguments):
    done = subprocess.run(["bash", "launch/processes.sh", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: usage: bash launch/processes.sh N") and done.stderr.count("\n") == 1


def test_the_launcher_says_that_there_is_no_such_python():
    done = subprocess.run(
        ["bash", "launch/processes.sh", "2", "-m", "x"], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHON": "/nowhere/python"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "error: PYTHON=/nowhere/python does not run" in done.stderr


@pytest.mark.parametrize(
    ("send", "to"),
    [
        (signal.SIGTERM, os.kill),
        (signal.SIGTERM, os.killpg),
        (signal.SIGINT, os.killpg),
        (signal.SIGHUP, os.killpg),
    ],
)
def test_signals_reach_the_programs_themselves_and_nobody_is_left(send, to, launcher, tmp_path):
    process = launcher()
    to(process.popen.pid, send)
    assert process.popen.wait(60) == 41, "the worst of 40 and 41"
    said = process.out.read_text()
    for i in range(2):
        assert said.count(f"{i} heard SIGTERM") == 1
    assert process_runs.left(str(tmp_path)) == []


def test_the_launcher_waits_for_the_last_and_ends_as_the_worst(launcher):
    process = launcher("--act=0:end,1:fail", count=3, LINGER="1000")
    time.sleep(1)
    assert process.popen.poll() is None
    process.popen.terminate()
    assert process.popen.wait(60) == 42
    assert launcher("--act=0:end,1:end").popen.wait(60) == 0


def test_one_that_does_not_leave_after_another_failed_is_killed(launcher, tmp_path):
    process = launcher("--act=1:fail", LINGER="2")
    stuck = process_runs.left(f"{tmp_path}/program.py --act=1:fail".replace(" ", chr(0)))
    for pid in stuck:
        if "process_id=0" in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGSTOP)
    assert process.popen.wait(60) == 128 + signal.SIGKILL
    assert process_runs.left(str(tmp_path)) == []


@two_cores
def test_programs_are_pinned_to_cores_that_may_be_used(launcher):
    cores = sorted(os.sched_getaffinity(0))
    said = launcher(count=3).out.read_text()
    assert all(f"{i} of 3 on [{cores[i % len(cores)]}]" in said for i in range(3))
    last = cores[-1]
    os.sched_setaffinity(0, {last})
    try:
        assert launcher().out.read_text().count(f"on [{last}]") == 2
    finally:
        os.sched_setaffinity(0, cores)


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
@pytest.mark.slow
@two_cores
def test_two_processes_agree_with_one(tmp_path):
    import jax

    two("--dtype=float64", f"--workdir={tmp_path / 'two'}", **QUICK)
    one("--dtype=float64", f"--workdir={tmp_path / 'one'}", **QUICK)
    ours, theirs = jax.tree.leaves(saved(tmp_path / "two")), jax.tree.leaves(saved(tmp_path / "one"))
    assert len(ours) == len(theirs) > 20
    assert all(np.max(np.abs(a - b)) < 1e-12 for a, b in zip(ours, theirs, strict=True))


@pytest.mark.slow
@two_cores
def test_digests_are_equal_where_each_process_has_as_many_cores(tmp_path):
    two(f"--workdir={tmp_path / 'two'}")
    one(f"--workdir={tmp_path / 'one'}")
    assert digest(tmp_path / "two") == digest(tmp_path / "one")


@pytest.mark.full
@pytest.mark.slow
@two_cores
def test_processes_wait_for_one_that_compiles_for_long(tmp_path):
    """Those of a CPU give up a first meeting after 30 s; they have met when the engine is made."""
    (tmp_path / "late.py").write_text(LATE)
    places = {"PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
    run(["bash", "launch/processes.sh", "2", str(tmp_path / "late.py")], **places, **QUICK)


@pytest.mark.slow
@two_cores
def test_another_version_is_named_by_all(tmp_path):
    row = processes.check_start(processes.STARTS["another version"], tmp_path)
    assert row["as_it_should"], row


@pytest.mark.slow
@two_cores
def test_a_killed_process_is_named_and_the_run_goes_on(tmp_path):
    expected = lambda count: processes.undisturbed(tmp_path, count)
    row = processes.check_fault(processes.FAULTS["1 killed while training"], expected, tmp_path)
    assert row["as_it_should"], row


@pytest.mark.full
@two_cores
def test_a_launcher_that_is_killed_leaves_nobody_and_all_saved(tmp_path):
    row = processes.stop_launcher(tmp_path / "run", processes.epochs_said(1), 0.0, "SIGKILL")
    assert (row["left"], row["clean"], row["is_there"]) == (0, True, True), row
