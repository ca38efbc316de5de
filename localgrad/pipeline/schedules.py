"""The schedules by what blocks wait for: values that the engines, the ledger and the timeline read."""

from collections.abc import Callable, Sequence

from localgrad import registry
from localgrad.base import Schedule, Signal

WEIGHTS = ("stashed", "current")


def local(stages: int) -> Schedule:
    """Blocks that wait for nothing: stage s works on batch t - s, and nothing is late."""
    return Schedule("local", (None,) * stages)


def relay(stages: int, staleness: str = "delayed") -> Schedule:
    """Blocks that wait for the pass of the next one.

    Within a stage that comes in the same tick. The last block of a stage hears of it two ticks after its own pass, one
    batch late; `locked`, which lets a batch enter on every other tick, nothing is late.
    """
    period = 1 if staleness == "delayed" or stages == 1 else 2
    return Schedule("relay", (2,) * (stages - 1) + (0,), period)


def broadcast(stages: int, staleness: str = "delayed") -> Schedule:
    """Blocks that wait for the error at the network's output, which is made on the last stage and sent to all.

    Stage s learns S - 1 - s batches late; `locked`, which lets a batch through before the next enters, nothing is late.
    """
    wait = tuple(stages - stage for stage in range(stages))
    return Schedule("broadcast", wait, 1 if staleness == "delayed" else stages)


def chain(stages: int, parts: int = 1) -> Schedule:
    """Blocks that wait for the way back of the next one: GPipe, whose micro-batches go up and then come down.

    References:
      Huang et al., GPipe, https://arxiv.org/abs/1811.06965
    """
    wait = tuple(parts + 2 * (stages - 1 - stage) for stage in range(stages))
    return Schedule("chain", wait, 2 * (parts + stages - 1), parts)


def streamed_chain(stages: int) -> Schedule:
    """The same blocks with a batch a tick and no bubble: the asynchronous rival.

    The last stage comes back in the tick of its pass; below it, stage s learns 2 (S - 1 - s) - 1 batches late.

    References:
      Narayanan et al., PipeDream, https://arxiv.org/abs/1806.03377
    """
    return Schedule("chain", tuple(2 * (stages - 1 - stage) for stage in range(stages)))


# By `staleness`: `(signal, stages) -> schedule` of blocks that wait for the `top` or the `next`.
STALENESS: dict[str, Callable[[Signal, int], Schedule]] = {
    "delayed": lambda signal, stages: {"top": broadcast, "next": relay}[signal](stages),
    "locked": lambda signal, stages: {"top": broadcast, "next": relay}[signal](stages, "locked"),
}


def register_schedule(name: str, make: Callable[[Signal, int], Schedule]) -> None:
    """Adds a schedule, for `--staleness=NAME` and `spmd(model, staleness=NAME)`.

    Args:
      name: a word.
      make: `(signal, stages) -> schedule`, of blocks that wait for the `top` or the `next`.  When a signal reaches a
        stage is not to be chosen: `wait` is as in `broadcast` and `relay`; the period is, from 1 tick on.

    Raises:
      ValueError: a name that is no word, or that another schedule has.
    """
    registry.add("schedule", STALENESS, name, make)


def stream_of(signal: Signal, stages: int, staleness: str = "delayed") -> Schedule:
    """The schedule of whole batches for blocks that wait for a signal.

    Raises:
      ValueError: for an unknown `staleness`, or a schedule in which signals come when they cannot.
    """
    if signal == "above":
        return streamed_chain(stages)
    found = registry.chosen("staleness", staleness, STALENESS)(signal, stages)
    known = STALENESS["delayed"](signal, stages)
    if (found.wait, found.parts) != (known.wait, 1) or found.period < 1:
        raise ValueError(
            f"schedule {staleness!r} of {stages} stages: wait={found.wait}, parts={found.parts}, period={found.period}"
            f"; expected wait={known.wait}, parts=1 and a period of at least 1, for blocks that wait for {signal!r}."
        )
    return found


def delays_of(cuts: Sequence[int], signal: Signal = "top", staleness: str = "delayed") -> tuple[int, ...]:
    """By how many batches each block's updates are late on stages with these cuts.

    Args:
      cuts: block indices at which stages begin and end.
      signal: what blocks wait for: `top`, `next` or `above`.
      staleness: as in `spmd`; of blocks that wait for the way back, which are streamed, it says nothing.

    Examples:
      >>> delays_of((0, 1, 3, 4))
      (2, 1, 1, 0)
      >>> delays_of((0, 1, 3, 4), "next")
      (1, 0, 1, 0)
      >>> delays_of((0, 1, 3, 4), "above")
      (3, 1, 1, 0)
    """
    stages = len(cuts) - 1
    late = stream_of(signal, stages, staleness).delays
    spans = list(zip(cuts, cuts[1:], strict=False))
    if signal == "next":  # within a stage nothing is late
        return tuple(late[s] if i == b - 1 else 0 for s, (a, b) in enumerate(spans) for i in range(a, b))
    return tuple(late[s] for s, (a, b) in enumerate(spans) for _ in range(a, b))


def parts_of(examples: int, stages: int, micro_batches: int | None, least: int = 1) -> int:
    """The number of micro-batches of a shard: the one asked for, or as many as divide it, at most 4 S.

    Args:
      examples: of the shard.
      stages: number of stages S.
      micro_batches: the number asked for, or None.
      least: the fewest examples of a part that is not asked for.

    Raises:
      ValueError: if they do not divide the examples.
    """
    if micro_batches is None:
        most = 1 if stages == 1 else 4 * stages
        return max(m for m in range(1, most + 1) if examples % m == 0 and (m == 1 or examples // m >= least))
    if micro_batches < 1 or examples % micro_batches:
        raise ValueError(
            f"micro_batches={micro_batches} do not divide the {examples} examples that a data shard has of a batch."
        )
    return micro_batches
