"""What the exits of trained networks give and cost: `localgrad evaluate`, as commands in documents name it."""

from localgrad.cli.evaluate import define_flags, main
from localgrad.cli.shell import start

if __name__ == "__main__":
    start(define_flags, main)
