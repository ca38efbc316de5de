"""Connections between processes: JSON objects, one a line, and a tunnel for the bytes of another service."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

MAGIC = (
    "localgrad"  # the first line of every connection has this key: whoever says something else is no process of ours
)
_LONGEST = 1 << 22  # bytes of a line; a longer one is not of this protocol
_CHUNK = 1 << 16


class Line:
    """JSON objects over a connection, one a line.

    Args:
      connection: a connected socket.

    Attributes:
      silence: ticks since the other side was last heard; whoever reads sets it to 0, whoever judges counts it up.
    """

    def __init__(self, connection: socket.socket):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection, self._sending = connection, threading.Lock()
        self.silence = 0

    def send(self, **message: Any) -> None:
        """Sends one object; one that cannot be sent is lost, and whoever reads this line sees its end."""
        with suppress(OSError), self._sending:
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The objects that come, until the connection ends or says what is no object."""
        rest = b""
        while len(rest) < _LONGEST:
            text, found, rest = rest.partition(b"\n")
            if not found:
                try:
                    more = self._connection.recv(_CHUNK)
                except OSError:
                    return
                if not more:
                    return
                rest = text + more
                continue
            try:
                message = json.loads(text)
            except ValueError:
                return
            if not isinstance(message, dict):
                return
            self.silence = 0
            yield message

    def wait_forever(self) -> None:
        """Reads without a limit of time from now on."""
        self._connection.settimeout(None)

    def close(self) -> None:
        """Ends the connection in both directions, which ends whoever reads it."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


def split_address(address: str) -> tuple[str, int]:
    """`host:port` as a pair.

    Raises:
      ValueError: if it is not of that form.

    Examples:
      >>> split_address("10.0.0.1:1234"), split_address("[::1]:80")
      (('10.0.0.1', 1234), ('::1', 80))
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"--coordinator={address} is not HOST:PORT, such as 10.0.0.1:1234.")
    return host.strip("[]"), int(port)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens for the others: on this machine alone where `host` is its loopback, else on every network.

    Raises:
      OSError: if the port is taken.
    """
    try:
        loopback = all(found[4][0] in ("127.0.0.1", "::1") for found in socket.getaddrinfo(host, port))
    except socket.gaierror:
        loopback = False  # a name that this machine does not know; the others may
    if loopback:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=256)
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    return socket.create_server(("", port), family=family, backlog=256, dualstack_ipv6=dual)


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def splice(ours: socket.socket, theirs: socket.socket, hold: bool) -> None:
    """Carries bytes both ways between two connections, in threads of their own.

    Args:
      ours: of a program on this machine.
      theirs: of the other side.
      hold: when the other side ends, leave `ours` open: the program here hears nothing more, rather than an end.
    """
    for end in (ours, theirs):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def out() -> None:
        with suppress(OSError):
            while data := ours.recv(_CHUNK):
                try:
                    theirs.sendall(data)
                except OSError:
                    if not hold:  # else nobody hears it, and nobody here shall know
                        break
        with suppress(OSError):
            theirs.shutdown(socket.SHUT_WR)

    def back() -> None:
        with suppress(OSError):
            while data := theirs.recv(_CHUNK):
                ours.sendall(data)
        if not hold:
            with suppress(OSError):
                ours.shutdown(socket.SHUT_WR)

    def both() -> None:
        with ours, theirs:
            other = threading.Thread(target=back, daemon=True)
            other.start()
            out()
            other.join()

    threading.Thread(target=both, daemon=True).start()


def serve_tunnel(coordinator: tuple[str, int]) -> int:
    """Opens a port of the loopback whose connections lead to the service behind process 0's port.

    The service of jax ends a program, with a dump of its C++ stack, at the moment in which the connection to process 0
    breaks.  Through the tunnel it does not see that, and the watch says in one line what happened.

    Returns:
      The port.
    """
    server = socket.create_server(("127.0.0.1", 0))
    kept = []  # a socket that is collected is closed

    def accept() -> None:
        while True:
            ours, _ = server.accept()
            try:
                theirs = socket.create_connection(coordinator)
                theirs.sendall(json.dumps({MAGIC: "tunnel"}).encode() + b"\n")
                theirs.recv(1)  # process 0 has the first line: what follows is the service's
                splice(ours, theirs, hold=True)
            except OSError:
                kept.append(ours)  # process 0 is gone, and the watch says so

    threading.Thread(target=accept, daemon=True).start()
    return server.getsockname()[1]
