"""What every program does first and last: devices, processes, and one clear line for what was refused."""

import re
import shlex
import sys

import jax
from absl import flags, logging

FLAGS = flags.FLAGS


def define_process_flags() -> None:
    """Flags of a run of several processes."""
    flags.DEFINE_string("coordinator", None, "host:port of process 0, or 'auto' where the cluster says it")
    flags.DEFINE_integer("num_processes", None, "number of processes")
    flags.DEFINE_integer("process_id", None, "which of them this one is, from 0")


def devices(count: int, *, x64: bool = False) -> None:
    """Joins the other processes, if any, and makes virtual devices on a CPU; before anything else uses jax.

    Args:
      count: devices that the program needs, over all processes.
      x64: switch on 64-bit types.

    Raises:
      ValueError: if the devices do not divide over the processes, or only some of the process flags are given.
    """
    if not FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # the checkpoint library tells a lot
    processes = FLAGS.num_processes or 1
    if FLAGS.coordinator != "auto":
        given = [FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id]
        if None in given and given != [None] * 3:
            raise ValueError("--coordinator, --num_processes and --process_id go together; one of them is missing.")
        if count % processes:
            raise ValueError(
                f"stages times data_parallel is {count}, which does not divide over --num_processes={processes}."
            )
        jax.config.update("jax_num_cpu_devices", count // processes)
    if x64:
        jax.config.update("jax_enable_x64", True)
    if FLAGS.coordinator == "auto":
        jax.distributed.initialize()
    elif FLAGS.coordinator is not None:
        jax.distributed.initialize(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)


def say(line: str) -> None:
    """Prints a line, from one process only."""
    if jax.process_index() == 0:
        print(line, flush=True)


def refuse(message: str, code: int = 2) -> int:
    """Prints one line about what was wrong, and returns the exit status."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    return code


def command_line() -> str:
    """The command that started this program."""
    spec = sys.modules["__main__"].__spec__
    return shlex.join(["python", *(["-m", spec.name] if spec else sys.argv[:1]), *sys.argv[1:]])


def attribute_docs(documented: type) -> dict[str, str]:
    """What the `Attributes:` section of a docstring says of each attribute.

    Examples:
      >>> from localgrad.training import Config
      >>> attribute_docs(Config)["epochs"]
      'passes over the training set.'
    """
    text = re.sub(r"\n\s{8,}", " ", documented.__doc__ or "")
    rows = re.findall(r"^ {6}([\w, ]+): (.*)$", text, re.MULTILINE)
    return {name: says for names, says in rows for name in names.split(", ")}
