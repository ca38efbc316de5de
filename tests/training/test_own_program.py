"""What a model computes, as digests: another number anywhere in it is another program."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import localgrad as lg
from localgrad.training.own_program import program_of

from . import own


def scheduled(rate):
    """A schedule out of a table, within a program of its own."""
    table = jnp.full(9, rate)
    return optax.sgd(jax.jit(lambda count: table[count]))


def branched(rate):
    """The same, within a branch."""
    table = np.full(9, rate, np.float32)
    look = jax.jit(lambda count: jnp.asarray(table)[count])
    return optax.sgd(lambda count: jax.lax.cond(count > 1, look, lambda count: jnp.float32(0), count))


class Weighted(nn.Module):
    by: float

    @nn.compact
    def __call__(self, x):
        weights = np.full((1, 8), self.by, np.float32)
        return jax.jit(lambda x: x * weights)(nn.Dense(8)(x.reshape(x.shape[0], -1)))


def weighted(by):
    return own.model(blocks=[lg.from_linen(Weighted(by))], tx=optax.sgd(0.1))


def digests(model):
    return json.loads(program_of(model))


def injected(rate):
    return optax.inject_hyperparams(optax.sgd)(learning_rate=rate)


def chained(rate):
    return optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.adam)(learning_rate=rate))


def alone(model):
    return model


def twice(model):
    return lg.trials(model, 2)


ROWS = {(injected, alone), (chained, twice), (scheduled, twice), (branched, alone)}  # each of either at least once


@pytest.mark.parametrize(
    ("make", "wrap"),
    [
        pytest.param(make, wrap, marks=() if (make, wrap) in ROWS else pytest.mark.full)
        for wrap in (alone, twice)
        for make in (injected, chained, scheduled, branched)
    ],
)
def test_another_rate_is_another_optimizer(make, wrap):
    first, same, other = (digests(wrap(own.model(tx=make(rate)))) for rate in (0.05, 0.05, 5.0))
    assert first == same
    assert {name for name in first if first[name] != other[name]} == {"optimizer 1", "optimizer 2"}


def test_another_constant_within_a_module_is_another_block():
    first, same, other = map(digests, map(weighted, (2.0, 2.0, 3.0)))
    assert first == same
    assert {name for name in first if first[name] != other[name]} == {"block 1"}


def test_a_rate_in_the_state_of_a_workdir_is_not_gone_on_with(tmp_path):
    x, y = own.pictures(32)
    blocks = [lg.from_linen(nn.Sequential([lambda x: x.reshape(x.shape[0], -1), nn.Dense(8)]))]
    train = lambda rate: lg.fit(
        own.model(tx=optax.inject_hyperparams(optax.sgd)(learning_rate=rate), blocks=blocks),
        (x, y),
        epochs=1,
        workdir=tmp_path / "run",
        log=lambda line: None,
    )
    train(0.05)
    with pytest.raises(ValueError, match="another configuration: program.optimizer 1 is '"):
        train(5.0)
