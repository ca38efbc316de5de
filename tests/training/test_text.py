"""Runs on texts: trained and evaluated through the loop, and what does not go together."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from localgrad.evaluation.exits import anytime, anytime_flops, collect, temperatures
from localgrad.prediction import About
from localgrad.training import Config, prepare, run_job
from localgrad.training.beginnings import Trained, check_numbered

from ..data.files import write_snippets

ALONE = {"method": "early_exit", "target_width": None}  # quick to trace
TINY = {"widths": (6,), "net_options": ("embed_width=6",), "batch_size": 8, "target_width": 6}


def config(tmp_path: Path, **fields: Any) -> Config:
    write_snippets(tmp_path)
    base = {"net": "bilstm", "dataset": "movie_snippets", "data_dir": str(tmp_path), "workdir": str(tmp_path / "run")}
    return Config(**{**base, **TINY, **fields})


@pytest.mark.slow
def test_a_network_of_texts_is_trained_and_leaves_early(tmp_path: Path) -> None:
    job = prepare(config(tmp_path, epochs=12, learning_rate=0.03, max_length=4))
    outcome = run_job(job, log=lambda line: None)
    last = outcome.records[-1]
    assert len(last["exit_accuracy"]) == 2 and last["exit_accuracy"][-1] == 100.0  # `fine` or `poor`, the second word
    scores, labels = collect(job.model, outcome.states, job.eval_batches("validation"))
    x, *_ = next(iter(job.eval_batches("test")))
    flops = anytime_flops(job.model, outcome.states, x)
    (row,) = anytime(scores, labels, temperatures(scores, labels), flops, [0.0])
    assert row.shares == (1.0, 0.0) and np.isclose(row.flops, flops[0]) and 0 < flops[0] < flops[1]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"net": "mlp"}, "net 'mlp' does not read the texts of movie_snippets; choose embedding, bilstm, transformer"),
        ({"dataset": "digits"}, "net 'bilstm' does not read the images of digits; choose mlp, cnn"),
        ({"net_options": ("words=3",)}, "net 'bilstm' has no option 'words'"),
        ({"augment": ("crop",)}, "augmentation and views are of pictures"),
        ({"max_length": 0}, "--max_length must be at least 1"),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        prepare(config(tmp_path, **ALONE, **fields))
    assert not (tmp_path / "run").exists()


def test_word_vectors_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("fine 1 2 3 4 5 6\npoor 6 5 4 3 2 1\n")
    job = prepare(config(tmp_path, **ALONE, word_vectors=str(path)))
    words = job.splits["train"].words
    table = job.begin.draw(jax.random.key(0))[0].params["f"]["Embed_0"]["embedding"]
    assert words is not None and np.array_equal(table[words.index("fine")], [1, 2, 3, 4, 5, 6])
    with pytest.raises(ValueError, match="choose net option embed_width=6"):
        prepare(config(tmp_path, word_vectors=str(path), net_options=("embed_width=5",)))
    with pytest.raises(ValueError, match="--word_vectors are of words, and digits holds images"):
        prepare(config(tmp_path, word_vectors=str(path), net="mlp", dataset="digits", net_options=()))
    with pytest.raises(FileNotFoundError, match="is not there. Give a text file"):
        prepare(config(tmp_path, word_vectors=str(tmp_path / "none.txt")))


@pytest.mark.full
def test_a_network_does_not_begin_with_one_of_other_words(tmp_path: Path) -> None:
    first = config(tmp_path, epochs=1)
    run_job(prepare(first), log=lambda line: None)
    again = config(tmp_path, begin_from=first.workdir, workdir=str(tmp_path / "again"))
    assert len(prepare(again).begin.notes) == 1
    (tmp_path / "vectors.txt").write_text("fine 1 2 3 4 5 6\n")
    (*_, last) = prepare(
        config(
            tmp_path,
            word_vectors=str(tmp_path / "vectors.txt"),
            begin_from=first.workdir,
            workdir=str(tmp_path / "third"),
        )
    ).begin.notes
    assert f"the vectors of the words are those of {first.workdir}, and not of --word_vectors" in last
    (tmp_path / "other").mkdir()
    other = config(tmp_path / "other", begin_from=first.workdir)
    (path := write_snippets(tmp_path / "other")).write_text(path.read_text().replace("fine", "well"))
    with pytest.raises(ValueError, match="other words: number . is 'fine' there and .* in these data.*--vocabulary"):
        prepare(other)


@pytest.mark.parametrize("names", ["words", "columns"])
def test_the_same_numbers_must_mean_the_same(names: str) -> None:
    about = About((3,), "int32", "int32", "classification", 2, "a set", **{names: ("a", "b", "c")})
    check = lambda **other: check_numbered(Trained((), about, "runs/old"), about._replace(**other))
    check()
    check(**{names: None})
    check(**{names: ("b", "a", "c", "d")})  # then the first block does not fit, and begins anew
    with pytest.raises(ValueError, match=f"runs/old was trained on other {names}: number 1 is 'b' there and 'd' in"):
        check(**{names: ("a", "d", "c")})
