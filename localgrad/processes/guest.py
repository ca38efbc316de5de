"""A process's side of a run: it comes, agrees with the others, gives signs of life, and leaves where others do."""

import os
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from localgrad.processes.hub import Hub, Member, silent
from localgrad.processes.wire import MAGIC, Line

PEER_LOST = 75  # exit status (EX_TEMPFAIL): another process ended this one; the same command again goes on
_TICK = 1.0  # seconds between beats
_BROKEN = re.compile("gloo|nccl|by peer|UNAVAILABLE|DEADLINE_EXCEEDED|CANCELLED|ABORTED", re.IGNORECASE)
_ANSWER = 15.0  # seconds in which a process 0 that took a connection says its first word


class Guest:
    """One process of a run, connected to process 0.

    Args:
      address: host and port of process 0.
      member: this process.
      count: number of processes.
      facts: what all must have in common, as JSON has it.
      patience: seconds to wait for process 0 to answer, or for a sign of life.
      resume: the command that goes on where the run stopped.
      hub: of process 0, its hub.
      each_tick: called about once a second.

    Raises:
      ValueError: if process 0 is not found, or the processes do not belong together; one line.
    """

    def __init__(
        self,
        address: tuple[str, int],
        member: Member,
        count: int,
        facts: dict[str, Any],
        patience: float,
        resume: str,
        hub: Hub | None,
        each_tick: Callable[[], None],
    ):
        self._member, self._patience, self._resume, self._hub = member, patience, resume, hub
        self._each_tick = each_tick
        self._changed = threading.Condition()
        self._answers: dict[int, str | None] = {}
        self._rounds = 0
        self._over = self._ending = False
        hello = {"id": member.id, "count": count, "host": member.host, "pid": member.pid, "facts": facts}
        self._line, messages, first = _connect(address, hello, patience)
        while "met" not in first:
            if "refused" in first:
                self._line.close()
                raise ValueError(f"{first['refused']}.")
            if (first := next(messages, {})) == {}:
                self._line.close()
                raise ValueError(f"process 0 at {address[0]}:{address[1]} ended or fell silent before all had come.")
        self._line.wait_forever()
        self.members = [Member(*each) for each in first["met"]]
        for work in (lambda: self._listen(messages), self._tick):
            threading.Thread(target=work, daemon=True).start()

    def agree(self, facts: dict[str, Any]) -> None:
        """Waits until all processes have said the same facts.

        Raises:
          ValueError: on every process, where they differ; one line.
        """
        with self._changed:
            this, self._rounds = self._rounds, self._rounds + 1
            self._line.send(facts=facts, round=this)
            self._changed.wait_for(lambda: this in self._answers)
        if self._answers[this]:
            raise ValueError(f"{self._answers[this]}.")

    def leave(self, code: int, why: str, grace: float) -> NoReturn:
        """Ends this process; the others end too, `grace` seconds later, unless they leave by themselves before."""
        with self._changed:
            self._ending = True  # what others say from now on does not change how this process ends
        self._line.send(leaving=why, grace=grace)
        if self._hub is not None:
            self._hub.linger(grace + 2)
        os._exit(code)

    def wait_for_blame(self, error: str) -> None:
        """Where an error here is of a broken connection, gives the watch time to find the process that broke it.

        The watch ends this process then; what the main thread has to say is only the trace of it.
        """
        if _BROKEN.search(error):
            time.sleep(self._patience + 5)

    def finish(self) -> None:
        """Waits until every process has come to its end."""
        with self._changed:
            self._line.send(done=True)
            self._changed.wait_for(lambda: self._over)

    def _listen(self, messages: Any) -> None:
        for message in messages:
            if "verdict" in message:
                self._end(message["verdict"])
            with self._changed:
                if "answer" in message:
                    self._answers[message["round"]] = message["answer"]
                self._over = self._over or "over" in message
                self._changed.notify_all()
        self._line.close()
        if not self._over:
            self._end(f"{self.members[0]} died")

    def _tick(self) -> None:
        while not self._over:
            time.sleep(_TICK)
            self._line.send(beat=True)
            self._line.silence += 1
            if self._line.silence * _TICK > self._patience:
                why = silent(self.members[0], self._patience)
                self._line.send(leaving=why, grace=0.0)
                self._end(why)
            self._each_tick()

    def _end(self, why: str) -> None:
        """Ends this process from a thread: its main thread may wait for the others for ever."""
        with self._changed:
            if self._ending:
                return
            self._ending = True
        line = f"error: {why}; nothing after the last checkpoint is saved. To go on, run the same command again:\n"
        os.write(2, f"{line}  {self._resume}\n".encode())
        if self._hub is not None:
            self._hub.linger(2.0)
        os._exit(PEER_LOST)


def _connect(address: tuple[str, int], hello: dict[str, Any], patience: float) -> tuple[Line, Any, dict[str, Any]]:
    """Connects to process 0, which may start later; its line, what it will say, and its first word."""
    deadline, why = time.monotonic() + patience, "nobody answers"
    while time.monotonic() < deadline:
        try:
            connection = socket.create_connection(address, timeout=5)
            connection.settimeout(min(_ANSWER, max(1.0, deadline - time.monotonic())))
            line = Line(connection)
            line.send(**{MAGIC: hello})
            messages = iter(line)
            first = next(messages, {})
            connection.settimeout(patience)  # until all have come: then the watch begins
            if {"beat", "met", "refused"} & set(first):
                return line, messages, first
            line.close()
            why = "who answers is not process 0 of such a run"
        except socket.gaierror as error:
            why = f"the name is not known ({error.strerror})"
        except OSError as error:
            why = f"nobody answers ({error.strerror or error})"
        time.sleep(0.2)
    raise ValueError(
        f"process {hello['id']} found no process 0 at --coordinator={address[0]}:{address[1]} within {patience:.0f} s: "
        f"{why}. Process 0 must run on that machine, and its port must be free and open to the others."
    )
