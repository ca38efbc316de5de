"""Processes meet at a hub, agree, and hear what becomes of each other; here each is a connection."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from localgrad.processes import Place, place
from localgrad.processes.guest import Guest
from localgrad.processes.hub import Hub, Member
from localgrad.processes.wire import MAGIC, Line, free_port, listen, serve_tunnel, split_address


@pytest.fixture
def hub():
    """`(count, patience) -> (address, service port)`; closes all at the end."""
    servers = []

    def make(count, patience=5.0):
        servers.append(listen("127.0.0.1", 0))
        service = free_port()
        Hub(servers[-1], count, service, patience)
        return servers[-1].getsockname(), service

    yield make
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


class Peer:
    """A process that only talks."""

    def __init__(self, address, process, count, facts=None):
        self.line = Line(socket.create_connection(address, timeout=20))
        hello = {"id": process, "count": count, "host": "here", "pid": 100 + process, "facts": facts or {}}
        self.line.send(**{MAGIC: hello})
        self.messages = iter(self.line)

    def hears(self, *keys):
        """The next message that has one of the keys."""
        return next(message for message in self.messages if set(keys) & set(message))


def met(hub, count, patience=5.0):
    address, _ = hub(count, patience)
    peers = [Peer(address, i, count) for i in range(count)]
    for peer in peers:
        assert peer.hears("met", "refused")["met"] == [[i, "here", 100 + i] for i in range(count)]
    return address, peers


def refusals(peers):
    said = {peer.hears("met", "refused").get("refused") for peer in peers}
    for peer in peers:
        peer.line.close()
    assert len(said) == 1, "all hear the same"
    return said.pop()


def test_all_hear_what_differs(hub):
    address, _ = hub(3)
    said = refusals([Peer(address, i, 3, {"--seed": int(i == 1)}) for i in range(3)])
    assert "--seed is 0 in processes 0 and 2, 1 in process 1" in said


def test_all_hear_of_a_number_given_twice(hub):
    address, _ = hub(3)
    said = refusals([Peer(address, i, 3) for i in (0, 1, 1)])
    assert said.startswith("--process_id=1 was given to more than one: process 1 (pid 101 on here)")


def test_all_hear_of_another_number_of_processes(hub):
    address, _ = hub(2)
    assert "--num_processes is 2 in process 0, 3 in processes 1 and 2" in refusals(
        [Peer(address, 0, 2), Peer(address, 1, 3), Peer(address, 2, 3)]
    )


def test_those_that_came_hear_who_did_not(hub):
    address, _ = hub(4, patience=1.0)
    said = refusals([Peer(address, i, 4) for i in (0, 2)])
    assert said.startswith("of 4 processes, 1, 3 did not come within 1 s; there are process 0 (pid 100 on here)")


def test_one_that_goes_before_all_met_may_come_again(hub):
    address, _ = hub(2)
    first = Peer(address, 1, 2)
    first.line.close()
    time.sleep(0.3)
    peers = [Peer(address, i, 2) for i in (0, 1)]
    assert all("met" in peer.hears("met", "refused") for peer in peers)
    for peer in peers:
        peer.line.close()


def test_a_stranger_disturbs_nothing(hub):
    address, _ = hub(2)
    for words in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"localgrad": 3}\n', b"\x00" * 100):
        with socket.create_connection(address, timeout=5) as stranger:
            stranger.sendall(words)
    peers = [Peer(address, i, 2) for i in (0, 1)]
    assert all("met" in peer.hears("met", "refused") for peer in peers)
    for peer in peers:
        peer.line.close()


def test_one_that_comes_to_a_run_under_way_is_sent_away(hub):
    address, peers = met(hub, 2)
    third = Peer(address, 1, 2)
    assert "came to a run of 2 processes that have all met" in third.hears("refused")["refused"]
    third.line.close()
    for peer in peers:
        peer.line.send(done=True)
    assert all(peer.hears("over", "verdict").get("over") for peer in peers), "the run does not hear of it"
    for peer in peers:
        peer.line.close()


def test_all_hear_who_died(hub):
    _, (zero, one, two) = met(hub, 3)
    one.line.close()
    for peer in (zero, two):
        assert peer.hears("verdict")["verdict"] == "process 1 (pid 101 on here) died"
        peer.line.close()


def test_all_hear_who_is_silent(hub):
    _, (zero, one) = met(hub, 2, patience=2.0)
    stop = threading.Event()
    beats = threading.Thread(target=lambda: [zero.line.send(beat=True) for _ in range(40) if not stop.wait(0.2)])
    beats.start()
    began = time.monotonic()
    assert zero.hears("verdict")["verdict"].startswith("process 1 (pid 101 on here) gave no sign of life for 2 s")
    assert time.monotonic() - began >= 1.5
    stop.set()
    beats.join()
    zero.line.close(), one.line.close()


def test_waiting_for_one_that_comes_late_is_no_silence(hub):
    address, _ = hub(2, patience=3.0)
    zero = Peer(address, 0, 2)
    time.sleep(2.5)
    one = Peer(address, 1, 2)
    assert zero.hears("met", "verdict").get("met")
    began = time.monotonic()
    assert "gave no sign of life" in zero.hears("verdict")["verdict"]
    assert time.monotonic() - began > 2
    zero.line.close(), one.line.close()


def test_a_process_0_that_falls_silent_before_all_came_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def answer():
            held.append(server.accept()[0])
            held[0].sendall(b'{"beat": true}\n')

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ValueError, match="ended or fell silent before all had come"):
            Guest(server.getsockname(), Member(1, "", 1), 2, {}, 1.0, "", None, lambda: None)
        thread.join()
        held[0].close()


def test_one_that_leaves_has_time_for_the_others_to_leave_by_themselves(hub):
    _, (zero, one) = met(hub, 2)
    one.line.send(leaving="no such data", grace=0.5)
    one.line.close()
    began = time.monotonic()
    assert zero.hears("verdict")["verdict"] == "process 1 (pid 101 on here) ended: no such data"
    assert time.monotonic() - began > 0.3
    zero.line.close()


def join(address, process, count, facts):
    member = Member(process, "here", process)
    return Guest(address, member, count, facts, 5.0, "again", None, lambda: None)


def test_guests_meet_agree_and_finish(hub):
    address, _ = hub(3)

    def run(process):
        guest = join(address, process, 3, {"--seed": 0})
        guest.agree({"shape": [3]})
        with pytest.raises(ValueError, match=r"labels is \"a\" in processes 0 and 2, \"b\" in process 1"):
            guest.agree({"labels": "b" if process == 1 else "a"})
        guest.finish()
        return [member.id for member in guest.members]

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(run, range(3))) == [[0, 1, 2]] * 3


def test_a_guest_that_is_refused_says_so(hub):
    address, _ = hub(2)

    def run(process):
        with pytest.raises(ValueError, match="--seed is 0 in process 0, 1 in process 1") as error:
            join(address, process, 2, {"--seed": process})
        return "\n" not in str(error.value)

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(run, range(2)))


def test_no_process_0_is_found_where_nobody_or_another_listens():
    with pytest.raises(
        ValueError, match=r"process 1 found no process 0 at --coordinator=127.0.0.1:\d+ .* nobody answers"
    ):
        Guest(("127.0.0.1", free_port()), Member(1, "", 1), 2, {}, 0.5, "", None, lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer():
            connection, _ = other.accept()
            with connection:
                connection.recv(1)
                connection.sendall(b"220 mail.example.org ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ValueError, match="who answers is not process 0"):
            Guest(other.getsockname(), Member(1, "", 1), 2, {}, 0.1, "", None, lambda: None)
        thread.join()


def test_a_port_in_use_is_seen():
    with listen("127.0.0.1", 0) as first, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", first.getsockname()[1])


def test_the_tunnel_carries_bytes_and_hides_the_end_of_process_0(hub):
    address, port = hub(1)
    with socket.create_server(("127.0.0.1", port)) as service:
        client = socket.create_connection(("127.0.0.1", serve_tunnel(address)), timeout=5)
        there, _ = service.accept()
        there.settimeout(5)
        client.sendall(b"x" * 100_000)
        got = b""
        while len(got) < 100_000:
            got += there.recv(1 << 16)
        there.sendall(b"back")
        assert (got, client.recv(4)) == (b"x" * 100_000, b"back")
        there.close()
    client.settimeout(0.5)
    with pytest.raises(TimeoutError):
        client.recv(1)  # open, and silent
    client.close()


@pytest.mark.parametrize("address", ["10.0.0.1", "host:", ":80", "host:0", "host:70000", "host:http"])
def test_an_address_without_host_or_port_is_refused(address):
    with pytest.raises(ValueError, match=f"--coordinator={address} is not HOST:PORT"):
        split_address(address)


def test_a_place_is_checked_at_the_door():
    assert place("h:80", 3, 2) == Place("h", 80, 3, 2)
    for process in (-1, 3):
        with pytest.raises(ValueError, match=rf"--process_id={process} must be one of 0 .. 2"):
            place("h:80", 3, process)
    with pytest.raises(ValueError, match="go together"):
        place("h:80", 3)


def test_a_cluster_says_the_place(monkeypatch):
    with pytest.raises(ValueError, match="nothing here says who the processes are"):
        place("auto")
    for name, value in {
        "SLURM_JOB_ID": "70001", "SLURM_STEP_NODELIST": "node[3-4]", "SLURM_NTASKS": "4", "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    found = place("auto")
    assert (found.host, found.processes, found.process, found.local_devices) == ("node3", 4, 3, [1])
