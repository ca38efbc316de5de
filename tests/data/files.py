"""Small files of the real form, for the readers that have their own."""

from collections.abc import Sequence
from pathlib import Path


def write_nouns(folder: Path, lines: Sequence[str] | None = None) -> Path:
    """`data.noun` as WordNet has it: a licence, then forty nouns, of fields 4 (thirty) and 5 (ten)."""
    nouns = [
        f"{i:08d} {4 if i < 30 else 5:02d} n 01 word{i} 0 001 @ 00001740 n 0000 | a kind of thing number {i}; "
        '"an example of use"  '
        for i in range(40)
    ]
    path = folder / "data.noun"
    path.write_text("\n".join(["  1 This software and database is being provided", *(lines or nouns)]) + "\n")
    return path


def write_snippets(folder: Path, lines: Sequence[str] | None = None) -> Path:
    """The sentences of vaderSentiment's archive: sixty, those of even numbers fine and of a positive score."""
    rows = [f"{i}\t{(-1) ** i * 1.5}\tA {'fine' if i % 2 == 0 else 'poor'} film, number {i}!" for i in range(60)]
    path = folder / "movieReviewSnippets_GroundTruth.txt"
    path.write_text("\r\n".join(lines or rows))
    return path
