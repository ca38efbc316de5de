"""What a streamed pipeline carries: its state, and what the halves of a tick leave."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from localgrad.base import Key, Message


class StreamState(NamedTuple):
    """The state of a pipeline of S stages over D data shards, of at most N blocks each.

    Attributes:
      slots: the stages' block states, `(S, size)` each, one row on each device.
      inbox: the messages that the next tick works on, `(D, S, size)` each.
      batch_id: which batch each message is of, int32 `(D, S)`; -1 is a bubble.
      ring: what each stage keeps of its last batches, `(D, S, places, size)` each.
      signal: what the next tick learns from, `(D, S, size)` each; of the batch `signal_id`, int32 `(D, S)`.
      ok: of each block, whether every number was finite so far, bool `(D, S, N)`; it learns no more once one is not.
      next_id: the number of the next batch, for batches that bring none, the same everywhere.
      key: the key of dropout and the like, the same everywhere.
    """

    slots: list[jax.Array]
    inbox: list[jax.Array]
    batch_id: jax.Array
    ring: list[jax.Array]
    signal: list[jax.Array]
    signal_id: jax.Array
    ok: jax.Array
    next_id: jax.Array
    key: Key


class Learnt(NamedTuple):
    """What one of the two halves of a tick leaves: slots of what updates move and of metrics, and flags by block."""

    slots: list[jax.Array]
    values: list[jax.Array]
    ok: jax.Array
    stopped: jax.Array


class Went(NamedTuple):
    """What the second half leaves besides: see `Stream`.

    Attributes:
      moved: slots of batch statistics.
      sent: slots of the message, and its batch.
      ring: with the batch's entry.
      handed: slots of the signal that was made, and its batch.
    """

    moved: list[jax.Array]
    sent: tuple[list[jax.Array], jax.Array]
    ring: list[jax.Array]
    handed: tuple[list[jax.Array], jax.Array]


class Work(NamedTuple):
    """What a device works on in the second half of a tick.

    Attributes:
      own: slots of what late signals alone move.
      valid: whether there is a batch.
      place: where its entry goes in the ring.
      batch_id: its number.
      message_of, keys: of each stage, what it is given of the batch.
    """

    own: list[jax.Array]
    valid: jax.Array
    place: jax.Array
    batch_id: jax.Array
    message_of: Callable[[int], Message]
    keys: Callable[[int], list[Key]]
