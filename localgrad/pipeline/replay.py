"""The sequential engine in a drawn order: blocks that read from a buffer of the last batches of the block below.

Each turn is that of one block, drawn at random.  The first block takes a batch of the data; each other one takes from
its buffer the batch that it has used least, of those the freshest.  It learns from it, and what it hands on goes into
the buffer of the block above, in the place of the oldest.  So no block waits for another, and a slow one holds nobody
up: those above it use batches again.

Which block has which turn is a value that follows from a key, so a run can be repeated and resumed, bit for bit.
There is no pipeline of it: how far stages are apart is drawn here, and on a mesh all stages take their turns at once.

References:
  Belilovsky, Eickenberg and Oyallon, Decoupled Greedy Learning of CNNs, https://arxiv.org/abs/1901.08164, section 3.2
    and Algorithm 2.  There the buffers are filled by processes that run freely; a block that finds its buffer empty
    passes its turn on, here and there.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from localgrad.base import EARLIER, LEARNT, Batches, BlockState, Engine, Key, Message, Metrics, Model, Spec
from localgrad.descent import Around
from localgrad.keys import block_key, fold_in
from localgrad.pipeline import feeding, ring, step
from localgrad.pipeline.coupling import check_examples
from localgrad.pipeline.draws import Order, drawn_order
from localgrad.pipeline.finite import finite, with_parameters_checked
from localgrad.pipeline.loading import checked
from localgrad.pipeline.partition import make_plan
from localgrad.pipeline.specs import no_metrics, passes, signal_of, specs


class Buffer(NamedTuple):
    """The last M messages of a block, for the block above.

    Attributes:
      messages: their leaves, `(M, ...)` each.
      batch_id: of which batch each is, int32 `(M,)`.
      used: how often each was learnt from, int32 `(M,)`.
      written: the number of each, in the order in which they came, int32 `(M,)`; -1 where there is none yet.
      sound: whether every number of it was finite below, bool `(M,)`.
    """

    messages: list[jax.Array]
    batch_id: jax.Array
    used: jax.Array
    written: jax.Array
    sound: jax.Array


class Given(NamedTuple):
    """What a block learns from in a turn: a message, its batch, how often it was used, and whether it is sound."""

    message: Message
    batch_id: jax.Array
    used: jax.Array
    sound: jax.Array


class ReplayState(NamedTuple):
    """The state of training in a drawn order.

    Attributes:
      blocks, key, next_id: as `SequentialState`.
      ok: of each block, whether every number so far was finite.
      draws: draws since the start.
      buffers: those of all blocks but the first.
      values: of each block, the metrics of its latest turn; zeros before its first.
    """

    blocks: tuple[BlockState, ...]
    key: Key
    next_id: jax.Array
    ok: jax.Array
    draws: jax.Array
    buffers: list[Buffer]
    values: tuple[dict[str, jax.Array], ...]


def replayed(model: Model, size: int, shares: Sequence[float] | None = None, *, order: Order | None = None) -> Engine:
    """Trains blocks one at a time in a drawn order, each on the batches that the block below has left in a buffer.

    With every batch the first block has a turn, and then others have theirs until the first is drawn again.  A batch
    that is used again has keys of its own, for dropout and the like.  An optimizer counts the turns of its block, and
    so does the schedule of its rate.

    Args:
      model: of a rule whose blocks wait for nothing.
      size: messages M that a buffer holds, the last ones of the block below.
      shares: the chance of each block to have a turn, in proportion to the others'; equal by default.
      order: `(key, n) -> block` of draw n, from 0, in place of `drawn_order`.  The first batch comes before any draw,
        and the next wherever block 0 is drawn: `lambda key, n: (n + 1) % len(model.blocks)` makes this `sequential`.

    Returns:
      An `Engine`, whose metrics of a batch are those of each block's latest turn.

    Raises:
      ValueError: for a rule whose blocks wait for a signal or learn one after another, a model of several trials, a
        buffer of no messages, or shares that are not one a block.
    """
    count = len(model.blocks)
    check_replay(model, size, shares)
    check_examples(model, model.batch_size, f"batch_size={model.batch_size}")
    plan = make_plan(model)
    chosen = order or drawn_order(shares or (1,) * count)
    state_specs, message_specs = specs(model)
    metrics = [each.metrics for each in passes(model, state_specs, message_specs)]
    others: list[Callable] = [partial(_from_buffer, model, i, message_specs[i]) for i in range(1, count)]
    if count == 1:  # nobody else has a turn; something must stand here
        chosen, others = (lambda key, n: jnp.int32(0)), [lambda state: (state, jnp.int32(LEARNT))]

    def load(block_states: tuple[BlockState, ...], key: Key, first: int = 0) -> ReplayState:
        given = checked(model, state_specs, block_states, key)
        blocks, own_key = jax.tree.map(lambda x: jnp.array(x, copy=True), given)
        nothing = tuple({name: jnp.zeros(x.shape, x.dtype) for name, x in each.items()} for each in metrics)
        buffers = [_empty(spec, size) for spec in message_specs[1:count]]
        ok = jnp.ones((count,), bool)
        return ReplayState(blocks, own_key, jnp.int32(first), ok, jnp.int32(0), buffers, nothing)

    def goes_on(carry: tuple[ReplayState, jax.Array]) -> jax.Array:
        return chosen(carry[0].key, carry[0].draws) != 0

    def another(carry: tuple[ReplayState, jax.Array]) -> tuple[ReplayState, jax.Array]:
        state, stopped = carry
        block = chosen(state.key, state.draws)
        state, why = jax.lax.switch(block - 1, others, state._replace(draws=state.draws + 1))
        return state, stopped.at[block].set(jnp.where(stopped[block] == LEARNT, why, stopped[block]))

    def run(state: ReplayState, batches: Batches) -> tuple[ReplayState, Metrics]:
        feeding.check_batches(model, batches)

        def one(state: ReplayState, xs: tuple):
            batch_id, next_id = feeding.number(xs[0], state.next_id)
            message = feeding.enter(model, batches.fetch(xs[1], 0, model.batch_size))
            stopped = jnp.where(state.ok, jnp.int32(LEARNT), EARLIER)
            given = Given(message, batch_id, jnp.int32(0), jnp.array(True))
            state, why = _turn(model, state._replace(next_id=next_id), 0, given)
            state, stopped = jax.lax.while_loop(goes_on, another, (state, stopped.at[0].set(why)))
            found = Metrics(state.values, (batch_id,) * count, tuple(stopped))
            return state._replace(draws=state.draws + 1), found

        state, found = jax.lax.scan(one, state, (batches.batch_id, batches.items))
        return state, with_parameters_checked(found, [finite(block.params) for block in state.blocks])

    def drain(state: ReplayState, compiled_for: Batches | None = None) -> tuple[tuple[BlockState, ...], Metrics]:
        return jax.tree.map(jnp.copy, state.blocks), no_metrics(model)

    return Engine(
        load=load,
        run=jax.jit(run, donate_argnums=0),
        states=lambda state, compiled_for=None: drain(state, compiled_for)[0],
        drain=drain,
        put=lambda tree: jax.tree.map(jnp.asarray, tree),
        plan=plan,
    )


def _turn(model: Model, state: ReplayState, i: int, given: Given) -> tuple[ReplayState, jax.Array]:
    """Block i learns from a message and hands on another, `(state, stopped)`."""
    first = block_key(state.key, given.batch_id, i)
    key = jax.lax.cond(given.used > 0, lambda: fold_in(first, given.used), lambda: first)
    passed = step.forward(model.blocks[i], state.blocks[i], given.message, key, state.ok[i] & given.sound)
    buffers = list(state.buffers)
    if i < len(buffers):
        buffers[i] = _written(buffers[i], passed, given.batch_id)
    put = lambda all_, one: (*all_[:i], one, *all_[i + 1 :])
    return state._replace(
        blocks=put(state.blocks, passed.state),
        ok=state.ok.at[i].set(passed.ok),
        buffers=buffers,
        values=put(state.values, dict(passed.metrics)),
    ), passed.stopped


def _from_buffer(model: Model, i: int, spec: Spec, state: ReplayState) -> tuple[ReplayState, jax.Array]:
    """The turn of a block that reads from its buffer; nothing happens where that is empty."""
    buffer = state.buffers[i - 1]
    there = buffer.written >= 0
    least = jnp.min(jnp.where(there, buffer.used, jnp.iinfo(jnp.int32).max))
    place = jnp.argmax(jnp.where(there & (buffer.used == least), buffer.written, -1)).astype(jnp.int32)

    def learn(state: ReplayState) -> tuple[ReplayState, jax.Array]:
        message = jax.tree.unflatten(jax.tree.structure(spec), ring.read(buffer.messages, place))
        buffers = list(state.buffers)
        buffers[i - 1] = buffer._replace(used=buffer.used.at[place].add(1))
        given = Given(message, buffer.batch_id[place], buffer.used[place], buffer.sound[place])
        return _turn(model, state._replace(buffers=buffers), i, given)

    return jax.lax.cond(jnp.any(there), learn, lambda state: (state, jnp.int32(LEARNT)), state)


def _written(buffer: Buffer, passed: step.Passed, batch_id: jax.Array) -> Buffer:
    """A buffer with a message in the place of the oldest."""
    number = jnp.max(buffer.written) + 1
    place = number % len(buffer.written)
    return Buffer(
        messages=ring.write(buffer.messages, place, jax.tree.leaves(passed.message)),
        batch_id=buffer.batch_id.at[place].set(batch_id),
        used=buffer.used.at[place].set(0),
        written=buffer.written.at[place].set(number),
        sound=buffer.sound.at[place].set(passed.ok),
    )


def _empty(spec: Spec, size: int) -> Buffer:
    zeros = [jnp.zeros((size, *x.shape), x.dtype) for x in jax.tree.leaves(spec)]
    numbers = lambda value: jnp.full((size,), value, jnp.int32)
    return Buffer(zeros, numbers(-1), numbers(0), numbers(-1), jnp.ones((size,), bool))


def check_replay(model: Model, size: int, shares: Sequence[float] | None = None) -> None:
    """Refuses what cannot be trained in a drawn order.

    Raises:
      ValueError: see `replayed`.
    """
    if signal_of(model) != "none":
        raise ValueError(
            "replay is for rules whose blocks wait for nothing, such as dgl; those of method "
            f"{model.method!r} wait for a signal: leave it out."
        )
    if model.trials is not None:
        raise ValueError("replay draws an order for each trial: train trials one after another, trials_by=loop.")
    if any(isinstance(tx, Around) for block in model.blocks for tx in block.tx.values()):
        raise ValueError(
            "replay draws whose turn it is, and blocks that learn one after another count their own turns, so that all "
            "would begin almost at once: leave out replay, or greedy_epochs and `layerwise`."
        )
    if size < 1:
        raise ValueError(f"replay={size}; a buffer holds at least one batch.")
    if shares is not None and len(shares) != len(model.blocks):
        raise ValueError(f"replay_shares are one a block, of {len(model.blocks)}; got {tuple(shares)}.")
