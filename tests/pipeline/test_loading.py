"""What an engine refuses to begin with: states of another model, and keys that the model does not ask for."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import localgrad as lg
from localgrad.pipeline import replayed
from localgrad.pipeline.packing import to_data

ENGINES = {
    "sequential": lg.sequential,
    "spmd": lambda model: lg.spmd(model, stages=2),
    "mpmd": lambda model: lg.mpmd(model, stages=2),
    "replayed": lambda model: replayed(model, 1),
}
SPEC = jax.ShapeDtypeStruct((2, 4), jnp.float32)
KEY = jax.random.key(0)
SGD, ADAM = optax.sgd(0.1), optax.adam(0.1)


@cache
def model_of(widths=(5, 5), tx=SGD):
    return lg.early_exit(lg.mlp(widths), SPEC, 3, tx=tx)


def of_int(states):
    return jax.tree.map(lambda x: x.astype(jnp.int32), states)


@pytest.fixture(params=ENGINES, scope="module")
def engine(request):
    return ENGINES[request.param](model_of())


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda states: states(model_of((3, 3))), r"block 1 .*is float32\[3\], and float32\[5\] is expected"),
        (lambda states: states(model_of((5, 5, 5))), "are of 3 blocks, and the model of method 'early_exit' has 2"),
        (lambda states: states(model_of(tx=ADAM)), r"have opt_state\S*count, int32\[\], which the model has"),
        (lambda states: of_int(states(model_of())), "params.* of block 1 .*is int32.*cast the states first"),
        (lambda states: jax.tree.map(lambda x: [x, x], states(model_of())), "have no params"),
    ],
    ids=["width", "blocks", "optimizer", "dtype", "structure"],
)
def test_states_of_another_model_are_refused(engine, make, named, random_states):
    with pytest.raises(ValueError, match=named):
        engine.load(make(random_states), KEY)


def test_states_without_an_optimizers_are_refused(random_states):
    model = model_of(tx=ADAM)
    with pytest.raises(ValueError, match=r"those of block 1 .* have no opt_state"):
        lg.spmd(model, stages=2).load(random_states(model_of()), KEY)


def test_states_of_numpy_in_other_containers_are_the_models_own(engine, random_states):
    states = random_states(model_of())
    same = engine.states(engine.load([jax.tree.map(np.asarray, state) for state in states], KEY))
    assert jax.tree.structure(same) == jax.tree.structure(states)
    jax.tree.map(np.testing.assert_array_equal, same, states)


def test_states_of_trials_with_keys_of_an_optimizer_are_loaded():
    tx = optax.chain(optax.add_noise(0.1, 0.5, 3), optax.sgd(0.1))
    model = lg.trials(model_of(tx=tx), 2)
    states = lg.init(model, lg.trial_keys(0, 2))
    for name in ("sequential", "spmd", "mpmd"):
        engine = ENGINES[name](model)
        same = engine.states(engine.load(states, lg.trial_keys(1, 2)))
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(to_data(a), to_data(b)), same, states)


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (jax.random.PRNGKey(0), r"wants one key; got no typed key \(uint32\[2\]\): use jax.random.key\(seed\)"),
        (jax.random.split(KEY), r"wants one key; got keys of shape \[2\]"),
        (3, r"wants one key; got no typed key \(int32\[\]\)"),
    ],
    ids=["raw", "several", "seed"],
)
def test_keys_of_another_kind_are_refused(engine, key, found, random_states):
    with pytest.raises(ValueError, match=found):
        lg.init(model_of(), key)
    with pytest.raises(ValueError, match=found):
        engine.load(random_states(model_of()), key)


@pytest.mark.parametrize("key", [jax.random.PRNGKey(0), KEY, jax.random.split(KEY, 3)], ids=["raw", "one", "three"])
def test_trials_want_a_key_each(key):
    with pytest.raises(ValueError, match=r"wants 2 keys, one a trial; got .*: use lg.trial_keys\(seed, 2\)"):
        lg.init(lg.trials(model_of(), 2), key)


@pytest.mark.parametrize("name", ["spmd", "mpmd"])
def test_another_mesh_that_is_set_is_refused(name, random_states):
    model, mesh = model_of(), jax.make_mesh((2,), ("x",), devices=jax.devices()[:2])
    engine, states = ENGINES[name](model), random_states(model)
    with jax.set_mesh(mesh), pytest.raises(ValueError, match=rf"{name} trains on .*, and jax.set_mesh has set another"):
        engine.load(states, KEY)
    state = engine.load(states, KEY)
    fed = lg.data.batches(np.zeros((1, 2, 4), np.float32), np.zeros((1, 2), np.int32))
    with jax.set_mesh(mesh), pytest.raises(ValueError, match="load and run outside of that context"):
        engine.run(state, fed)
    if engine.mesh is not None:
        with jax.set_mesh(engine.mesh):
            engine.run(engine.load(states, KEY), fed)[1].check()
