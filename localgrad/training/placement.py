"""Where a run is carried out: what was left open is resolved, and what would change its numbers is refused.

Stages, cuts and the engine are free where the pipeline is a reordering of the same operations.  Micro-batches and data
shards are not: statistics, dropout and coupled losses are of each part, and a mean of means rounds otherwise.  Nor are
delays, which follow from the stages.  These are saved as resolved, and a workdir goes on with the same ones only.
"""

import dataclasses
from typing import Any, TypeVar

import jax

from localgrad.base import Model
from localgrad.pipeline import check_asynchronous, check_replay, delays_of, make_plan, micro_batches_of, signal_of
from localgrad.training.run_config import RunConfig

C = TypeVar("C", bound=RunConfig)


def resolve(config: C, model: Model) -> C:
    """The configuration with its engine, micro-batches and cuts as they will be, where it left them open.

    Raises:
      ValueError: for an engine that cannot do what is asked of it, or stages and parts that cannot be.
    """
    check_asynchronous(model, config.asynchronous, config.micro_batches)  # the sequential engine would pass it over
    one_process = jax.process_count() == 1
    if config.replay is not None:
        check_replay(model, config.replay, config.replay_shares)
        _check_alone(config, one_process)
    found = _resolved(config, model, one_process)
    if found.engine == "mpmd":
        _check_mpmd(found, model)
    if found.engine == "sequential":
        if config.data_parallel > 1 or not one_process:
            raise ValueError(
                "--engine=sequential runs on one device: leave out --data_parallel, and the other processes."
            )
        if _cuts_batches(config, model):
            raise ValueError(
                f"--engine=sequential trains on whole batches: leave out --micro_batches={config.micro_batches}, or "
                "say --engine=spmd."
            )
    return found


def resolve_saved(config: C, model: Model) -> C:
    """As `resolve` of a configuration that was saved: how that run lay, wherever this process is."""
    return _resolved(config, model, one_process=True)


def _check_alone(config: RunConfig, one_process: bool) -> None:
    """Refuses to replay over stages or shards.

    Raises:
      ValueError: naming the flag.
    """
    if config.engine in ("spmd", "mpmd") or config.stages > 1 or config.data_parallel > 1 or not one_process:
        raise ValueError(
            "--replay has no pipeline: there all stages have their turns at once, and with --replay one block at a "
            "time has one. Leave out --stages, --data_parallel, --engine and the other processes, or --replay."
        )


def _resolved(config: C, model: Model, one_process: bool) -> C:
    one_device = config.stages == config.data_parallel == 1 and one_process
    auto = "sequential" if one_device and not _cuts_batches(config, model) else "spmd"
    engine = auto if config.engine == "auto" else config.engine
    parts, cuts = 1, config.cuts
    if engine != "sequential":
        streams = config.asynchronous is not None and config.micro_batches is None
        parts = 1 if streams else micro_batches_of(model, config.stages, config.data_parallel, config.micro_batches)
    # cuts that were given are checked, even where the engine does not use them
    if engine != "sequential" or _late(config, model) or config.cuts is not None:
        cuts = make_plan(model, config.stages, config.cuts).cuts
    return dataclasses.replace(config, engine=engine, micro_batches=parts, cuts=cuts)


def delays(config: RunConfig, model: Model) -> tuple[int, ...] | None:
    """By how many batches each block of a resolved run learns late; None where nothing is."""
    known = _late(config, model) and config.cuts is not None
    found = delays_of(config.cuts, signal_of(model), config.staleness) if known else ()  # type: ignore[arg-type]
    return found if any(found) else None


def check_placement(given: RunConfig, saved: dict[str, Any], model: Model) -> None:
    """Refuses to go on with a run on a placement that would change what it computes.

    Args:
      given: the configuration to go on with, as the user gave it.
      saved: the configuration that the run was begun with, resolved or not.
      model: the model of both.

    Raises:
      ValueError: naming each flag that differs, with both values.
    """
    begun = type(given).from_json(saved)
    before, config = resolve_saved(begun, model), resolve(given, model)
    names = ("micro_batches", "data_parallel")
    differing = [(name, getattr(before, name), getattr(config, name)) for name in names]
    differing = [each for each in differing if each[1] != each[2]]
    if differing:
        says = "; ".join(f"{name} is {there} there and {here} here" for name, there, here in differing)
        flags = " ".join(f"--{name}={there}" for name, there, _ in differing)
        raise ValueError(
            f"{config.workdir} holds a run that would compute something else from here on: {says}. Say {flags}, or "
            "give this run another --workdir."
        )
    if config.new_delays or not (_late(config, model) or _late(before, model)):
        return
    if delays(before, model) != delays(config, model):
        raise ValueError(
            f"{config.workdir} learns with delays, on --stages={before.stages} "
            f"--cuts={_flag(begun.cuts)}, and updates would be late by others on --stages={config.stages} "
            f"--cuts={_flag(given.cuts)}: it would be another run. Keep the stages, or say --new_delays."
        )
    crosses = before.engine != config.engine and config.staleness not in ("delayed", "locked")
    if delays(config, model) and crosses:
        raise ValueError(
            f"{config.workdir} was trained with --engine={before.engine}, and its batches in flight under "
            f"--staleness={config.staleness} cannot be handed over: keep the engine, or say --new_delays, which learns "
            "from them before it goes on."
        )
    if delays(config, model) and (before.engine, config.engine) == ("sequential", "spmd"):
        raise ValueError(
            f"{config.workdir} was trained with --engine=sequential, whose batches in flight the pipeline cannot take "
            "over: say --engine=sequential, or --new_delays, which learns from them before it goes on."
        )


def _check_mpmd(config: RunConfig, model: Model) -> None:
    """Refuses what only `spmd` does."""
    if config.data_parallel > 1:
        raise ValueError("--engine=mpmd has one pipeline: leave out --data_parallel, or say --engine=spmd.")
    if jax.process_count() > 1:
        raise ValueError(
            f"--engine=mpmd drives the devices of one process, and there are {jax.process_count()}: say --engine=spmd, "
            "which spans them."
        )
    if delays(config, model):
        raise ValueError(
            f"--engine=mpmd saves no batches in flight, and on --stages={config.stages} method {model.method!r} learns "
            "late: say --engine=spmd, or, where the method has it, --staleness=locked."
        )


def _cuts_batches(config: RunConfig, model: Model) -> bool:
    return signal_of(model) == "above" and config.micro_batches not in (None, 1)


def _late(config: RunConfig, model: Model) -> bool:
    if signal_of(model) == "above":
        return config.asynchronous is not None
    return signal_of(model) != "none" and config.staleness != "locked"


def _flag(cuts: tuple[int, ...] | None) -> str:
    return "None" if cuts is None else ",".join(map(str, cuts))
