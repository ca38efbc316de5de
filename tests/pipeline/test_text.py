"""The law for networks of texts: both engines agree, every method to 1e-12 in float64, a BiLSTM by digest."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.checks.thin_networks import FEW
from localgrad import Model, init, params_sha256, sequential, spmd
from localgrad.base import BlockState
from localgrad.blocks import bilstm, transformer
from localgrad.data import batches
from localgrad.methods import METHODS
from localgrad.report import largest_difference

WORDS, BATCH, LENGTH, CLASSES = 40, 6, 10, 3
SPEC = jax.ShapeDtypeStruct((BATCH, LENGTH), jnp.int32)
NETWORKS = {
    "bilstm": lambda dtype: bilstm(WORDS, widths=(6, 5), embed_width=7, dropout=0.3, buckets=(5,), dtype=dtype),
    "transformer": lambda dtype: transformer(
        WORDS, width=8, feed_forward=6, heads=2, dropout=0.3, buckets=(5,), dtype=dtype
    ),
    "one encoder": lambda dtype: transformer(
        WORDS, layers=1, width=6, feed_forward=5, heads=2, dropout=0.3, dtype=dtype
    ),
}
SAME_NUMBERS = {  # dropout is drawn once a part, and delays are another training
    **{method: {"staleness": "locked"} for method in ("dfa", "dkp", "mixed", "cdni", "critic", "direct_tp")},
    **{method: {"micro_batches": 1} for method in ("bp", "bp_matched", "deep_supervision")},
}


def make_model(net: str, method: str, dtype: jnp.dtype) -> Model:
    """Clipping by norm and momentum, which a bubble would move."""
    optimizer = lambda scale: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.5 * scale, momentum=0.9))
    narrow = {"al": {"target_width": 6, "bridge": ()}, "bp_matched": {"target_width": 6}}
    options = narrow.get(method, FEW.get(method, {}))
    return METHODS[method](NETWORKS[net](dtype), SPEC, CLASSES, optimizer, **options)


def trained(model: Model, start: tuple[BlockState, ...], stages: int, steps: int, **options) -> tuple[BlockState, ...]:
    rng = np.random.default_rng(0)
    size = rng.integers(1, LENGTH // 2 * (1 + np.arange(steps) % 2)[:, None, None] + 1, (steps, BATCH, 1))
    xs = np.where(np.arange(LENGTH) < size, rng.integers(1, WORDS, (steps, BATCH, LENGTH)), 0).astype(np.int32)
    ys = rng.integers(0, CLASSES, (steps, BATCH)).astype(np.int32)
    engine = spmd(model, stages=stages, **options) if stages else sequential(model)
    fed = batches(jnp.asarray(xs), jnp.asarray(ys))
    state, _ = engine.run(engine.load(start, jax.random.key(1)), fed)
    return jax.device_get(engine.states(state, fed))


@pytest.mark.parametrize(
    ("net", "method", "stages"),
    [
        ("one encoder", "al", 2),
        *(
            pytest.param(net, method, stages, marks=pytest.mark.full)
            for net in ("bilstm", "transformer")
            for method in (
                "al",
                "scl",
                "early_exit",
                "predsim",
                "dgl",
                "bp",
                "bp_matched",
                "dfa",
                "dkp",
                "drtp",
                "cdni",
                "critic",
                "direct_tp",
            )
            for stages in (1, 2, 3)
        ),
        *(
            pytest.param("bilstm", method, 3, marks=pytest.mark.full)
            for method in ("auglocal", "mono_forward", "noprop", "deep_supervision", "mixed")
        ),
    ],
)
def test_float64_agrees_to_1e_12(net: str, method: str, stages: int, x64: None, random_states: Callable) -> None:
    model = make_model(net, method, jnp.float64)
    start = random_states(model)
    ours = trained(model, start, stages, 4, **SAME_NUMBERS.get(method, {}))
    assert largest_difference(ours, trained(model, start, 0, 4)) < 1e-12


@pytest.mark.slow
@pytest.mark.bits
@pytest.mark.parametrize(
    "stages", [pytest.param(1, marks=pytest.mark.full), 2, pytest.param(3, marks=pytest.mark.full)]
)
def test_float32_digests_of_a_bilstm_are_equal(stages: int) -> None:
    adam = lambda scale: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2 * scale))
    network = bilstm(WORDS, widths=(6, 5), embed_width=7, dropout=0.3)
    model = METHODS["al"](network, SPEC, CLASSES, adam, target_width=6)
    start = init(model, jax.random.key(0))
    assert params_sha256(trained(model, start, stages, 8)) == params_sha256(trained(model, start, 0, 8))


@pytest.mark.parametrize(
    ("method", "options", "says"),
    [
        ("fa", {}, "one dense or convolutional layer of Flax linen; 'embedding7' has none"),
        ("kp", {}, "use dfa or dkp"),
        ("bp_fc", {}, "this network has none: use bp"),
        ("usf", {}, r"block 'embedding7' has kernels that are not of these: .*'embedding'"),
        ("infopro", {}, "reconstructs its input, and token ids are no quantities"),
        ("ff", {}, "of int32: it takes as many floating numbers or more"),
        ("rotation", {}, "turns square images"),
        ("gim", {}, "cut images"),
        ("dgl", {"self_supervised": "reconstruct"}, "word numbers are no quantities"),
        ("dgl", {"aux": "cnn"}, "reads images"),
    ],
)
def test_methods_that_cannot_read_texts_say_why(method: str, options: dict, says: str) -> None:
    make: Callable = lambda: init(
        METHODS[method](NETWORKS["bilstm"](jnp.float32), SPEC, CLASSES, lambda scale: optax.sgd(0.1), **options),
        jax.random.key(0),
    )
    with pytest.raises(ValueError, match=says):
        make()
