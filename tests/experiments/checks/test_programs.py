"""The table of local methods and networks whose stages are programs of their own."""

import json

import pytest

from ..common import command


@pytest.mark.slow
@pytest.mark.full
def test_the_table_of_programs_is_made_in_parts(tmp_path):
    check = lambda net: command(
        f"--nets={net}", "--methods=early_exit,bp,rotation", f"--out={tmp_path}", program="experiments.checks.programs"
    )
    for net in ("mlp", "two_conv"):
        assert check(net).returncode in (0, 1)  # compiled in haste, programs may round otherwise
    result = json.loads((tmp_path / "check_programs.json").read_text())
    assert set(result["rows"]) == set(result["by"]) == {"mlp", "two_conv"}
    assert "bp" not in result["rows"]["mlp"] and result["rows"]["mlp"]["early_exit"]["difference"] < 1e-5
    assert "| method | mlp | two_conv |" in (tmp_path / "check_programs.md").read_text()
