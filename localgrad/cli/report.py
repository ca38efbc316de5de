"""One page about one run or several, in one file that asks nobody for anything.

    localgrad report runs/digits
    localgrad report runs/al runs/scl runs/bp --out=methods.html

Curves, accuracy by exit, the curve of leaving early, the ledger, the timeline of the pipeline, confusion and worst
examples, what differs between the configurations, versions, and the commands that train it all again.
"""

from absl import flags

from localgrad.cli import shell
from localgrad.results import write_report

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Where to write, and what to look at."""
    flags.DEFINE_string("out", "report.html", "the file to write")
    flags.DEFINE_bool("evaluate", True, "predict on the test split: exits, leaving early, confusion, worst examples")
    flags.DEFINE_bool("alignment", False, "cosine of each block's update with the true gradient")


def main(argv: list[str]) -> int:
    """Writes the page, and returns the exit status."""
    folders = argv[1:]
    if not folders:
        return shell.refuse("no run: name one workdir or several, localgrad report runs/digits.")
    try:
        shell.quiet()
        write_report(
            folders,
            FLAGS.out,
            evaluate=FLAGS.evaluate,
            alignment=FLAGS.alignment,
            command=shell.command_line(),
            log=shell.say,
        )
    except (ValueError, OSError, ImportError) as error:
        return shell.refuse(str(error))
    return 0
