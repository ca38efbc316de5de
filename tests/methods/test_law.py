"""The law of `localgrad.testing` for methods that came after the table of `test_properties.py`, a small model each.

`full` holds each to all of it; without, to what the pipeline promises of it: the sequential engine's numbers on every
schedule, one compilation, no gradient across blocks, and randomness from the key alone.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
import pytest

from localgrad import testing
from localgrad.base import Model
from localgrad.blocks import cnn, mlp
from localgrad.methods import (
    auglocal,
    deep_supervision,
    early_exit,
    ff,
    gim,
    infopro,
    mixed_error,
    mono_forward,
    noprop,
    overlapping,
    rotation,
    scl,
    simclr,
    usf,
)

BATCH, CLASSES = 4, 3
VECTORS, IMAGES = (jax.ShapeDtypeStruct(shape, jnp.float64) for shape in ((BATCH, 5), (BATCH, 4, 4, 1)))
TX = optax.sgd(0.1, momentum=0.9)
DRAWS = mlp((4, 3, 3), dropout=0.2)
NORMS = mlp((4, 3, 3), norm=True)

MODELS: dict[str, Callable[[], Model]] = {
    "usf": lambda: usf(DRAWS[:2], VECTORS, CLASSES, tx=TX),
    "deep_supervision": lambda: deep_supervision(DRAWS, VECTORS, CLASSES, tx=TX, weight=0.5),
    "mono_forward": lambda: mono_forward(NORMS, VECTORS, CLASSES, tx=TX, prediction="sum"),
    "infopro": lambda: infopro(NORMS, VECTORS, CLASSES, tx=TX),
    "infopro of images": lambda: infopro(cnn((2, 3, 3)), IMAGES, CLASSES, tx=TX, loss="softmax"),
    "ff": lambda: ff(DRAWS, VECTORS, CLASSES, tx=TX),
    "auglocal": lambda: auglocal(NORMS, VECTORS, CLASSES, tx=TX),
    "noprop": lambda: noprop(DRAWS[:1], VECTORS, CLASSES, tx=TX, steps=3, hidden=4, weights="one"),
    "mixed": lambda: mixed_error(scl(DRAWS[:2], VECTORS, CLASSES, tx=TX, head="linear"), 0.5),
    "simclr": lambda: simclr(NORMS, VECTORS, CLASSES, tx=TX, hidden=24, width=5),
    "rotation": lambda: rotation(DRAWS, IMAGES, CLASSES, tx=TX),
    "gim": lambda: gim(DRAWS, IMAGES, CLASSES, tx=TX, patch=2, steps=1, negatives=3),
    "overlap": lambda: overlapping(early_exit(DRAWS, VECTORS, CLASSES, tx=TX)),
}
FIRST = ("deep_supervision", "overlap")  # the others are made of the same parts
DEAREST = ("task", "variants", "round_trip", "bubbles", "trials")
STAGES = 3


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in FIRST else pytest.mark.full) for name in MODELS]
)
def test_the_pipeline_keeps_its_promises(name: str, x64: None) -> None:
    testing.check_model(MODELS[name](), stages=STAGES, without=DEAREST)


@pytest.mark.full
@pytest.mark.parametrize("name", MODELS)
def test_the_whole_law(name: str, x64: None) -> None:
    testing.check_model(MODELS[name](), stages=STAGES)
