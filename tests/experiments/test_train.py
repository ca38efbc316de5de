"""The command line: a plan, one clear line for what is refused."""

import pytest

from .common import command

# What is quick to trace, where nothing depends on the network.
QUICK = ("--method=early_exit", "--net=mlp", "--widths=8,8,8")


def test_dry_run_prints_the_plan_and_stops(tmp_path):
    done = command(*QUICK, "--stages=3", "--dry_run", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    for word in ("effective", "affiliated", "step MFLOP", "padding", "predicted speed-up", "bubble"):
        assert word in done.stdout
    assert not (tmp_path / "run").exists()


def test_dry_run_measures_blocks(tmp_path):
    sizes = (*QUICK, "--stages=3", f"--workdir={tmp_path / 'run'}")
    done = command(*sizes, "--dry_run", "--measure")
    assert done.returncode == 0, done.stderr
    cuts = done.stdout.split("--cuts=")[1].strip()
    assert "step ms" in done.stdout and cuts == "0,1,2,3"
    assert command(*sizes, "--dry_run", f"--cuts={cuts}").returncode == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--measure"], "say --dry_run too"),
        (["--method=magic"], "error: unknown method 'magic'; there are al, scl, early_exit, dgl,"),
        pytest.param(
            ["--replay=2", "--replay_shares=1,much"],
            "error: --replay_shares is a list of numbers such as 1,0.5; got '1,much'.",
            marks=pytest.mark.full,  # read as the next is
        ),
        (["--widths=64,many"], "error: --widths is a list of whole numbers such as 64,32; got '64,many'."),
        (["--stages=9", "--method=early_exit", "--widths=8,8,8,8"], "error: 9 stages for a network of 4 blocks"),
        (["--num_processes=2"], "go together"),
        (["--coordinator=10.0.0.1", "--num_processes=2", "--process_id=0"], "--coordinator=10.0.0.1 is not HOST:PORT"),
        (["--coordinator=h:1", "--num_processes=2", "--process_id=2"], "--process_id=2 must be one of 0 .. 1"),
        (["--coordinator=auto"], "nothing here says who the processes are"),
    ],
)
def test_bad_input_gets_one_line_and_a_status(flags, says, tmp_path):
    done = command(*flags, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert says in lines[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_file_in_place_of_the_workdir_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    done = command(f"--workdir={tmp_path / 'file'}", "--dry_run")
    assert done.returncode == 2 and "is a file; give a folder" in done.stderr


def test_a_plan_of_no_workdir_in_particular_looks_at_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "latest").write_text("")
    assert command("train", *QUICK, "--dry_run", program="localgrad").returncode == 0
    done = command("train", *QUICK, program="localgrad")
    assert done.returncode == 2 and "is a file; give a folder" in done.stderr


@pytest.mark.slow
def test_a_run_that_diverges_says_where_and_ends_with_status_1(tmp_path):
    done = command(
        "--widths=8,8",
        "--profile=iclr_head",
        "--optimizer=sgd",
        "--learning_rate=1e20",
        "--epochs=1",
        f"--workdir={tmp_path}",
    )
    assert done.returncode == 1
    assert "is not finite on batch" in done.stderr
    assert "saved as step" in done.stderr
    assert "Traceback" not in done.stderr
