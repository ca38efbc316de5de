"""The law for every method and every network: three batches on one and on three stages agree to 1e-12 in float64.

`experiments.checks.pairs` writes the whole table; `pytest -m full` runs all that is here.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.checks.thin_networks import FEW, THIN, engines, thin
from localgrad import Model
from localgrad.base import Batches, BlockState
from localgrad.blocks import NETWORKS, cnn, mlp, networks_of
from localgrad.methods import METHODS
from localgrad.report import largest_difference

BATCH, CLASSES, STAGES = 6, 3, 3
SMALL = {
    "mlp": (mlp((6, 5, 4)), (BATCH, 5)),
    "cnn": (cnn((4, 6, 6), norm=True, dropout=0.1), (BATCH, 6, 6, 1)),
}
QUICK = ("two_conv",)  # all of them take minutes
FIRST = ("early_exit", "bp")  # the others are made of the same parts


def agree(
    model: Model, as_batches: Callable[..., Batches], random_states: Callable[..., tuple[BlockState, ...]]
) -> None:
    rng = np.random.default_rng(0)
    fed = as_batches(rng.normal(size=(3, *model.x_spec.shape)), rng.integers(0, CLASSES, (3, BATCH)).astype(np.int32))
    start = random_states(model)
    for pair in engines(model, STAGES):
        found = []
        for engine in pair:
            state, _ = engine.run(engine.load(start, jax.random.key(1)), fed)
            found.append(jax.device_get(engine.states(state, fed)))
        assert largest_difference(*found) < 1e-12
        assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (start, found[0])), strict=True))


def make(method: str, network: list, shape: tuple[int, ...], **options) -> Model:
    spec = jax.ShapeDtypeStruct(shape, jnp.float64)
    return METHODS[method](network, spec, CLASSES, lambda scale: optax.sgd(0.1 * scale, momentum=0.9), **options)


# predsim is in CI on images, in the test of networks.
@pytest.mark.parametrize("net", ["mlp", pytest.param("cnn", marks=pytest.mark.full)])
@pytest.mark.parametrize("method", [m if m in FIRST else pytest.param(m, marks=pytest.mark.full) for m in METHODS])
def test_every_method(method: str, net: str, x64: None, as_batches: Callable, random_states: Callable) -> None:
    if method in ("bp_fc", "rotation", "gim", "loco") and net == "mlp":
        pytest.skip("these are vectors, and there are no convolutions to freeze nor images to cut or turn")
    agree(make(method, *SMALL[net], **FEW.get(method, {})), as_batches, random_states)


@pytest.mark.full
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("dgl", {"self_supervised": "reconstruct", "aux": "cnn"}),
        ("dgl", {"self_supervised": "shift", "aux": "mlp", "upsample": "bilinear"}),
        ("dgl", {"self_supervised": "reconstruct", "aux": "hidden", "upsample": "none", "weights": (0, 1)}),
        ("dgl", {"head": "mlp"}),
        ("bp", {"hidden": (5, 4)}),
        ("scl", {"views": 2, "head": "linear", "pool": 16}),
        ("predsim", {"dropout": 0.2, "pool": 16}),
        ("dgl", {"last_gradient_weight": 0.5, "self_supervised": "reconstruct"}),
        ("dfa", {"form": "broadcast"}),
        ("dkp", {"form": "broadcast", "fan": "in"}),
        ("drtp", {"form": "slice"}),
    ],
    ids=str,
)
def test_options(method: str, options: dict, x64: None, as_batches: Callable, random_states: Callable) -> None:
    agree(make(method, *SMALL["cnn"], **options), as_batches, random_states)


@pytest.mark.parametrize("method", [pytest.param("early_exit", marks=pytest.mark.full), "predsim"])
@pytest.mark.parametrize("net", [n if n in QUICK else pytest.param(n, marks=pytest.mark.full) for n in THIN])
def test_every_network(net: str, method: str, x64: None, as_batches: Callable, random_states: Callable) -> None:
    agree(make(method, thin(net), (BATCH, 8, 8, 1)), as_batches, random_states)


@pytest.mark.full
@pytest.mark.parametrize(
    ("method", "net", "net_options", "options"),
    [
        ("al", "resnet20", {"form": "neco"}, {"target_width": 6}),
        ("bp_matched", "resnet20", {"form": "neco", "mean": True, "activation": "relu"}, {"target_width": 6}),
        ("dgl", "vgg11c", {"pool": "between"}, {"self_supervised": "reconstruct", "aux": "hidden", "pool": 64}),
        ("dkp", "vgg11c", {"pool": "between"}, {}),
    ],
    ids=str,
)
def test_published_forms_of_networks(
    method: str, net: str, net_options: dict, options: dict, x64: None, as_batches: Callable, random_states: Callable
) -> None:
    network = NETWORKS[net](**THIN[net], **net_options, blocks=3)
    agree(make(method, network, (BATCH, 8, 8, 1), **options), as_batches, random_states)


def test_no_network_is_forgotten() -> None:
    assert set(THIN) == set(networks_of("images"))
