"""A comparison gives every method the same budget, chooses on validation, and says what the runs wrote."""

import json

import pytest

import localgrad as lg
from localgrad.report.facts import Run
from localgrad.results import gather
from localgrad.results.compare import choose, numbers_of, tables_of, train_row
from localgrad.results.grid import rows_of
from localgrad.training import Config


def base(tmp_path, **more):
    small = {"net": "mlp", "widths": (8, 8), "limit": 64, "batch_size": 32, "epochs": 1}
    return Config(**small, workdir=str(tmp_path / "all"), **more)


@pytest.mark.parametrize(
    ("methods", "sweeps", "says"),
    [
        ([], [], "there is nothing to compare"),
        (["al", "al"], [], "has a row twice"),
        (["magic"], [], "unknown method 'magic'"),
        (["al:magic=1"], [], "unknown field in --methods 'magic'"),
        (["al:epochs"], [], "'epochs' is not field=value"),
        (["al:stages=2"], [], "stages is the same for the whole comparison; give --stages itself"),
        (["al"], ["epochs"], "--sweep is field=value,value,... such as"),
        (["al"], ["learning_rate=fast"], "learning_rate is of type float; got 'fast'"),
        (["al"], ["norm=perhaps"], "norm is of type bool"),
        (["al"], ["epochs=1", "epochs=2"], "once for each field"),
        (["al"], ["epochs=1,1"], "has a value twice"),
        (["al:epochs=3"], ["epochs=1,2"], "fixes epochs, which --sweep varies"),
    ],
)
def test_what_cannot_be_compared_is_refused(methods, sweeps, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        rows_of(base(tmp_path), methods, sweeps)


def test_every_method_tries_every_combination(tmp_path):
    rows = rows_of(base(tmp_path), ["al:epochs=3", "bp"], ["learning_rate=1e-4,1e-3", "dropout=0.1,0.2"])
    assert [len(row.points) for row in rows] == [4, 4]
    assert [point.config.epochs for point in rows[0].points] == [3] * 4
    assert {(p.config.learning_rate, p.config.dropout) for p in rows[1].points} == {
        (rate, share) for rate in (1e-4, 1e-3) for share in (0.1, 0.2)
    }
    assert len({point.config.workdir for row in rows for point in row.points}) == 8


def test_the_best_on_validation_is_chosen_and_one_that_diverged_is_not(tmp_path):
    (row,) = rows_of(base(tmp_path), ["bp"], ["learning_rate=1,2,3,4"])
    one = lambda validation, test: {"best_validation_accuracy": validation, "best_test_accuracy": test}
    found = choose(
        row, [one({"mean": 80.0}, 99.0), {}, one({"mean": 90.0}, 50.0), one({"mean": 90.0}, 60.0)], lg.classification(2)
    )
    assert found.chosen.tries == {"learning_rate": 3.0} and found.summary["best_test_accuracy"] == 50.0
    none = choose(row, [{}, {}, {}, {}], lg.classification(2))
    assert none.chosen is None and numbers_of(none, None)["method"] == "bp"
    least = [{"best_validation_mean_squared_error": error} for error in (3.0, 1.0, 2.0)]
    assert choose(row, [*least, {}], lg.regression(1)).chosen.tries == {"learning_rate": 2.0}
    (table, *_) = tables_of([none], [None])
    assert table.rows[0][:2] == ["bp", "diverged"] and "with trials that of the first one's network" in table.says
    for nowhere in (float("nan"), {"mean": float("nan")}):
        unknown = [{"best_validation_mean_squared_error": value} for value in (nowhere, 3.0, nowhere)]
        assert choose(row, [*unknown, {}], lg.regression(1)).chosen.tries == {"learning_rate": 2.0}


@pytest.mark.slow
def test_the_table_says_what_the_runs_wrote(tmp_path):
    rows = rows_of(base(tmp_path, stages=2), ["early_exit", "bp"])
    said: list[str] = []
    trained = [train_row(row, said.append, lambda jobs: None) for row in rows]
    read: list[Run | None] = [
        gather(row.chosen.config.workdir, row.name, alignment=True) for row in trained if row.chosen
    ]
    numbers = {row.name: numbers_of(row, run) for row, run in zip(trained, read, strict=True)}
    for name, found in numbers.items():
        summary = json.loads((tmp_path / "all" / name / "summary.json").read_text())
        assert found["test"] == summary["best_test_accuracy"] and found["parameters"] == summary["params"]
        assert list(found["exits"].values()) == summary["best_exit_accuracy"]
        assert found["examples_per_sec"] == summary["examples_per_sec"]
    assert numbers["bp"]["cosine"] == pytest.approx([1, 1], abs=1e-5) and numbers["bp"]["alignment"] > 0.999
    assert numbers["early_exit"]["alignment"] < 0.999
    assert numbers["early_exit"]["ticks_waited"] == 1  # S - 1, once a run
    assert numbers["bp"]["ticks_waited"] == 2 * 2  # 2 (S - 1) a batch, of two
    exits = tables_of(trained, read)[1]
    assert exits.title == "By exit: test accuracy, %" and [row[0] for row in exits.rows] == ["1", "2"]
    assert exits.rows[0][2] == "" and exits.rows[1][2] == f"{numbers['bp']['test']:.2f}"
    again = train_row(rows[0], said.append, lambda jobs: None)
    assert again.summary == trained[0].summary and "is a finished run" in said[-1]
