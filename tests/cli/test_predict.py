"""`localgrad predict`: rows that say what was predicted, of which example, in JSON that others read."""

import json

import numpy as np
import pytest

from localgrad.cli import predict
from localgrad.prediction import About, Predictor


def network(task="classification", outputs=2, names=None, run=lambda x, exit: x, **about):
    """One whose scores are its inputs."""
    return Predictor(
        About((outputs,), "float32", "float32", task, outputs, "rows", label_names=names, **about), (1,), run
    )


def written(tmp_path, text, name="new.csv"):
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def lines_of(file, predictor):
    names, inputs = predict.read_inputs([file], predictor)
    found = predict.predicted(predictor, names, inputs, None, None)
    rows = predict.rows_of(names, found)

    def constant(name):
        raise AssertionError(f"{name} is not JSON")

    read = [json.loads(line, parse_constant=constant) for line in predict.as_jsonl(rows, found).splitlines()]
    return read, predict.as_csv(rows).splitlines()


def test_numbers_are_numbers_and_keep_all_digits(tmp_path):
    found, table = lines_of(written(tmp_path, "a,b\n1234567,0.1\n-2,16777216\n"), network("regression"))
    assert [row["prediction"] for row in found] == [[1234567, 0.1], [-2, 16777216]]
    assert all(set(row) == {"input", "prediction", "exit"} for row in found)
    assert [line.split(",")[1] for line in table[1:]] == ["1234567 0.1", "-2 16777216"]
    one, _ = lines_of(written(tmp_path, "a\n1234567\n"), network("regression", 1))
    assert one[0]["prediction"] == 1234567


def test_labels_are_told_by_their_names(tmp_path):
    file = written(tmp_path, "a,b,c\n1,-1,2\n-1,-1,-1\n")
    found, table = lines_of(file, network("multilabel", 3, ("sea", "sun", "dog")))
    assert [row["prediction"] for row in found] == [["sea", "dog"], []]
    assert found[0]["probabilities"] == pytest.approx({"sea": 0.731, "sun": 0.269, "dog": 0.881}, abs=1e-3)
    assert '"sea, dog"' in table[1] and "(none)" in table[2]
    bare, _ = lines_of(file, network("multilabel", 3))
    assert bare[0]["prediction"] == [1, 0, 1] and bare[0]["probabilities"] == pytest.approx([0.731, 0.269, 0.881], 1e-2)


def test_classes_are_told_by_their_names(tmp_path):
    found, _ = lines_of(written(tmp_path, "a,b\n0,3\n"), network(names=("no", "yes")))
    assert found[0]["prediction"] == "yes" and len(found[0]["probabilities"]) == 2
    bare, table = lines_of(written(tmp_path, "a,b\n0,3\n"), network())
    assert bare[0]["prediction"] == 1 and table[1].split(",")[1] == "1"


def test_an_example_without_finite_scores_is_named(tmp_path):
    file = written(tmp_path, "a,b\n1,2\n3e38,1\n")
    with pytest.raises(ValueError, match=r"the network's scores of .*new.csv:2 are not finite"):
        lines_of(file, network(run=lambda x, exit: x * x))
    with pytest.raises(ValueError, match="row 2, column b: 'nan'; expected a finite number"):
        lines_of(written(tmp_path, "a,b\n1,2\n3,nan\n"), network())


def test_no_row_is_lost_without_a_word(tmp_path):
    with pytest.raises(ValueError, match=r"new.csv, line 3: the row that begins here is none of a CSV file"):
        lines_of(written(tmp_path, 'a,b\n1,2\n3,"4\n5,6\n'), network())
    found, _ = lines_of(written(tmp_path, "a,b\n1,2\n\n3,4\n", "NEW.CSV"), network())
    assert len(found) == 2


def test_a_network_that_was_trained_on_booleans_reads_zeros_and_ones(tmp_path):
    found = network()
    booleans = Predictor(found.about._replace(raw_dtype="bool"), (1,), lambda x, exit: x.astype(np.float32))
    read, _ = lines_of(written(tmp_path, "a,b\n0,1\n1,0\n"), booleans)
    assert [row["prediction"] for row in read] == [1, 0]
    with pytest.raises(ValueError, match="trained on bool, which holds 0 and 1 alone"):
        lines_of(written(tmp_path, "a,b\n0,0.5\n1,0\n"), booleans)
