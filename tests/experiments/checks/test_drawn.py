"""Some of the pipelines that `python -m experiments.checks.drawn` draws by the hundred."""

import pytest

from experiments.checks.drawn_pipelines import METHOD_NAMES, Drawn, apart, cuts_of, drawn
from localgrad.methods import METHODS

FIRST = drawn(6)
DEAREST = 3  # of them; it compiles for as long as the other five


def test_draws_are_the_same_every_time_and_go_on() -> None:
    assert len(FIRST) == 6 and drawn(4, first=2) == FIRST[2:]
    assert len({one.method for one in FIRST}) > 3


def test_every_method_is_drawn() -> None:
    assert sorted(METHOD_NAMES) == sorted(METHODS)


def test_cuts_are_stages_of_at_least_one_block() -> None:
    assert cuts_of(FIRST[0]._replace(cuts=(0.1, 0.9)), 4) == (0, 1, 3, 4)
    assert cuts_of(FIRST[0]._replace(cuts=(0.5,)), 1) == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "one",
    [
        pytest.param(
            one, id=f"{one.method}-{one.net}-{one.seed}", marks=[pytest.mark.full] if one is FIRST[DEAREST] else []
        )
        for one in FIRST
    ],
)
def test_a_drawn_pipeline_equals_the_sequential_engine(one: Drawn) -> None:
    found = apart(one, 1e-12)
    assert isinstance(found, str) or found <= 1e-12
