"""Where tensorflow-datasets (TFDS) keeps its sets: names, folders and versions, without importing it."""

import difflib
import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from localgrad.data.files import expanded

VERSION = re.compile(r"\d+\.\d+\.\d+")


class Name(NamedTuple):
    """A name as TFDS writes it, `name/config:version`, taken apart."""

    name: str
    config: str | None
    version: str | None


def root(data_dir: str | Path | None) -> Path:
    """The folder that holds prepared sets: `data_dir`, else $TFDS_DATA_DIR, else `~/tensorflow_datasets`.

    `~` is the home folder; `gs://bucket/folder` and the like are read where tensorflow-datasets can.
    """
    return expanded(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def command(name: str, data_dir: str | Path | None) -> str:
    """The shell command that downloads and prepares a set."""
    return f"python -m localgrad data prepare {name} --data_dir={root(data_dir)}"


def find(name: str, data_dir: str | Path | None) -> Path | None:
    """Finds the folder of a prepared set, without importing TFDS.

    Args:
      name: `name`, `name/config`, `name:version` or `name/config:version`.
      data_dir: see `root`.

    Returns:
      The folder of the version asked for, else of the newest; None if there is none.

    Raises:
      ValueError: the name is malformed, or the set has several configurations prepared and the name chooses none.
    """
    wanted = parsed(name)
    folder = root(data_dir) / wanted.name
    if wanted.config is not None:
        folder = folder / wanted.config
    elif not _versions(folder):
        folder = folder / _config(wanted, folder)
    versions = _versions(folder)
    if wanted.version is not None:
        return folder / wanted.version if wanted.version in versions else None
    return folder / versions[-1] if versions else None


def parsed(name: str) -> Name:
    """Takes a name apart.

    Raises:
      ValueError: it is malformed.
    """
    match = re.fullmatch(r"(?:tfds:)?(\w+)(?:/([^:/]+))?(?::([^:/]+))?", name)
    if not match or (match[3] and not VERSION.fullmatch(match[3])):
        raise ValueError(
            f"dataset {name!r}: expected `name`, `name/config` or `name/config:version` with a version such as 3.0.1"
        )
    return Name(*match.groups())


def _versions(folder: Path) -> list[str]:
    """Versions prepared in a folder, oldest first."""
    infos = folder.glob("*/dataset_info.json")
    versions = [info.parent.name for info in infos if VERSION.fullmatch(info.parent.name)]
    return sorted(versions, key=lambda version: [int(number) for number in version.split(".")])


def _config(wanted: Name, folder: Path) -> str:
    """The configuration to read where the name chooses none: the set's default, else the only one prepared."""
    configs = sorted(child.name for child in folder.iterdir() if _versions(child)) if folder.is_dir() else []
    metadata = folder / ".config" / "metadata.json"
    default = None
    if metadata.is_file():
        try:
            default = json.loads(metadata.read_bytes()).get("default_config_name")
        except (ValueError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{metadata}: is no object of JSON ({error}). Remove it, and name the configuration you want: "
                f"{wanted.name}/CONFIGURATION, of {configs}"
            ) from None
    if default in configs:
        return default
    if len(configs) > 1:
        raise ValueError(
            f"{wanted.name} in {folder} has the configurations {configs}; name one of them: {wanted.name}/{configs[0]}"
        )
    return configs[0] if configs else ""


def check_exists(name: str) -> None:
    """Refuses a name that neither this library nor TFDS has a set of.

    Raises:
      ValueError: with the names that are like it.
    """
    import tensorflow_datasets

    from localgrad.data.registry import DATASETS  # whose readers import this file

    known = tensorflow_datasets.list_builders(with_community_datasets=False)
    wanted = parsed(name).name
    if wanted not in known:
        close = difflib.get_close_matches(wanted, [*DATASETS, *known], n=5)
        raise ValueError(
            f"unknown dataset {name!r}; {f'did you mean one of {close}? ' if close else ''}"
            f"Expected one of {list(DATASETS)} or the name of any set of images or texts with a class each of "
            "tensorflow-datasets, "
            "such as mnist, cifar10 or svhn_cropped"
        )
