"""A workdir has one owner."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest
from etils import epath

from localgrad.training import lock
from localgrad.training.lock import InUseError, owned


def test_another_is_refused_by_name_and_the_file_goes(tmp_path):
    folder = epath.Path(tmp_path)
    with owned(folder):
        with (
            pytest.raises(InUseError, match=f"in use by process {os.getpid()} on {socket.gethostname()}"),
            owned(folder),
        ):
            pass
        assert (tmp_path / ".lock").exists()
    assert not (tmp_path / ".lock").exists()
    with owned(folder):
        pass


def test_an_owner_that_was_killed_is_gone(tmp_path):
    program = (
        "import sys, time; from etils import epath; from localgrad.training.lock import owned\n"
        "with owned(epath.Path(sys.argv[1])): print('mine', flush=True); time.sleep(600)"
    )
    other = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "mine\n"
    with pytest.raises(InUseError, match=f"process {other.pid} on"), owned(epath.Path(tmp_path)):
        pass
    other.kill()
    other.wait()
    other.stdout.close()
    with owned(epath.Path(tmp_path)):
        pass


@pytest.mark.parametrize(("age", "free"), [(1.0, False), (2 * lock.GONE, True)])
def test_an_owner_on_another_machine_lives_while_it_touches_the_file(age, free, tmp_path):
    """A shared disk whose locks do not reach other machines."""
    content = {"host": "elsewhere", "pid": 1, "seen": time.time() - age}
    (tmp_path / ".lock").write_text(json.dumps(content))
    if free:
        with owned(epath.Path(tmp_path)):
            pass
    else:
        with pytest.raises(InUseError, match="process 1 on elsewhere"), owned(epath.Path(tmp_path)):
            pass
        assert json.loads((tmp_path / ".lock").read_text()) == content


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff{", b"[]", b"{}", b'{"host": "elsewhere", "pid": 1}',
        b'{"host": "elsewhere", "pid": "1", "seen": 1e99}', b'{"host": 1, "pid": 1, "seen": 1e99}',
        b'{"host": "elsewhere", "pid": 1, "seen": "now"}',
    ],
)  # fmt: skip
def test_a_damaged_file_locks_nobody_out(content, tmp_path):
    (tmp_path / ".lock").write_bytes(content)
    with owned(epath.Path(tmp_path)):
        pass
