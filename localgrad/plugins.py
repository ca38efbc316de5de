"""Modules of others that register methods, networks and data sets of their own: those named, and those installed.

A package is found by itself where its metadata has an entry point in the group `localgrad` that names such a module:

    [project.entry-points.localgrad]
    mine = "my_package.registered"
"""

import importlib
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points

GROUP = "localgrad"


def load(names: Sequence[str]) -> None:
    """Imports modules, and those of the entry points that are installed; each once.

    Args:
      names: of modules that Python finds, on its path or in the folder that it was started in.

    Raises:
      ValueError: a module that is not there, or that does not import; the message has the reason.
    """
    for name, module in (*installed(), *((name, name) for name in names)):
        try:
            importlib.import_module(module)
        except Exception as error:  # anything may go wrong in a module of somebody else's
            raise ValueError(
                f"--plugin={name} cannot be imported ({type(error).__name__}: {error}): give modules that "
                f'`python -c "import {module}"` finds, separated by commas.'
            ) from error


@cache
def installed() -> tuple[tuple[str, str], ...]:
    """The name and the module of each entry point of the group."""
    return tuple((point.name, point.module) for point in entry_points(group=GROUP))
