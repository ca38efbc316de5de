"""Parts of a batch that are too small to learn from are refused, and never chosen."""

from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from localgrad import (
    al,
    bp,
    cnn,
    dfa,
    dgl,
    early_exit,
    freeze,
    from_linen,
    from_nnx,
    mlp,
    predsim,
    scl,
    sequential,
    spmd,
    trials,
)  # fmt: skip
from localgrad.pipeline import least_examples
from localgrad.pipeline.schedules import parts_of


class Linen(nn.Module):
    """A dense layer and a norm by name."""

    norm: str

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Dense(8)(x)
        if self.norm == "batch":
            return nn.BatchNorm(use_running_average=not train)(x)
        if self.norm == "batch without statistics":
            return (x - x.mean(0, keepdims=True)) / (x.std(0, keepdims=True) + 1e-3)
        if self.norm == "counts":  # a model state that has nothing to do with the examples
            calls = self.variable("count", "n", lambda: jnp.zeros((), x.dtype))
            if train:
                calls.value = calls.value + 1
        return nn.GroupNorm(2)(x) if self.norm == "group" else x


class Nnx(nnx.Module):
    """A dense layer and a batch norm."""

    def __init__(self, rngs):
        self.dense, self.norm = nnx.Linear(12, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.dense(x))


ONE, TWO = tuple(mlp((8,))), tuple(mlp((8, 8)))
ONE_NORM, TWO_NORM = tuple(mlp((8,), norm=True)), tuple(mlp((8, 8), norm=True))


@cache
def model_of(method, network, batch=1, count=None, **options):
    spec = jax.ShapeDtypeStruct((batch, 12), jnp.float32)
    model = method(network, spec, classes=4, tx=optax.adam(1e-2), **options)
    return model if count is None else trials(model, count)


@pytest.mark.parametrize(
    ("least", "make"),
    [
        pytest.param(1, partial(model_of, early_exit, tuple(mlp((8,), dropout=0.2))), id="dropout"),
        pytest.param(1, partial(model_of, al, TWO, bridge=()), id="al"),
        pytest.param(1, partial(model_of, dfa, ONE), id="dfa"),
        pytest.param(1, partial(model_of, early_exit, (from_linen(Linen("group")),)), id="group norm"),
        pytest.param(1, partial(model_of, early_exit, (from_linen(Linen("counts")),)), id="a counter"),
        pytest.param(1, partial(model_of, dgl, TWO, aux="hidden"), id="dgl, hidden"),
        pytest.param(1, partial(model_of, predsim, ONE, beta=0.0), id="pred"),
        pytest.param(2, partial(model_of, predsim, ONE, beta=0.01), id="predsim"),
        # The similarity of predsim is seen beside another loss already.
        pytest.param(2, partial(model_of, predsim, ONE, beta=1.0), id="sim", marks=pytest.mark.full),
        pytest.param(3, partial(model_of, scl, ONE), id="scl"),
        pytest.param(2, partial(model_of, scl, ONE, views=2), id="scl, two views"),
        # Its heads are those of the row below.
        pytest.param(2, partial(model_of, dgl, TWO), id="dgl, mlp_sr", marks=pytest.mark.full),
        pytest.param(2, partial(model_of, dgl, TWO, last_gradient_weight=0.5), id="dgl that waits"),
        pytest.param(2, partial(model_of, bp, TWO_NORM), id="bp, norm"),
        pytest.param(2, partial(model_of, bp, ONE_NORM, count=2), id="trials"),
        # The norms of `mlp` are of linen, too, and a norm of linen's own is frozen below.
        pytest.param(
            2, partial(model_of, early_exit, (from_linen(Linen("batch")),)), id="linen", marks=pytest.mark.full
        ),
        pytest.param(
            2, partial(model_of, early_exit, (from_linen(Linen("batch without statistics")),)), id="without statistics"
        ),
        pytest.param(2, partial(model_of, early_exit, (from_nnx(Nnx),)), id="nnx"),
    ],
)
def test_the_fewest_examples_are_found_from_the_blocks(least, make):
    assert least_examples(make()) == least


def test_a_frozen_norm_still_compares_examples():
    network = (from_linen(Linen("batch")), *ONE)
    assert least_examples(freeze(model_of(early_exit, network), 1)) == 2


def test_images_normalised_one_by_one_are_not_coupled():
    spec = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    assert least_examples(early_exit(cnn((4,)), spec, 4, tx=optax.sgd(0.1))) == 1
    assert least_examples(early_exit(cnn((4,), norm=True), spec, 4, tx=optax.sgd(0.1))) == 2


def test_a_large_batch_is_not_tried(monkeypatch):
    monkeypatch.setattr("localgrad.pipeline.coupling.couples", lambda model: pytest.fail("tried"))
    sequential(model_of(bp, ONE_NORM, batch=2))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(  # one example is too few for the third row, and scl for the second
            lambda: sequential(model_of(scl, ONE)),
            "batch_size=1 gives method 'scl' 1 example at a time",
            marks=pytest.mark.full,
        ),
        (lambda: sequential(model_of(scl, ONE, batch=2)), "batch_size=2 .* at least 3"),
        (lambda: spmd(model_of(bp, ONE_NORM), stages=1), "batch_size=1 gives method 'bp'"),
        (lambda: spmd(model_of(scl, ONE, batch=4), stages=1, data_parallel=4), "data_parallel=4 of batch_size=4"),
        pytest.param(  # what is found by trying is refused as what a model says of its losses
            lambda: spmd(model_of(dgl, TWO, batch=4), stages=1, data_parallel=4),
            "data_parallel=4",
            marks=pytest.mark.full,
        ),
        (
            lambda: spmd(model_of(bp, TWO_NORM, batch=8), stages=2, data_parallel=2, micro_batches=4),
            "micro_batches=4 of 4 examples gives method 'bp' 1 example",
        ),
    ],
)
def test_parts_that_nothing_can_be_learnt_from_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_one_example_is_enough_where_none_are_compared():
    assert spmd(model_of(early_exit, ONE, batch=2), stages=1, data_parallel=2).plan.data_parallel == 2
    assert spmd(model_of(bp, TWO, batch=4), stages=2).plan.schedule.parts == 4


def test_micro_batches_by_default_are_large_enough():
    assert parts_of(4, 2, None) == 4
    assert parts_of(4, 2, None, least=2) == 2
    assert parts_of(7, 2, None, least=2) == 1  # a prime number of examples
    assert parts_of(1, 2, None, least=2) == 1
    norm = spmd(model_of(bp, TWO_NORM, batch=8), stages=2, data_parallel=2)
    assert (norm.plan.data_parallel, norm.plan.schedule.parts) == (2, 2)
