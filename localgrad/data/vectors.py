"""Word vectors from a text file, one word a line, as GloVe's are published."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from localgrad.data.files import expanded, is_number, lines


def read_vectors(path: str | Path, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of a vocabulary's words; row i is that of `words[i]`.

    Args:
      path: a text file, plain or `.gz`, of lines `word number number ...`, of one width; a first line of two
        whole numbers (word2vec's count and width) is passed over.
      words: the vocabulary, with [PAD] and [UNK] in front, which have no vectors.

    Returns:
      float32 `(V, D)`, zero where a word has no vector, and bool `(V,)`, where it has one.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a line without numbers, of another width, of numbers that are not finite, or of bytes that are no text
        (with its number); no word of the vocabulary is there.

    References:
      Pennington et al., GloVe: Global Vectors for Word Representation, EMNLP 2014
    """
    path = expanded(path)
    rows = {word: i for i, word in enumerate(words) if i > 1}
    vectors: np.ndarray | None = None
    known = np.zeros(len(words), bool)
    width = 0
    for number, line in lines(path, "Give a text file such as glove.6B.300d.txt"):
        columns = line.rstrip().split(" ")
        if number == 1 and len(columns) == 2 and all(column.isdecimal() for column in columns):
            continue
        width = width or len(columns) - 1
        if len(columns) - 1 > width and not all(map(is_number, columns[1:-width])):
            continue  # a word with blanks in it, as a few have; the tokenizer makes none
        if len(columns) - 1 != width or width < 1:
            raise ValueError(
                f"{path}, line {number}: {len(columns) - 1} numbers behind the word; expected {width or 'some'}."
            )
        row = rows.get(columns[0])
        if row is None:
            continue
        if vectors is None:
            vectors = np.zeros((len(words), width), np.float32)
        vectors[row] = _numbers(columns[1:], f"{path}, line {number}")
        known[row] = True
    if vectors is None:
        raise ValueError(f"{path} has a vector for none of the {len(rows)} words of the vocabulary: another language?")
    return vectors, known


def _numbers(columns: Sequence[str], where: str) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):
            found = np.array(columns, np.float64).astype(np.float32)
    except ValueError:
        raise ValueError(f"{where}: what stands behind the word are no numbers.") from None
    if not np.isfinite(found).all():
        column = int(np.argmin(np.isfinite(found)))
        raise ValueError(f"{where}: number {column + 1} behind the word is {columns[column]}; expected finite numbers.")
    return found
