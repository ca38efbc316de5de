"""Trains a network with a local learning rule: `localgrad train`, as commands in documents and launchers name it."""

from localgrad.cli.shell import start
from localgrad.cli.train import define_flags, main

if __name__ == "__main__":
    start(define_flags, main)
