"""Which optimizers climb: what is added must not point along the gradient, wrapped or not."""

import jax
import jax.numpy as jnp
import optax
import pytest
from optax import contrib

import localgrad as lg
from localgrad import descent
from localgrad.descent import ClimbError, descending

from .training import own

PARAMS = {"f": {"kernel": jnp.zeros((6, 8)), "bias": jnp.zeros(8)}, "head": {"kernel": jnp.zeros((3, 3, 4, 5))}}
ONES = jax.tree.map(jnp.ones_like, PARAMS)


def heads(params):
    return {group: jax.tree.map(lambda _, learns=group == "head": learns, tree) for group, tree in params.items()}


def masked():
    """Beside its mask it hands on the gradient."""
    return optax.masked(optax.sgd(0.1), heads)


def parted():
    return optax.partition(
        {"learns": optax.sgd(0.1), "stands": optax.set_to_zero()},
        lambda params: {group: "learns" if group == "head" else "stands" for group in params},
    )


def trace(tx, params=PARAMS):
    """Traces an update, as an engine does: nothing has a value."""
    update = lambda grads, state: descending(tx).update(grads, state, grads, value=jnp.float32(1))
    with jax.numpy_dtype_promotion("standard"):
        return jax.eval_shape(update, params, jax.eval_shape(tx.init, params))


@pytest.mark.parametrize(
    "make",
    [
        lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
        lambda: optax.adamw(1e-3, weight_decay=10.0),
        lambda: optax.sgd(optax.linear_schedule(0.0, 1.0, 5)),
        lambda: optax.adafactor(1e-3),
        lambda: optax.chain(optax.add_noise(100.0, 0.55, jax.random.key(0)), optax.sgd(0.1)),
        lambda: optax.polyak_sgd(0.1),
        lambda: contrib.muon(1e-3),
        lambda: contrib.prodigy(),
        lambda: optax.MultiSteps(optax.adam(1e-3), 4).gradient_transformation(),
        lambda: optax.chain(optax.centralize(), optax.sgd(0.1), optax.keep_params_nonnegative()),
        lambda: optax.chain(optax.masked(optax.add_decayed_weights(0.1), heads), optax.sgd(0.1)),
        lambda: optax.chain(optax.sgd(0.1), optax.stateless(lambda u, p: jax.tree.map(jnp.multiply, u, ONES))),
        lambda: optax.set_to_zero(),
        parted,
    ],
)
def test_what_descends_is_taken(make):
    trace(make())


@pytest.mark.parametrize(
    "make",
    [
        masked,
        lambda: optax.chain(optax.clip_by_global_norm(1.0), masked()),
        lambda: optax.conditionally_mask(masked(), lambda count: count >= 0),
        lambda: optax.MultiSteps(masked(), 4).gradient_transformation(),
        lambda: optax.stateless(lambda u, p: jax.tree.map(jnp.multiply, u, ONES)),
        lambda: optax.scale_by_adam(),
        lambda: optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(optax.linear_schedule(0.0, 0.1, 5))),
    ],
)
def test_what_climbs_is_refused_by_the_names_of_its_parameters(make):
    with pytest.raises(
        ClimbError, match=r"gradient of \['f'\]\['bias'\], \['f'\]\['kernel'\].*`optax.partition`.*-rate"
    ):
        trace(make())


def test_a_transform_is_tried_once_for_its_shapes(monkeypatch):
    tried = []
    find = descent._tried
    monkeypatch.setattr(descent, "_tried", lambda tx, specs, extra: tried.append(specs) or find(tx, specs, extra))
    tx = optax.sgd(0.1)
    for width in (40, 50):
        trace(tx, {"f": {"kernel": jnp.zeros((30, width))}})
    assert len(tried) == 1
    assert [x.shape for x in jax.tree.leaves(tried)] == [(2, 2)]  # a large network costs no more
    trace(tx, {"f": {"bias": jnp.zeros(50)}})
    assert len(tried) == 2


@pytest.mark.parametrize(
    "wrap",
    [
        # The third goes through the first two.
        pytest.param(lambda model: lg.layerwise(model, 5), marks=pytest.mark.full),
        pytest.param(lambda model: lg.trials(model, 2), marks=pytest.mark.full),
        lambda model: lg.trials(lg.layerwise(model, 5), 2),
        lambda model: lg.freeze(model, 1),
    ],
)
def test_a_model_that_is_made_of_another_is_looked_into(wrap):
    with pytest.raises(ValueError, match=r"optimizer of block '\w+' cannot be used here: it hands on .*\['f'\]"):
        lg.sequential(wrap(own.model(tx=masked())))
    lg.sequential(wrap(own.model(tx=parted())))


@pytest.mark.parametrize("tx", [masked(), {"f": optax.scale_by_adam(), "head": optax.sgd(0.1)}])
def test_two_versions_are_looked_into(tx):
    spec = jax.ShapeDtypeStruct((own.BATCH, *own.SHAPE), jnp.float32)
    network = [lg.from_linen(own.Layer())] * 2
    with pytest.raises(ValueError, match=r"it hands on the gradient of \['f'\]"):
        lg.sequential(lg.double_buffered(lg.bp(network, spec, own.CLASSES, tx=tx), 2))


@pytest.mark.parametrize(
    "tx", [masked(), {"f+b": optax.sgd(0.1), "g+h": optax.masked(optax.sgd(0.1), lambda p: {"g": True, "h": False})}]
)
def test_multiplied_updates_are_looked_into(tx):
    spec = jax.ShapeDtypeStruct((own.BATCH, *own.SHAPE), jnp.float32)
    with pytest.raises(ValueError, match=r"it hands on the gradient of .*\['[fh]'\]"):
        lg.sequential(lg.al([lg.from_linen(own.Layer())] * 2, spec, own.CLASSES, tx=tx))
