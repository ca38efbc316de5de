"""The schedules by what blocks wait for: values that the engines, the ledger and the timeline read."""

from collections.abc import Sequence

from localgrad.base import Schedule, Signal

STALENESS = ("delayed", "locked")
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


def delays_of(cuts: Sequence[int], signal: Signal = "top") -> tuple[int, ...]:
    """By how many batches each block's updates are late on stages with these cuts, where a batch enters on each tick.

    Args:
      cuts: block indices at which stages begin and end.
      signal: what blocks wait for: `top`, `next` or `above`.

    Examples:
      >>> delays_of((0, 1, 3, 4))
      (2, 1, 1, 0)
      >>> delays_of((0, 1, 3, 4), "next")
      (1, 0, 1, 0)
      >>> delays_of((0, 1, 3, 4), "above")
      (3, 1, 1, 0)
    """
    stages = len(cuts) - 1
    late = {"top": broadcast, "next": relay, "above": streamed_chain}[signal](stages).delays
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
            f"--micro_batches={micro_batches} do not divide the {examples} examples that a data shard has of a batch."
        )
    return micro_batches
