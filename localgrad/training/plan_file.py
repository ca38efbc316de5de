"""What a run costs and how it lies on its stages: `plan.json`, so that a page tells of it without the model's code."""

import hashlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from etils import epath

from localgrad.base import Plan, Schedule
from localgrad.pipeline import plan_of, sequential, unpadded
from localgrad.report import Ledger, ledger
from localgrad.report.ledger import BlockRow, StageRow
from localgrad.training.builders import on_mesh
from localgrad.training.job import Job
from localgrad.training.placement import delays, resolve_saved
from localgrad.training.run_config import RunConfig
from localgrad.training.workdir import as_json, read_json, write_bytes

NAME = "plan.json"
_DIGEST = "sha256"

T = TypeVar("T", bound=tuple)


class Planned(NamedTuple):
    """What is known of a run without a number that it computed.

    Attributes:
      blocks: names of its blocks.
      exits: numbers of its exits.
      batches: in the whole run.
      percent: of each score of its task, whether it is in percent.
      plan: how the model lies on the stages.
      ledger: of that plan.
    """

    blocks: tuple[str, ...]
    exits: tuple[int, ...]
    batches: int
    percent: dict[str, bool]
    plan: Plan
    ledger: Ledger


def planned(job: Job, plan: Plan) -> Planned:
    """What is known of a job on the stages of a plan."""
    return Planned(
        tuple(block.name for block in job.model.blocks),
        job.model.exits,
        job.total_steps,
        {name: score.percent for name, score in job.model.task.scores.items()},
        plan,
        ledger(job.model, job.specs, plan, job.total_steps),
    )


def plan_on(job: Job, config: RunConfig) -> Plan:
    """How the model of a job lies on the stages of a saved configuration; needs no devices."""
    config = resolve_saved(config, job.model)
    if config.engine == "sequential":
        return sequential(job.model, delays(config, job.model)).plan
    plan = plan_of(job.model, **on_mesh(config))
    return unpadded(plan) if config.engine == "mpmd" else plan


def as_file(found: Planned) -> bytes:
    """The content of `plan.json`, with a digest of all else by which damage is noticed."""
    fields = _plain(found)
    return as_json({**fields, _DIGEST: _sha256(fields)})


def read_planned(folder: epath.Path) -> Planned | None:
    """What the `plan.json` of a folder says; None where there is none, or it is damaged, or of another version."""
    path = folder / NAME
    saved = read_json(path)
    try:
        found = _planned({key: value for key, value in saved.items() if key != _DIGEST})
        return found if path.read_bytes() == as_file(found) else None
    except (TypeError, AttributeError, ValueError, KeyError):
        return None


def keep(folder: epath.Path, content: bytes, log: Callable[[str], None]) -> None:
    """Writes a `plan.json`, and says so if the one before was lost or damaged; other stages have another one."""
    path = folder / NAME
    before = path.read_bytes() if path.exists() else None
    if before == content:
        return
    if before is None:
        log(f"{path} is missing and is made anew")
    elif read_planned(folder) is None:
        log(f"{path} is damaged and is made anew")
    write_bytes(path, content)


def _plain(value: Any) -> Any:
    """Named tuples as objects, tuples as lists, all the way down."""
    if hasattr(value, "_asdict"):
        return {name: _plain(each) for name, each in value._asdict().items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _planned(fields: dict[str, Any]) -> Planned:
    plan, book = fields["plan"], fields["ledger"]
    plan = _made(Plan, {**plan, "schedule": _made(Schedule, plan["schedule"])})
    rows = {
        "blocks": tuple(_made(BlockRow, row) for row in book["blocks"]),
        "stages": tuple(_made(StageRow, row) for row in book["stages"]),
    }
    return _made(Planned, {**fields, "plan": plan, "ledger": _made(Ledger, {**book, **rows})})


def _made(kind: type[T], fields: dict[str, Any]) -> T:
    """A named tuple of an object of JSON."""
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()})


def _sha256(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
