"""The command that trains what a configuration says."""

import dataclasses
import shlex

from localgrad.training.config import OPTIONS, Config


def command_of(config: Config) -> str:
    """The command that trains a configuration: the method, and every field that is not at its default.

    Examples:
      >>> command_of(Config(method="scl", widths=(64, 32), norm=True, workdir="runs/my run"))
      "localgrad train --method=scl --widths=64,32 --norm=true '--workdir=runs/my run'"
    """
    fields = {field.name: field for field in dataclasses.fields(Config)}
    words = ["localgrad", "train"]
    for field in map(fields.__getitem__, OPTIONS):
        value = getattr(config, field.name)
        if value is None or (value == field.default and field.name != "method"):
            continue
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        words.append(f"--{field.name}={shown.lower() if isinstance(value, bool) else shown}")
    return shlex.join(words)
