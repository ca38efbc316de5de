"""Prints the configuration that the flags of `localgrad train` say, as a program that `tests.commands` can start."""

import sys

from absl import flags

from localgrad.cli import train

if __name__ == "__main__":
    train.define_flags()
    flags.FLAGS(sys.argv)
    print(train.config_from_flags().to_json())
