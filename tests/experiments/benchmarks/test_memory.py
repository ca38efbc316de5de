"""The memory benchmark at its smallest size: what it writes, and what must hold at any size."""

import json

import jax
import pytest

from ..common import command

pytestmark = pytest.mark.full

VERSION = f"jax-{jax.__version__}"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("memory")
    methods = ("al", "early_exit", "bp", "bp remat", "bp accumulate")
    done = command("--smoke", f"--methods={','.join(methods)}", f"--out={out}", program="experiments.benchmarks.memory")
    assert done.returncode == 0, done.stderr
    assert (out / f"bench_memory_{VERSION}.png").read_bytes().startswith(b"\x89PNG")
    table = (out / f"bench_memory_{VERSION}.md").read_text()
    assert table in done.stdout
    assert all(f"| {method} |" in table for method in methods)
    rows = json.loads((out / f"bench_memory_{VERSION}.json").read_text())["rows"]
    stages = json.loads((out / f"bench_memory_stages_{VERSION}.json").read_text())["rows"]
    return {row["method"]: row for row in rows}, stages


def test_footprint_is_the_state_and_what_comes_on_top(written):
    for row in written[0].values():
        assert [of_depth["blocks"] for of_depth in row["depths"]] == [2, 4]
        for of_depth in row["depths"]:
            assert of_depth["footprint_bytes"] == of_depth["state_bytes"] + of_depth["over_state_bytes"]
            assert 0 < of_depth["temporary_bytes"] <= of_depth["over_state_bytes"]


def test_backpropagation_grows_beyond_its_state(written):
    rows, _ = written
    grown = {method: row["over_state_bytes_a_block"] for method, row in rows.items()}
    activations = 32 * 16 * 4
    assert grown["bp"] > grown["bp remat"] > 0.9 * activations
    assert rows["bp"]["growth"] > rows["bp remat"]["growth"] > 1
    assert rows["bp accumulate"]["depths"][0]["state_bytes"] > rows["bp"]["depths"][0]["state_bytes"]  # the sum


def test_laws_of_the_stages(written):
    _, stages = written
    kept = {row: law["stash_bytes"] for row, law in stages.items()}
    assert kept["local (al)"] == [0, 0, 0, 0]
    one = kept["delayed (dkp)"]
    assert one[0] > one[1] > one[2]
    for parts in (4, 8, 16):
        whole, law = kept[f"GPipe, M = {parts}"], kept[f"1F1B, M = {parts}"]
        assert law == [whole[s] * (4 - s) / parts for s in range(4)]
        assert sum(kept[f"GPipe, remat, M = {parts}"]) < sum(whole)
    modelled = {row for row, law in stages.items() if law["source"] == "modelled"}
    assert modelled == {f"1F1B, M = {parts}" for parts in (4, 8, 16)}


@pytest.mark.parametrize(
    ("flag", "says"), [("--methods=bpp", "there are al, scl"), ("--depths=2", "the last at least 4")]
)
def test_bad_input_is_refused(flag, says, tmp_path):
    done = command(flag, f"--out={tmp_path}", program="experiments.benchmarks.memory")
    assert done.returncode == 2
    assert says in done.stderr
