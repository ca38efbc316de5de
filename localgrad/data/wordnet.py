"""WordNet's nouns: 82,115 definitions, each with the field that its noun belongs to (act, animal, artifact, ...).

`wordnet_gloss` keeps the 14 largest fields, a task like DBpedia's; `wordnet_gloss/all` has all 26.

Source: Debian's package `wordnet-base`; Fellbaum (ed.), WordNet: An Electronic Lexical Database, 1998
"""

from pathlib import Path

from localgrad.data import fetch
from localgrad.data.files import lines
from localgrad.data.text import Corpus, in_fixed_order

NAME = "wordnet_gloss"
INSTALLED = Path("/usr/share/wordnet/data.noun")
_LARGEST = 14


def read(config: str | None, data_dir: str | Path | None) -> tuple[Corpus, str]:
    """Reads the definitions, without the examples of use that follow some of them.

    Args:
      config: None for the 14 largest fields, `all` for all of them.
      data_dir: a folder with `data.noun`; None looks where Debian's package puts it, then where `prepare` does.

    Returns:
      The set, of classes in the order of WordNet's numbers, and the path of the file.

    Raises:
      FileNotFoundError: it is in none of these places.
      ValueError: another config, or the file is damaged (with the number of the line).
    """
    if config not in (None, "all"):
        raise ValueError(f"{NAME} has the forms {NAME} (the 14 largest fields) and {NAME}/all; got {NAME}/{config}.")
    path = fetch.find(NAME, "data.noun", data_dir, installed=INSTALLED)
    texts, fields = [], []
    for number, line in lines(path):
        if line.startswith(" "):  # the licence
            continue
        data, separator, gloss = line.partition("|")
        field = data.split(" ", 2)[1:2]
        if not separator or not field or not field[0].isdecimal():
            raise ValueError(f"{path}, line {number}: no noun with its field and definition; fetch the file again.")
        texts.append(gloss.split(';  "')[0].split('; "')[0].strip())
        fields.append(int(field[0]))
    if not texts:
        raise ValueError(f"{path}: no noun in it; fetch the file again.")
    present = sorted(set(fields))
    if config is None:
        present = sorted(sorted(present, key=lambda field: (-fields.count(field), field))[:_LARGEST])
    classes = {field: i for i, field in enumerate(present)}
    kept = [(text, classes[field]) for text, field in zip(texts, fields, strict=True) if field in classes]
    return Corpus(in_fixed_order([text for text, _ in kept], [label for _, label in kept]), len(classes)), str(path)
