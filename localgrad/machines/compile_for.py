"""A pipeline compiled for accelerators that this machine does not have, and what one can know of it without them."""

import time
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np

from localgrad.base import Batches, Model
from localgrad.data import batches as make_batches
from localgrad.machines.chips import Chip, chip_of, devices_of
from localgrad.machines.program import Program, read
from localgrad.pipeline import hollow, specs, spmd
from localgrad.report import table


class Compiled(NamedTuple):
    """A device's program and what it needs; numbers with `predicted` in their names are a roofline of the data sheet.

    Attributes:
      target, devices, stages, data_parallel, batches: what was compiled, for a call of so many batches.
      seconds: that the compiler took.
      arguments, temporaries, code: bytes that a device holds: state and batches, what is made on the way, the program.
      memory: bytes that it has.
      flops: of a training step, by stage and device.
      messages: bytes that each stage hands to the next, a device.
      program: collectives, copies and transfers to the host.
      predicted_tick: seconds of a tick of the dearest stage: the most of its FLOPs at the chip's peak, of its state
        read and written once from memory, and of its message on the links.
      predicted_examples_per_sec: of the whole pipeline, without its bubble.
    """

    target: str
    devices: int
    stages: int
    data_parallel: int
    batches: int
    seconds: float
    arguments: int
    temporaries: int
    code: int
    memory: float
    flops: tuple[float, ...]
    messages: tuple[int, ...]
    program: Program
    predicted_tick: float
    predicted_examples_per_sec: float

    @property
    def held(self) -> int:
        """Bytes of a device, all together."""
        return self.arguments + self.temporaries + self.code

    @property
    def fits(self) -> bool:
        """Whether a device has that much."""
        return self.held <= self.memory


def compile_for(
    model: Model, target: str, *, stages: int, data_parallel: int = 1, batches: int = 8, **options: Any
) -> Compiled:
    """Compiles a pipeline for the devices of a topology, none of which need be here.

    Args:
      model: any model; `batch_size` is that of all data shards together.
      target: a chip and how many there are: `tpu:v5e:2x4`, `tpu:v5p:2x2x1`, `tpu:v6e:2x4`, `gpu:h100:8`.
      stages, data_parallel, options: as for `spmd`.
      batches: of a call.

    Returns:
      A `Compiled`; `format_compiled` makes a table of it.

    Raises:
      ValueError: for an unknown target, one with too few devices, or as `spmd`.
      ImportError: if the compiler for it is not installed, with the command that installs it.
    """
    _, chip, _ = chip_of(target)
    devices = devices_of(target)
    if len(devices) < stages * data_parallel:
        raise ValueError(
            f"stages={stages} times data_parallel={data_parallel} needs {stages * data_parallel} devices; {target} has "
            f"{len(devices)}."
        )
    engine = spmd(model, stages=stages, data_parallel=data_parallel, devices=devices, **options)
    key = jax.random.key(0) if model.trials is None else jax.random.split(jax.random.key(0), model.trials)
    state = engine.load(hollow(tuple(specs(model)[0])), key)
    fed = engine.put(_batches(model, batches))
    began = time.perf_counter()
    lowered = engine.run.lower(state, fed)  # type: ignore[attr-defined]
    with warnings.catch_warnings():  # a cache of programs is of no use: what cannot run here is not loaded from it
        warnings.filterwarnings("ignore", message=".*persistent compilation cache")
        compiled = lowered.compile()
    seconds = time.perf_counter() - began
    memory, plan = compiled.memory_analysis(), engine.plan
    spans = list(zip(plan.cuts, plan.cuts[1:], strict=False))
    flops = tuple(sum(plan.flops[a:b]) / data_parallel for a, b in spans)
    messages = tuple(plan.message_bytes[b - 1] // data_parallel for _, b in spans[:-1])
    tick = predicted_tick(chip, flops, plan.stage_bytes, messages)
    turns = plan.schedule.period
    return Compiled(
        target, stages * data_parallel, stages, data_parallel, batches, seconds,
        memory.argument_size_in_bytes, memory.temp_size_in_bytes, memory.generated_code_size_in_bytes,
        chip.memory, flops, messages, read(compiled.as_text()), tick,
        model.batch_size / (tick * (turns if plan.schedule.name != "chain" else 1)),
    )  # fmt: skip


def predicted_tick(
    chip: Chip, flops: tuple[float, ...], state_bytes: tuple[int, ...], messages: tuple[int, ...]
) -> float:
    """Seconds of the dearest stage's step: the most of what arithmetic, memory and links take by the data sheet.

    Args:
      chip: the data sheet.
      flops: of a step, by stage.
      state_bytes: of each stage; read once and written once.
      messages: bytes handed on, by stage but the last.
    """
    by_stage = zip(flops, state_bytes, (*messages, 0), strict=True)
    return max(max(f / chip.flops, 2 * held / chip.bandwidth, sent / chip.link) for f, held, sent in by_stage)


def format_compiled(found: Compiled) -> str:
    """A compiled pipeline as text."""
    mib = lambda size: f"{size / 2**20:,.1f}"
    counts = lambda ops: ", ".join(f"{count} {name}" for name, count in ops.items()) or "none"
    stages = [
        [s + 1, "", f"{flops / 1e6:,.1f}", mib(found.messages[s]) if s < len(found.messages) else ""]
        for s, flops in enumerate(found.flops)
    ]
    says = "fits" if found.fits else "DOES NOT FIT"
    return "\n\n".join(
        [
            f"{found.target}: {found.stages} stages, {found.data_parallel} data shards, calls of {found.batches} "
            f"batches; compiled in {found.seconds:.1f} s",
            table(["stage", "", "step MFLOP", "hands on MiB"], stages),
            f"a device holds {mib(found.held)} MiB of {found.memory / 2**20:,.0f} and {says}: arguments "
            f"{mib(found.arguments)}, temporaries {mib(found.temporaries)}, code {mib(found.code)}",
            f"in the loop over ticks: {counts(found.program.in_loop)}; the largest copy "
            f"{mib(found.program.copied)} MiB",
            f"outside of it: {counts(found.program.outside)}; transfers to the host: {found.program.host}",
            f"predicted by the data sheet ({chip_of(found.target)[1].source}): a tick of "
            f"{1e6 * found.predicted_tick:,.1f} us, {found.predicted_examples_per_sec:,.0f} examples/s, no bubble",
        ]
    )


def _batches(model: Model, count: int) -> Batches:
    lead = (count,) if model.trials is None else (count, model.trials)
    x, y = (np.zeros((*lead, *spec.shape), spec.dtype) for spec in (model.x_spec, model.y_spec))
    return make_batches(x, y, task=model.task)
