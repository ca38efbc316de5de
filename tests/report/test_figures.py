"""A figure knows what it was drawn from."""

import io
import random

import pytest

from localgrad.report import draw_curves, shows_curves


def records(loss):
    return [
        {"split": "train", "step": 9, "epoch": 1, "block_loss": [loss, 0.5]},
        *(
            {"split": split, "step": 9, "epoch": 1, "accuracy": 90.0, "exit_accuracy": [90.0]}
            for split in ("validation", "test")
        ),
    ]


@pytest.fixture(scope="module")
def drawn():
    out = io.BytesIO()
    draw_curves(records(0.1), out)
    return out.getvalue()


def test_curves_show_the_records_that_they_were_drawn_from(drawn):
    assert shows_curves(drawn, records(0.1))
    assert not shows_curves(drawn, records(0.2))


def test_no_damage_goes_unnoticed(drawn):
    choose = random.Random(0)
    for _ in range(300):
        at, bit = choose.randrange(len(drawn)), choose.randrange(8)
        assert not shows_curves(drawn[:at] + bytes([drawn[at] ^ 1 << bit]) + drawn[at + 1 :], records(0.1)), (at, bit)
        assert not shows_curves(drawn[:at], records(0.1)), at
    assert not shows_curves(drawn + b"x", records(0.1))
    assert not shows_curves(b"", records(0.1))
