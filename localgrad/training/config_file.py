"""A run's configuration on the disk: `config.json`, and its copy in each checkpoint, which is the one that counts."""

from os import PathLike
from typing import Any

from etils import epath

from localgrad.training.checkpoint_reader import CheckpointReader
from localgrad.training.config import OPTIONS, Config
from localgrad.training.workdir import as_json, check_folder, folder_of, read_json, write_bytes

NAME = "config.json"


def replace(folder: epath.Path, config: dict[str, Any]) -> str:
    """Replaces a run's `config.json`, and returns what there is to tell of the one before; "" if it was the same.

    A first call of a run finds none, and one on another placement finds another; else it was lost or damaged.
    """
    path = folder / NAME
    before, content = path.read_bytes() if path.exists() else None, as_json(config)
    if before == content:
        return ""
    found = read_json(path)
    write_bytes(path, content)
    if before is None:
        begun = any((path.parent / name).exists() for name in ("metrics.jsonl", "checkpoints"))
        return f"{path} is missing and is made anew" if begun else ""
    if not isinstance(found, dict):
        return f"{path} is damaged and is made anew"
    names = dict.fromkeys([*config, *found])
    changed = [f"{name} was {found.get(name)!r} and is {config.get(name)!r}" for name in names]
    changed = [said for name, said in zip(names, changed, strict=True) if found.get(name) != config.get(name)]
    return f"{path} is made anew: {'; '.join(changed) or 'it is not as the run left it'}"


def read_config(workdir: str | PathLike) -> Config:
    """The configuration of a run, as it was, but on one device; for `prepare(config, resume=False)`.

    Raises:
      FileNotFoundError: if there is no run.
      ValueError: if it was made by another version.
    """
    saved = saved_config(workdir)
    if saved is None:
        raise FileNotFoundError(f"{workdir} is not the workdir of a run: it has no config.json.")
    placed: dict[str, Any] = {
        "workdir": str(workdir), "stages": 1, "data_parallel": 1, "cuts": None, "engine": "auto", "new_delays": True,
    }  # fmt: skip
    return Config.from_json(saved, **placed)


def saved_config(workdir: str | PathLike) -> dict[str, Any] | None:
    """The fields of a run's configuration, as its newest checkpoint has them, or else its `config.json`, or None."""
    folder = folder_of(workdir)
    found = CheckpointReader(folder / "checkpoints").config() or read_json(folder / NAME)
    return found if isinstance(found, dict) else None


def saved_plugins(workdir: str | PathLike) -> tuple[str, ...]:
    """The plugins of a run that was begun in a workdir; () where there is none.

    Raises:
      ValueError: if the workdir cannot be one.
    """
    check_folder(folder_of(workdir))
    found = (saved_config(workdir) or {}).get("plugin")
    return tuple(found) if isinstance(found, list) else ()


def check_same(config: Config, saved: dict[str, Any], folder: PathLike) -> None:
    """Refuses a workdir that was made by a run of another configuration.

    Raises:
      ValueError: naming every field that differs, with both values.
    """
    defaults = {
        "plugin": [],
        "codes": None,
        **Config().to_json(),
    }  # a field that an older version did not have was at its default
    ours, theirs = {**defaults, **config.to_json()}, {**defaults, **saved}
    differing = [
        f"{name} is {theirs[name]!r} there and {ours[name]!r} here"
        for name, about in OPTIONS.items()
        if not about.placement and theirs[name] != ours[name]
    ]
    if differing:
        raise ValueError(
            f"{folder} holds a run of another configuration: {'; '.join(differing)}. Give this run another "
            "--workdir, or repeat the command that made that one."
        )
