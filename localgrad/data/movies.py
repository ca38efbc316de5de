"""Sentences of film reviews with a sentiment: 10,605 of them, about half of them positive (a score above 0).

Source: the archive of vaderSentiment 0.5 on PyPI (MIT licence); Hutto and Gilbert, VADER, ICWSM 2014.  The sentences
are those that the Stanford Sentiment Treebank was made of.
"""

import math
from pathlib import Path

from localgrad.data import fetch
from localgrad.data.files import lines
from localgrad.data.text import Corpus, in_fixed_order

NAME = "movie_snippets"


def read(config: str | None, data_dir: str | Path | None) -> tuple[Corpus, str]:
    """Reads the sentences; class 1 is positive.

    Args:
      config: None; there are no others.
      data_dir: a folder with the file; None looks where `prepare` puts it.

    Returns:
      The set, and the path of the file.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: a config, or the file is damaged (with the number of the line).
    """
    if config is not None:
        raise ValueError(f"{NAME} has one form; got {NAME}/{config}.")
    path = fetch.find(NAME, fetch.SNIPPETS, data_dir)
    texts, labels = [], []
    for number, line in lines(path):
        columns = line.split("\t")
        try:
            _, score, text = columns
            if not math.isfinite(float(score)):
                raise ValueError
            labels.append(int(float(score) > 0))
        except ValueError:
            raise ValueError(
                f"{path}, line {number}: expected a number, a finite score and a text, parted by tabs; got "
                f"{len(columns)} columns. Fetch the file again."
            ) from None
        texts.append(text)
    if not texts:
        raise ValueError(f"{path}: no sentence in it. Fetch the file again.")
    return Corpus(in_fixed_order(texts, labels), 2), str(path)
