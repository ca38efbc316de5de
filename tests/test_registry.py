"""Tables of methods, networks and data sets hold rows of their own type alone."""

import pytest

from localgrad.blocks import NETWORKS
from localgrad.blocks.registry import Network
from localgrad.data import DATASETS
from localgrad.methods import METHODS


@pytest.mark.parametrize(
    ("table", "register"),
    [(NETWORKS, "register_network"), (METHODS, "register_method"), (DATASETS, "register_dataset")],
)
def test_what_is_no_row_is_refused_and_told_how_to_be_one(table, register):
    with pytest.raises(TypeError, match=rf"'own' would be a \w+ here; got function. localgrad.{register}\('own'"):
        table["own"] = lambda **options: []
    assert "own" not in table


@pytest.mark.parametrize(
    "put",
    [
        lambda table, row: table.update(own=row),
        lambda table, row: table.setdefault("own", row),
        lambda table, row: table.update({"own": row}),
    ],
)
def test_no_way_leads_around_it(put):
    with pytest.raises(TypeError, match="'own' would be a Network here"):
        put(NETWORKS, lambda **options: [])
    assert "own" not in NETWORKS


def test_a_row_may_be_put_in_by_hand(monkeypatch):
    monkeypatch.setitem(NETWORKS, "own", Network(list))
    assert NETWORKS["own"]() == []
