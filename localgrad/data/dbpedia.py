"""DBpedia's ontology classification: 560,000 and 70,000 articles' titles and abstracts, 14 classes.

Source: Zhang, Zhao and LeCun, https://arxiv.org/abs/1509.01626; the folder `dbpedia_csv` as they published it.
"""

from pathlib import Path

from localgrad.data import fetch
from localgrad.data.csv_rows import csv_rows
from localgrad.data.text import Corpus

NAME = "dbpedia"
CLASSES = 14


def read(config: str | None, data_dir: str | Path | None) -> tuple[Corpus, str]:
    """Reads titles and abstracts, joined.

    Args:
      config: None; there are no others.
      data_dir: the folder with `train.csv` and `test.csv`, of rows `class (1 to 14), title, abstract`.

    Returns:
      The set, and the path of the folder.

    Raises:
      FileNotFoundError: the files are not there.
      ValueError: a config, or a row that is none (with the number of the line).
    """
    if config is not None:
        raise ValueError(f"{NAME} has one form; got {NAME}/{config}.")
    splits = {}
    for split in ("train", "test"):
        path = fetch.find(NAME, f"{split}.csv", data_dir)
        texts, labels = [], []
        for number, row in csv_rows(path):
            if len(row) != 3 or not row[0].isdecimal():
                raise ValueError(f"{path}, line {number}: expected class, title, abstract; got {len(row)} columns.")
            labels.append(int(row[0]) - 1)
            texts.append(f"{row[1]} {row[2]}")
        splits[split] = (texts, labels)
    return Corpus(splits, CLASSES), str(path.parent)
