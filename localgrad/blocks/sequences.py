"""Sequences in one array: features and, as the last of them, the mask of what is there.

A batch of sequences is `(B, L, D + 1)`: features of each token, zero where there is none, and a last channel that is 1
at tokens and 0 behind the end.  So a sequence travels through every method and both engines as an image does; only its
readers (heads, bridges, feedback) see a summary of it, `Block.summary`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from localgrad.base import Block, Key, PyTree


def with_mask(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Features `(B, L, D)` and a mask `(B, L)` of the same dtype, as one array; features are zeroed behind the end."""
    mask = mask[..., None]
    return jnp.concatenate([values * mask, mask], axis=-1)


def parted(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The features `(B, L, D)` of a batch of sequences and its mask `(B, L)`, through which no gradient flows."""
    return x[..., :-1], jax.lax.stop_gradient(x[..., -1])


def mean_of_tokens(x: jax.Array) -> jax.Array:
    """Mean of the features over the tokens that are there, `(B, D)`; zeros for a sequence of none."""
    values, mask = parted(x)
    # Not a quotient: the compiler makes that a product with the reciprocal in one program and not in another.
    reciprocal = 1 / jnp.maximum(mask.sum(axis=1), 1)
    return values.sum(axis=1) * reciprocal[:, None]


def final_states(x: jax.Array) -> jax.Array:
    """Of features that two directions made, half each, where each direction ended: `(B, D)`.

    The forward half at the last token, the backward half at the first.
    """
    values, mask = parted(x)
    last = mask - jnp.pad(mask[:, 1:], ((0, 0), (0, 1)))  # 1 at the last token alone
    forward, backward = jnp.split(values, 2, axis=-1)
    return jnp.concatenate([jnp.einsum("bld,bl->bd", forward, last), backward[:, 0]], axis=-1)


def summarised(block: Block, head: Block) -> Block:
    """A head as it reads a block's output: through the block's summary.

    Args:
      block: whose output `(B, ...)` is read.
      head: a Block of what the summary makes of it.
    """

    def init(key: Key, x_spec: jax.ShapeDtypeStruct) -> tuple[PyTree, PyTree]:
        return head.init(key, jax.eval_shape(block.summary, x_spec))

    def apply(params: PyTree, model_state: PyTree, x: jax.Array, *, key: Key | None, train: bool):
        return head.apply(params, model_state, block.summary(x), key=key, train=train)

    return head._replace(init=init, apply=apply)


def bucketed(block: Block, lengths: Sequence[int]) -> Block:
    """A Block that runs on the first so many places of its sequences alone, the fewest that hold all tokens of a batch.

    One compiled program holds the block at every length and chooses by the mask, so that nothing is compiled anew and
    a message keeps its shape.  Behind the chosen length the output is zero.  Under `vmap` every length is computed.

    Args:
      block: of sequences to sequences, see this module.
      lengths: ascending; batches longer than the last run whole.

    Raises:
      ValueError: if the lengths do not ascend from at least 1.
    """
    lengths = tuple(lengths)
    if lengths and (lengths[0] < 1 or any(a >= b for a, b in zip(lengths, lengths[1:], strict=False))):
        raise ValueError(f"lengths of buckets ascend from at least 1; got {lengths}.")

    def apply(params: PyTree, model_state: PyTree, x: jax.Array, *, key: Key | None, train: bool):
        whole = x.shape[1]
        chosen = [length for length in lengths if length < whole] + [whole]

        def at(length: int):
            def run(params: PyTree, model_state: PyTree, x: jax.Array, key: Key | None):
                y, moved = block.apply(params, model_state, x[:, :length], key=key, train=train)
                return jnp.pad(y, ((0, 0), (0, whole - length), (0, 0))), moved

            return run

        if len(chosen) == 1:
            return at(whole)(params, model_state, x, key)
        places = jnp.arange(1, whole + 1, dtype=jnp.int32)
        longest = jnp.max(jnp.where(jnp.any(x[..., -1] > 0, axis=0), places, 0))
        index = jnp.sum(longest > jnp.array(chosen[:-1], jnp.int32), dtype=jnp.int32)
        return jax.lax.switch(index, [at(length) for length in chosen], params, model_state, x, key)

    return block._replace(apply=apply)
