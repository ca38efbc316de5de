"""`python -m localgrad.data prepare NAME [--data_dir=DIR]`: downloads a set."""

import argparse
from collections.abc import Sequence

from localgrad.data.fetch import prepare


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, prepares the set and prints its folder."""
    parser = argparse.ArgumentParser(prog="python -m localgrad.data", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("prepare", help="download a set, and keep what is read of it")
    command.add_argument(
        "name", help="wordnet_gloss, movie_snippets, or as tensorflow-datasets writes it: name/config:version"
    )
    command.add_argument("--data_dir", help="default: $TFDS_DATA_DIR, else ~/tensorflow_datasets")
    arguments = parser.parse_args(argv)
    try:
        print(prepare(arguments.name, arguments.data_dir))
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
