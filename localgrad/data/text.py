"""From texts to rows of word numbers: one tokenizer, and the vocabulary of a training split."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from localgrad.data.checks import checked_labels
from localgrad.data.dataset import SPLITS, Dataset, part

PAD, UNKNOWN = "[PAD]", "[UNK]"  # words 0 and 1 of every vocabulary
VOCABULARY = 30_000
_TOKEN = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")


class Corpus(NamedTuple):
    """A set as its reader finds it: for each published split its texts and labels, and the number of classes."""

    splits: Mapping[str, tuple[Sequence[str], Sequence[int]]]
    classes: int


def tokens(text: str) -> list[str]:
    """The words of a text in lower case, and its punctuation marks, each by itself.

    Examples:
      >>> tokens("It's no good, Mr. Bond!")
      ["it's", 'no', 'good', ',', 'mr', '.', 'bond', '!']
    """
    return _TOKEN.findall(text.lower())


def vocabulary(texts: Iterable[Sequence[str]], size: int = VOCABULARY) -> tuple[str, ...]:
    """The commonest words of tokenized texts, most common first, those of equal count by the alphabet.

    Args:
      texts: of the training split.
      size: number of words, besides [PAD] and [UNK], which come first.

    Examples:
      >>> vocabulary([["b", "a"], ["b", "c"]], size=2)
      ('[PAD]', '[UNK]', 'b', 'a')
    """
    counts = Counter(word for text in texts for word in text)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return (PAD, UNKNOWN, *(word for word, _ in ranked[:size]))


def encode(texts: Sequence[Sequence[str]], words: Sequence[str], length: int) -> np.ndarray:
    """Tokenized texts as numbers of words, int32 `(N, length)`, 0 behind the end; what is longer is cut.

    A word outside the vocabulary is number 1, [UNK].  A text without words reads as one unknown word, so that no
    network meets an empty sequence.
    """
    numbers = {word: i for i, word in enumerate(words)}
    rows = np.zeros((len(texts), length), np.int32)
    for row, text in zip(rows, texts, strict=True):
        found = [numbers.get(word, 1) for word in text[:length]] or [1]
        row[: len(found)] = found
    return rows


def datasets(
    name: str, corpus: Corpus, *, max_length: int | None = None, size: int = VOCABULARY, where: str
) -> dict[str, Dataset]:
    """Encodes a set with the vocabulary of its training split.

    Args:
      name: what tables call it.
      corpus: the published splits; those that lack are held out as `dataset.part` says.
      max_length: tokens kept of a text; None is as many as the longest has.
      size: words of the vocabulary.
      where: what it was read from, for messages.

    Raises:
      ValueError: for a label outside the classes, a split without texts, or a length or size below 1.
    """
    for flag, value in (("max_length", max_length), ("vocabulary", size)):
        if value is not None and value < 1:
            raise ValueError(f"--{flag} must be at least 1; got {value}.")
    for split, (texts, labels) in corpus.splits.items():
        if not len(texts) or len(texts) != len(labels):
            raise ValueError(f"{where}: split {split!r} has {len(texts)} texts and {len(labels)} labels; fetch it anew")
    published = {
        split: np.asarray(checked_labels(labels, f"split {split!r} of {where}: labels", corpus.classes))
        for split, (_, labels) in corpus.splits.items()
    }
    split_up = {split: [tokens(text) for text in texts] for split, (texts, _) in corpus.splits.items()}
    parts = {split: part(name, split, {key: len(texts) for key, texts in split_up.items()}) for split in SPLITS}
    chosen = {split: split_up[p.published][p.start : p.stop] for split, p in parts.items()}
    words = vocabulary(chosen["train"], size)
    longest = max(1, *(len(text) for texts in chosen.values() for text in texts))
    length = longest if max_length is None else min(max_length, longest)
    found = {}
    for split, p in parts.items():
        own = published[p.published][p.start : p.stop]
        found[split] = Dataset(name, encode(chosen[split], words, length), own, corpus.classes, words)
    return found


def in_fixed_order(texts: Sequence[str], labels: Sequence[int]) -> dict[str, tuple[list[str], list[int]]]:
    """Splits for a set that was published in one file, often sorted: a tenth each for test and validation.

    The order is that of a hash of the texts, so no random generator's version can move the splits, equal texts fall
    into one split but for the two at its edges, and the first so many of a split are a fair sample.
    """
    order = sorted(range(len(texts)), key=lambda i: (blake2b(texts[i].encode(), digest_size=8).digest(), i))
    tenth = max(1, len(order) // 10)
    rows = {"test": order[:tenth], "validation": order[tenth : 2 * tenth], "train": order[2 * tenth :]}
    return {split: ([texts[i] for i in chosen], [labels[i] for i in chosen]) for split, chosen in rows.items()}
