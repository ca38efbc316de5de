"""Networks of texts as lists of Blocks: word vectors, and recurrent or attention layers above them.

A text is a row of word numbers, int32 `(B, L)`, 0 behind its end; every block from the first on hands on a sequence
with its mask, as `localgrad.blocks.sequences` describes.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from localgrad.base import Block
from localgrad.blocks.compose import regroup
from localgrad.blocks.flax import from_linen
from localgrad.blocks.networks import Grouping, check
from localgrad.blocks.sequences import bucketed, final_states, mean_of_tokens, parted, with_mask


@dataclasses.dataclass(frozen=True, eq=False)
class Vectors:
    """Word vectors to begin with: rows of the vocabulary `(V, D)`, and which of them are known `(V,)`."""

    rows: np.ndarray
    known: np.ndarray


def embedding(
    words: int,
    *,
    embed_width: int = 300,
    vectors: Vectors | None = None,
    dropout: float = 0.0,
    dtype: Any = jnp.float32,
) -> list[Block]:
    """Word vectors, as a network of one block; readers see their mean over the words of a text.

    Args:
      words: rows of the vocabulary, those of padding (0) and of unknown words included.
      embed_width: width of a vector.
      vectors: rows to begin with; a word that has none, and every word without this argument, begins at random.
      dropout: rate on what is handed on, the same features for all words of a text.
      dtype: of the vectors, and with it of the network.

    Returns:
      A Block of word numbers int32 `(B, L)` to sequences `(B, L, embed_width + 1)`.

    Raises:
      ValueError: for sizes below 1, or vectors of another vocabulary or width.
    """
    check("relu", dropout, (embed_width, words))
    if vectors is not None and vectors.rows.shape != (words, embed_width):
        raise ValueError(
            f"the word vectors are {vectors.rows.shape}, and the network wants {words} words of width {embed_width}: "
            f"choose net option embed_width={vectors.rows.shape[1]}, or another file of vectors."
        )
    layer = EmbeddingLayer(words, embed_width, vectors, dropout, dtype)
    return [from_linen(layer, name=f"embedding{embed_width}")._replace(summary=mean_of_tokens)]


def bilstm(
    words: int,
    *,
    widths: Sequence[int] = (300, 300),
    embed_width: int = 300,
    vectors: Vectors | None = None,
    dropout: float = 0.0,
    buckets: Sequence[int] = (),
    dtype: Any = jnp.float32,
    blocks: Grouping = None,
) -> list[Block]:
    """Word vectors and layers of a bidirectional LSTM; readers see the state in which each direction ended.

    Args:
      words, embed_width, vectors, dtype: as `embedding`.
      widths: hidden units of each layer, in each direction.
      dropout: rate on what every layer hands on, the same features for all words of a text.
      buckets: lengths at which a layer may run, see `bucketed`.
      blocks: how layers are grouped, see `regroup`; the word vectors are the first layer.

    Returns:
      Blocks, of which the first takes word numbers int32 `(B, L)`; layer i gives `(B, L, 2 widths[i] + 1)`.

    Raises:
      ValueError: as `embedding`, and for a grouping that does not fit.

    References:
      ICLR: Wu et al., Associated Learning on CNN, RNN, and Transformer, section 2.1
    """
    check("relu", dropout, widths)
    first = embedding(words, embed_width=embed_width, vectors=vectors, dropout=dropout, dtype=dtype)
    layers = [_sequence_block(BiLSTMLayer(w, dropout), f"bilstm{w}", final_states, buckets) for w in widths]
    return regroup([*first, *layers], blocks)


def transformer(
    words: int,
    *,
    layers: int = 2,
    width: int = 300,
    feed_forward: int = 256,
    heads: int = 6,
    causal: bool = False,
    embed_width: int | None = None,
    vectors: Vectors | None = None,
    dropout: float = 0.0,
    buckets: Sequence[int] = (),
    dtype: Any = jnp.float32,
    blocks: Grouping = None,
) -> list[Block]:
    """Word vectors and Transformer encoder layers; readers see the mean over the words of a text.

    Args:
      words, vectors, dtype: as `embedding`.
      layers: number of encoder layers.
      width: of the model; a multiple of `heads`.
      feed_forward: width of the hidden layer that follows attention.
      heads: of attention.
      causal: a place attends to itself and to those before it alone, as the prediction of the next token needs.
      embed_width: width of the word vectors; None is the model's.
      dropout, buckets, blocks: as `bilstm`.

    Returns:
      Blocks, of which the first takes word numbers int32 `(B, L)`; the others give `(B, L, width + 1)`.

    Raises:
      ValueError: as `bilstm`, and for a width that the heads do not divide.

    References:
      Vaswani et al., Attention Is All You Need, https://arxiv.org/abs/1706.03762, section 3
    """
    check("relu", dropout, (layers, width, feed_forward, heads))
    if width % heads:
        raise ValueError(f"heads={heads} do not divide the width of the transformer, {width}.")
    first = embedding(words, embed_width=embed_width or width, vectors=vectors, dropout=dropout, dtype=dtype)
    above = [
        _sequence_block(
            EncoderLayer(width, feed_forward, heads, dropout, i == 0, causal),
            f"encoder{width}",
            mean_of_tokens,
            buckets,
        )
        for i in range(layers)
    ]
    return regroup([*first, *above], blocks)


class EmbeddingLayer(nn.Module):
    """Word numbers (B, L), 0 behind the end -> their vectors, with a mask."""

    words: int
    features: int
    vectors: Vectors | None
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x, train: bool):
        random = nn.linear.default_embed_init

        def begin(key, shape, dtype):
            drawn = random(key, shape, dtype)
            if self.vectors is None:
                return drawn
            return jnp.where(self.vectors.known[:, None], jnp.asarray(self.vectors.rows, dtype), drawn)

        embed = nn.Embed(self.words, self.features, self.dtype, self.dtype, embedding_init=begin)
        y = _dropped(self.dropout, train, embed(x))
        return with_mask(y, (x > 0).astype(self.dtype))


class BiLSTMLayer(nn.Module):
    """An LSTM forwards and one backwards, each of `features` units -> (dropout); on sequences with a mask."""

    features: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, train: bool):
        values, mask = parted(x)
        lengths = mask.sum(axis=1).astype(jnp.int32)
        direction = lambda: nn.RNN(nn.OptimizedLSTMCell(self.features, param_dtype=x.dtype))
        y: Any = nn.Bidirectional(direction(), direction())(values, seq_lengths=lengths)
        return with_mask(_dropped(self.dropout, train, y), mask)


class EncoderLayer(nn.Module):
    """Attention and a dense layer with a hidden one, each added to its input and normalised; on sequences with a mask.

    A first layer brings its input to the width, where it differs, normalises it, and adds sines of the place to it.
    Vectors of 1 / sqrt(width) would drown in the sines, whose mean square is a half: the mean over the words would be
    nearly the same for all texts.  Vaswani et al. multiply by sqrt(width) for that; a norm does as well with vectors
    drawn here (`docs/networks_and_data.md`, Texts), and with given ones too, whatever their scale.
    """

    features: int
    feed_forward: int
    heads: int
    dropout: float = 0.0
    places: bool = False
    causal: bool = False

    @nn.compact
    def __call__(self, x, train: bool):
        values, mask = parted(x)
        if values.shape[-1] != self.features:
            values = nn.Dense(self.features)(values)
        if self.places:
            values = nn.LayerNorm()(values)
            values = values + jnp.asarray(sines(*values.shape[1:]), values.dtype)[None]
        attention = nn.MultiHeadDotProductAttention(self.heads, deterministic=True)
        there = mask[:, None, None, :] > 0
        y = attention(values, mask=there & nn.make_causal_mask(mask, dtype=bool) if self.causal else there)
        values = nn.LayerNorm()(values + _dropped(self.dropout, train, y))
        y = nn.Dense(values.shape[-1])(nn.relu(nn.Dense(self.feed_forward)(values)))
        return with_mask(nn.LayerNorm()(values + _dropped(self.dropout, train, y)), mask)


def sines(length: int, width: int) -> np.ndarray:
    """Vaswani et al.'s encoding of places, float64 `(length, width)`: sines, then cosines, of falling frequency."""
    rates = 10_000.0 ** (-np.arange((width + 1) // 2) * 2 / width)
    angles = np.arange(length)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :width]


def _dropped(rate: float, train: bool, x: jax.Array) -> jax.Array:
    """Dropout of the same features at all places, so that padding a batch further draws nothing else."""
    return nn.Dropout(rate, broadcast_dims=(1,), deterministic=not train)(x) if rate else x


def _sequence_block(layer: nn.Module, name: str, summary: Callable, buckets: Sequence[int]) -> Block:
    block = from_linen(layer, name=name)._replace(summary=summary)
    return bucketed(block, buckets) if buckets else block
