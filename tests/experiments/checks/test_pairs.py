"""The table of all pairs of a method and a network."""

import json

import jax
import pytest

from ..common import command


@pytest.mark.slow
@pytest.mark.full
def test_the_table_of_pairs_is_made_in_parts(tmp_path):
    check = lambda net, methods: command(
        f"--nets={net}", f"--methods={methods}", f"--out={tmp_path}", program="experiments.checks.pairs"
    )
    for net, methods in (("cnn", "al,bp_fc"), ("mlp", "al,bp_fc"), ("mlp", "al")):
        done = check(net, methods)
        assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / f"check_pairs_jax-{jax.__version__}.json").read_text())
    assert list(result["rows"]) == ["mlp", "cnn"] and set(result["by"]) == {"mlp", "cnn"}
    assert [run["methods"] for run in result["by"]["mlp"]] == [["bp_fc"], ["al"]]
    assert result["rows"]["cnn"]["al"] <= 1e-12 and "freezes convolutions" in result["rows"]["mlp"]["bp_fc"]
    assert "| mlp |" in done.stdout and "| cnn |" in done.stdout
