"""Runs of several processes: they meet, compare what they must have in common, and watch each other.

Process 0 listens on the port of `--coordinator`.  All others, and process 0 itself, connect to it, say who they are and
what they run, and are told to begin once all are there and agree.  From then on each gives a sign of life every second,
from a thread of its own: a long compilation is no silence, and a process that was stopped or whose machine is gone is.
What happens to one is told to all, and they end with one line.  A process whose main thread waits for ever while its
threads live is not found: nothing tells that from a long compilation.

The coordination service of jax listens on process 0's loopback, and is reached through the same port.
"""

from localgrad.processes.guest import PEER_LOST as PEER_LOST
from localgrad.processes.run import PATIENCE as PATIENCE
from localgrad.processes.run import Place as Place
from localgrad.processes.run import agree as agree
from localgrad.processes.run import join as join
from localgrad.processes.run import leave as leave
from localgrad.processes.run import place as place
from localgrad.processes.run import wait_for_blame as wait_for_blame
