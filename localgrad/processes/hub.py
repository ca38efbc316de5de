"""What process 0 does for all: it brings them together, compares what they say, and tells all of them how it ended."""

import socket
import threading
import time
from contextlib import suppress
from typing import Any, NamedTuple

from localgrad.processes.facts import difference
from localgrad.processes.wire import MAGIC, Line, splice

_TICK = 1.0  # seconds between beats
_SETTLE = 10.0  # once something is wrong: seconds in which others may still come, to be told as well


class Member(NamedTuple):
    """A process of the run, as messages name it."""

    id: int
    host: str
    pid: int

    def __str__(self) -> str:
        return f"process {self.id} (pid {self.pid} on {self.host})"


class _Guest:
    """A process that came: its line, what it said, and where it stands."""

    def __init__(self, line: Line, hello: dict[str, Any]):
        self.line, self.hello = line, hello
        self.member = Member(hello["id"], hello["host"], hello["pid"])
        self.gone = self.leaving = self.done = False


class Hub:
    """The server of a run; process 0 is a guest of its own, like all others.

    Every guest has one connection.  The hub waits until all have come, and then watches: whoever loses its connection
    without a word has died, and whoever says nothing for `patience` seconds is stopped, or its machine is gone.

    Args:
      server: a listening socket.
      count: number of processes.
      service: port of the loopback where the service of jax will listen, for tunnels.
      patience: seconds to wait for a process to come, or for a sign of life.
    """

    def __init__(self, server: socket.socket, count: int, service: int, patience: float):
        self._server, self._count, self._service, self._patience = server, count, service, patience
        self._guests: list[_Guest] = []
        self._rounds: dict[int, dict[int, dict[str, Any]]] = {}
        self._phase = "meeting"  # then "running", and "over" when all is said
        self._changed = threading.Condition()
        for work in (self._accept, self._meet, self._tick):
            threading.Thread(target=work, daemon=True).start()

    def linger(self, seconds: float) -> None:
        """Waits until all other processes have left, no longer than `seconds`; what was sent to them then arrives."""
        with self._changed:
            self._changed.wait_for(lambda: all(guest.gone for guest in self._guests if guest.member.id), seconds)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        line = Line(connection)
        messages = iter(line)
        hello = next(messages, {}).get(MAGIC)
        if hello == "tunnel":
            self._dig(connection)
            return
        if not isinstance(hello, dict):  # a stranger
            line.close()
            return
        guest = _Guest(line, hello)
        with self._changed:
            if self._phase != "meeting":
                line.send(refused=self._full(guest.member))
                line.close()
                return
            self._guests.append(guest)
            self._changed.notify_all()
        for message in messages:
            with self._changed:
                self._heard(guest, message)
        with self._changed:
            guest.gone = True
            if self._phase == "meeting":
                self._guests.remove(guest)
            elif not guest.leaving:
                self._verdict(f"{guest.member} died")
            self._changed.notify_all()
        line.close()

    def _dig(self, connection: socket.socket) -> None:
        try:
            service = socket.create_connection(("127.0.0.1", self._service))
            connection.sendall(b"\n")
        except OSError:  # either of them is not there yet, or not any more: the other side tries again
            connection.close()
            return
        splice(service, connection, hold=False)

    def _full(self, late: Member) -> str:
        names = ", ".join(map(str, sorted(guest.member for guest in self._guests)))
        return f"{late} came to a run of {self._count} processes that have all met: {names}; check --process_id"

    def _meet(self) -> None:
        """Waits until as many have come as there should be, and lets them begin, or tells all what is wrong."""
        deadline, came, last = time.monotonic() + self._patience, 0, time.monotonic()
        with self._changed:
            while time.monotonic() < deadline:
                if len(self._guests) != came:
                    came, last = len(self._guests), time.monotonic()
                if came >= max([self._count, *(guest.hello["count"] for guest in self._guests)]):
                    break
                if self._conflict() and time.monotonic() - last > _SETTLE:
                    break
                self._changed.wait(0.2)
            wrong = self._conflict() or self._missing()
            wrong = wrong or _differ({guest.member.id: guest.hello["facts"] for guest in self._guests})
            self._phase = "over" if wrong else "running"
            if wrong:
                self._say(refused=wrong)
            else:
                self._say(met=[list(member) for member in sorted(guest.member for guest in self._guests)])

    def _conflict(self) -> str | None:
        counts = {guest.member.id: {"--num_processes": guest.hello["count"]} for guest in self._guests}
        if differs := _differ(counts):
            return differs
        for guest in self._guests:
            same = [str(other.member) for other in self._guests if other.member.id == guest.member.id]
            if len(same) > 1:
                return f"--process_id={guest.member.id} was given to more than one: {', '.join(same)}"
        return None

    def _missing(self) -> str | None:
        there = {guest.member.id for guest in self._guests}
        missing = [str(i) for i in range(self._count) if i not in there]
        if not missing:
            return None
        names = ", ".join(map(str, sorted(guest.member for guest in self._guests)))
        return (
            f"of {self._count} processes, {', '.join(missing)} did not come within {self._patience:.0f} s; there are "
            f"{names}"
        )

    def _heard(self, guest: _Guest, message: dict[str, Any]) -> None:
        if "facts" in message:
            told = self._rounds.setdefault(message["round"], {})
            told[guest.member.id] = message["facts"]
            if len(told) == self._count:
                self._say(answer=_differ(told), round=message["round"])
        elif "done" in message:
            guest.done = True
            if all(each.done for each in self._guests):
                self._phase = "over"
                self._say(over=True)
        elif "leaving" in message:
            guest.leaving = True
            later = threading.Timer(message["grace"], self._left, (f"{guest.member} ended: {message['leaving']}",))
            later.daemon = True
            later.start()

    def _left(self, why: str) -> None:
        with self._changed:
            self._verdict(why)

    def _verdict(self, why: str) -> None:
        if self._phase == "running":
            self._phase = "over"
            self._say(verdict=why)

    def _say(self, **message: Any) -> None:
        for guest in self._guests:
            guest.line.send(**message)

    def _tick(self) -> None:
        """Counts the silence of each guest in ticks of this thread, not by a clock: it is blind to its own sleep."""
        while self._phase != "over":
            time.sleep(_TICK)
            with self._changed:
                self._say(beat=True)
                if self._phase == "meeting":
                    continue  # guests wait, and say nothing
                for guest in self._guests:
                    guest.line.silence += 1
                    if guest.line.silence * _TICK > self._patience and not guest.gone:
                        self._verdict(silent(guest.member, self._patience))


def _differ(facts: dict[int, dict[str, Any]]) -> str | None:
    found = difference(facts)
    return found and f"the processes differ: {found}. Give all of them the same flags, versions and data"


def silent(member: Member, patience: float) -> str:
    """What is said of a process that gives no sign of life."""
    return f"{member} gave no sign of life for {patience:.0f} s: it is stopped, or its machine is gone"
