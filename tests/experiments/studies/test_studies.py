"""Each study runs at its smallest size, and writes what it says."""

import json

import pytest

from ...data.files import write_snippets
from ..common import command

pytestmark = pytest.mark.slow


STUDIES = {
    "accuracy": ("--rows=al,predsim",),
    "al_codes": (),
    "al_depth": (),
    "al_profiles": (),
    "al_targets": ("--epochs=1", "--profiles=neco"),
    "codes_elsewhere": ("--rows=bilstm learned,noise neco first",),
    "convergence": ("--nets=mlp",),
    "distances": (),
    "dkp_figure2": (),
    "dkp_table1": ("--trials=2", "--trials_by=vmap"),
    "feedback_fan": (),
    "gradient_flow": (),
    "label_noise": (),
    "scl_settings": ("--nets=mlp",),
    "epoch_seconds": ("--methods=bp,al", "--repetitions=2"),
    "staleness": ("--methods=dfa",),
    "text_ablation": (),
    "text_accuracy": (),
    "text_convergence": (),
}


LONGER = set(STUDIES) - {"accuracy"}


@pytest.mark.parametrize(
    "study", [pytest.param(name, marks=pytest.mark.full if name in LONGER else ()) for name in STUDIES]
)
def test_studies(study, tmp_path):
    out = tmp_path / "results"
    places = (f"--workdir={tmp_path / 'runs'}", f"--out={out}")
    if study.startswith(("text", "codes")):
        write_snippets(tmp_path)
        places += (f"--data_dir={tmp_path}",)
    done = command("--smoke", "--trials=1", *STUDIES[study], *places, program=f"experiments.studies.{study}")
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.json")
    result = json.loads(path.read_text())
    assert result["command"].startswith(f"python -m experiments.studies.{study} --smoke")
    table = path.with_suffix(".md").read_text()
    rows = result.get("rows", result.get("traces"))
    assert rows and all(f"| {row} |" in table for row in rows)
    assert table in done.stdout


@pytest.mark.full
def test_a_study_that_was_stopped_goes_on(tmp_path):
    """Rows that are done are not run again; a row that cannot be is named."""
    places = ("--smoke", "--trials=1", f"--workdir={tmp_path / 'runs'}", f"--out={tmp_path}")
    run = lambda *flags: command(*places, *flags, program="experiments.studies.accuracy")
    assert run("--rows=bp").returncode == 0
    again = run("--rows=bp,early_exit")
    assert again.stdout.count("is a finished run") == 1
    assert set(json.loads((tmp_path / "accuracy_fashion_mlp.json").read_text())["rows"]) == {"bp", "early_exit"}
    refused = run("--rows=bpp")
    assert refused.returncode == 2
    assert "--rows=bpp: no row has these words in its name; the rows are bp, al, scl" in refused.stderr
