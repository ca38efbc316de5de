"""`localgrad data prepare NAME [--data_dir=DIR]`: downloads a set."""

import argparse
import sys
from collections.abc import Sequence

from localgrad.data.fetch import prepare


def main(words: Sequence[str] | None = None) -> int:
    """Parses the words, prepares the set and prints its folder; the exit status."""
    parser = argparse.ArgumentParser(prog="localgrad data", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("prepare", help="download a set, and keep what is read of it")
    command.add_argument(
        "name", help="wordnet_gloss, movie_snippets, or as tensorflow-datasets writes it: name/config:version"
    )
    command.add_argument("--data_dir", help="default: $TFDS_DATA_DIR, else ~/tensorflow_datasets")
    arguments = parser.parse_args(words)
    try:
        print(prepare(arguments.name, arguments.data_dir))
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
