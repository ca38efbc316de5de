"""A run's configuration on the disk: `config.json`, and its copy in each checkpoint, which is the one that counts."""

import json
from contextlib import suppress
from os import PathLike
from typing import Any

from etils import epath

from localgrad.training.checkpoint_reader import CheckpointReader
from localgrad.training.config import Config
from localgrad.training.own_config import OwnConfig
from localgrad.training.run_config import RunConfig
from localgrad.training.workdir import as_json, check_folder, folder_of, read_json, write_bytes

NAME = "config.json"
_MOST = 4  # differences of one field that are told


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
    was = _with_defaults(found, _kind_of(config))
    was = {name: value for name, value in was.items() if name in found or name in config}
    if was == config and found != config:
        return ""  # of a version that had fewer fields
    changed = [
        f"{name} was {was.get(name)!r} and is {config.get(name)!r}"
        for name in dict.fromkeys([*config, *was])
        if was.get(name) != config.get(name)
    ]
    return f"{path} is made anew: {'; '.join(changed) or 'it is not as the run left it'}"


def read_config(workdir: str | PathLike) -> Config:
    """The configuration of a run, as it was, but on one device; for `prepare(config, resume=False)`.

    Raises:
      FileNotFoundError: if there is no run.
      ValueError: if it was made by another version, or is one of `localgrad.fit`.
    """
    saved = saved_config(workdir)
    if saved is None:
        raise FileNotFoundError(f"{workdir} is not the workdir of a run: it has no config.json.")
    if is_own(saved):
        raise ValueError(
            f"{workdir} holds a run of a model that was given to localgrad.fit, and no names to make it of: read it "
            "in a program, localgrad.load(workdir, model=model)."
        )
    placed: dict[str, Any] = {
        "workdir": str(workdir), "stages": 1, "data_parallel": 1, "cuts": None, "engine": "auto", "new_delays": True,
    }  # fmt: skip
    return Config.from_json(saved, **placed)


def saved_config(workdir: str | PathLike) -> dict[str, Any] | None:
    """The fields of a run's configuration, as its newest checkpoint has them, or else its `config.json`, or None."""
    folder = folder_of(workdir)
    found = CheckpointReader(folder / "checkpoints").config() or read_json(folder / NAME)
    return found if isinstance(found, dict) else None


def config_of(saved: dict[str, Any]) -> RunConfig:
    """The configuration that a run saved.

    Raises:
      ValueError: if it was made by another version.
    """
    return _kind_of(saved).from_json(saved)


def is_own(saved: dict[str, Any]) -> bool:
    """Whether a saved configuration is of a model that was given, and not named."""
    return "model" in saved


def saved_plugins(workdir: str | PathLike) -> tuple[str, ...]:
    """The plugins of a run that was begun in a workdir; () where there is none.

    Raises:
      ValueError: if the workdir cannot be one.
    """
    check_folder(folder_of(workdir))
    found = (saved_config(workdir) or {}).get("plugin")
    return tuple(found) if isinstance(found, list) else ()


def check_same(config: RunConfig, saved: dict[str, Any], folder: PathLike) -> None:
    """Refuses a workdir that was made by a run of another configuration; more epochs are the same run, gone on with.

    Raises:
      ValueError: naming every field that differs, with both values.
    """
    kinds = ("a model that was given to localgrad.fit", "a model made of names")
    if is_own(saved) != is_own(config.to_json()):
        there, here = kinds if is_own(saved) else reversed(kinds)
        raise ValueError(f"{folder} holds a run of {there}, and this is one of {here}. Give it another --workdir.")
    ours, theirs = config.to_json(), _with_defaults(saved, type(config))
    more = theirs["epochs"] < ours["epochs"]
    differing = [
        said
        for name, about in config.options().items()
        if not about.placement and theirs[name] != ours[name] and not (name == "epochs" and more and config.grows)
        if name in saved or not is_own(saved)  # of what was given, an older version may not have looked at all
        for said in differences(name, theirs[name], ours[name])
    ]
    if differing:
        falls = " (its learning rate falls over the whole run)" if more and not config.grows else ""
        raise ValueError(
            f"{folder} holds a run of another configuration: {'; '.join(differing)}{falls}. Give this run another "
            "--workdir, or repeat the command that made that one."
        )


def differences(name: str, theirs: Any, ours: Any) -> list[str]:
    """What differs between two values of a field, in words; of two texts of JSON objects, of each of their entries.

    Examples:
      >>> differences("data", '{"shape": "(9, 2)", "sum": 1}', '{"shape": "(8, 2)", "sum": 1}')
      ["data.shape is '(9, 2)' there and '(8, 2)' here"]
    """
    there, here = _entries(theirs), _entries(ours)
    if there is None or here is None:
        return [f"{name} is {theirs!r} there and {ours!r} here"]
    names = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    told = [said for key in names for said in differences(f"{name}.{key}", there.get(key), here.get(key))]
    return told if len(told) <= _MOST else [*told[:_MOST], f"{len(told) - _MOST} more of {name}"]


def _entries(value: Any) -> dict[str, Any] | None:
    """The object that a value is, or that it is the JSON text of."""
    if isinstance(value, str) and value.startswith("{"):
        with suppress(ValueError):
            value = json.loads(value)
    return value if isinstance(value, dict) else None


def _kind_of(saved: dict[str, Any]) -> type[RunConfig]:
    return OwnConfig if is_own(saved) else Config


def _with_defaults(saved: dict[str, Any], kind: type[RunConfig]) -> dict[str, Any]:
    """A saved configuration with the fields that its version did not have, which were at their defaults."""
    return {**kind().to_json(), **saved}
