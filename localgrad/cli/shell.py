"""Between a program and the shell that started it: flags, devices, processes, and one line for what was refused."""

import os
import shlex
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging

from localgrad import processes

FLAGS = flags.FLAGS
_OWN = ("coordinator", "process_id", "data_dir")  # flags in which the processes of a run may differ
_PROCESSES = ("coordinator", "num_processes", "process_id")
_HELP = ("h", "help", "helpshort", "helpfull")
headed: dict[str, str] = {}  # the heading in `--help` of each flag that has one
_DEVICES = 1024  # as many as a CPU may pretend to be; far more of them take minutes to make, or do not fit a number


def start(define: Callable[[], None], main: Callable[[list[str]], int], argv: Sequence[str] | None = None) -> int:
    """Parses the flags, calls `main` with the words that are none, and exits with what it returns.

    Args:
      define: defines the flags.
      main: `words -> exit status`; the first word is the program's name.
      argv: the program's name and its flags; those that Python was started with by default.
    """
    define()
    return app.run(main, argv=None if argv is None else list(argv), flags_parser=_parsed)


def _parsed(argv: list[str]) -> list[str]:
    if any(word.lstrip("-") in _HELP and word.startswith("-") for word in argv[1:]):
        print(help_text(argv[0] if " " in argv[0] else command_line().partition(" --")[0]))
        sys.exit(0)
    try:
        return FLAGS(argv)
    except flags.Error as error:
        flag = getattr(error, "flagname", None)
        if flag in _PROCESSES:
            sys.exit(
                refuse(
                    f"--{flag}: this command is one process. Let `localgrad train` train with several, once for each "
                    "method, and `localgrad report` set the runs side by side."
                )
            )
        said = str(error).replace(" ?", "?").rstrip(".")
        sys.exit(refuse(f"{said}{'' if said.endswith('?') else '.'} --help lists the flags."))


def define_process_flags() -> None:
    """Flags of a run of several processes."""
    flags.DEFINE_string("coordinator", None, "host:port of process 0, or 'auto' where the cluster says it")
    flags.DEFINE_integer("num_processes", None, "number of processes")
    flags.DEFINE_integer("process_id", None, "which of them this one is, from 0")
    flags.DEFINE_float(
        "patience", processes.PATIENCE, "seconds to wait for the others to come, and later for their signs of life"
    )
    headed.update(dict.fromkeys((*_PROCESSES, "patience"), "Several processes"))


def help_text(command: str) -> str:
    """The flags of this program under their headings, each with its meaning and its default."""
    under: dict[str, list[str]] = {}
    for flag in _flags():
        default = (flag.default_as_str or "").strip("'")
        name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
        lines = textwrap.wrap(f"{flag.help} (default: {default})" if default else flag.help or "", 88)
        rows = under.setdefault(headed.get(flag.name, "This program"), [])
        rows += [f"  {name}", *(f"      {line}" for line in lines)]
    headings = ["\n".join(["", name, *rows]) for name, rows in under.items()]
    return "\n".join([f"usage: {command} --flag=value ...", *headings])


def devices(count: int, *, x64: bool = False) -> None:
    """Joins the other processes, if any, and makes virtual devices on a CPU; before anything else uses jax.

    Args:
      count: devices that the program needs, over all processes.
      x64: switch on 64-bit types.

    Raises:
      ValueError: if the devices do not divide over the processes, only some of the process flags are given, or the
        processes do not find each other or were given different flags.
    """
    if FLAGS.coordinator is None:
        if (FLAGS.num_processes, FLAGS.process_id) != (None, None):
            raise ValueError("--coordinator, --num_processes and --process_id go together; one of them is missing.")
        own_devices(count, x64=x64)
        return
    _prepare(x64)
    place = processes.place(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    if count % place.processes:
        raise ValueError(
            f"stages times data_parallel is {count}, which does not divide over --num_processes={place.processes}."
        )
    jax.config.update("jax_num_cpu_devices", count // place.processes)
    launcher = os.environ.get("LOCALGRAD_LAUNCHER")
    processes.join(
        place,
        _common_flags(),
        patience=FLAGS.patience,
        resume=command_line(),
        launcher=None if launcher is None else int(launcher),
    )


def own_devices(count: int, *, x64: bool = False) -> None:
    """As `devices`, of a program that is one process.

    Raises:
      ValueError: more devices than a machine has.
    """
    _prepare(x64)
    if count > _DEVICES:
        raise ValueError(
            f"stages times data_parallel is {count}: more than {_DEVICES} devices are not in one machine; start "
            "several processes, --coordinator=HOST:PORT."
        )
    jax.config.update("jax_num_cpu_devices", count)


def _prepare(x64: bool) -> None:
    quiet()
    if x64:
        jax.config.update("jax_enable_x64", True)


def quiet() -> None:
    """Lets warnings through and no more, unless --verbosity was given: the checkpoint library tells a lot."""
    if not FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)


def _common_flags() -> dict[str, Any]:
    """The flags of this program that all processes of a run must be given alike."""
    return {f"--{flag.name}": flag.value for flag in _flags() if flag.name not in _OWN}


def _flags() -> list[flags.Flag]:
    """The flags that this program defined itself, or through a module of the command line or the experiments."""
    ours = [sys.argv[0], *(name for name in sys.modules if name.startswith(("localgrad.cli.", "experiments.")))]
    by_module = sorted(FLAGS.flags_by_module_dict().items())
    return [flag for module, found in by_module if module in ours for flag in found]


def say(line: str) -> None:
    """Prints a line, from one process only."""
    if jax.process_index() == 0:
        print(line, flush=True)


def refuse(message: str, code: int = 2) -> int:
    """Prints one line about what was wrong, and returns the exit status; of several processes, ends this one."""
    processes.wait_for_blame(message)
    print(f"error: {message}", file=sys.stderr, flush=True)
    processes.leave(code, message)
    return code


def command_line() -> str:
    """The command that started this program, or all processes of its run."""
    if launched := os.environ.get("LOCALGRAD_COMMAND"):
        return launched
    spec, path = sys.modules["__main__"].__spec__, Path(sys.argv[0])
    if spec is None and path.suffix != ".py":  # the installed command
        return shlex.join([path.name, *sys.argv[1:]])
    return shlex.join(
        ["python", *(["-m", spec.name.removesuffix(".__main__")] if spec else sys.argv[:1]), *sys.argv[1:]]
    )
