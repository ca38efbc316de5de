"""What an engine refuses to begin with: states of another model, and keys that the model does not ask for."""

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
SGD = optax.sgd(0.1)


def model_of(widths=(5, 5), tx=SGD):
    return lg.early_exit(lg.mlp(widths), SPEC, 3, tx=tx)


def of_int(states):
    return jax.tree.map(lambda x: x.astype(jnp.int32), states)


@pytest.fixture(params=ENGINES, scope="module")
def engine(request):
    return ENGINES[request.param](model_of())


@pytest.mark.parametrize(
    ("states", "named"),
    [
        (lambda: lg.init(model_of((3, 3)), KEY), r"block 1 .*is float32\[3\], and float32\[5\] is expected"),
        (lambda: lg.init(model_of((5, 5, 5)), KEY), "are of 3 blocks, and the model of method 'early_exit' has 2"),
        (lambda: lg.init(model_of(tx=optax.adam(0.1)), KEY), r"have opt_state\S*count, int32\[\], which the model has"),
        (lambda: of_int(lg.init(model_of(), KEY)), "params.* of block 1 .*is int32.*cast the states first"),
        (lambda: jax.tree.map(lambda x: [x, x], lg.init(model_of(), KEY)), "have no params"),
    ],
    ids=["width", "blocks", "optimizer", "dtype", "structure"],
)
def test_states_of_another_model_are_refused(engine, states, named):
    with pytest.raises(ValueError, match=named):
        engine.load(states(), KEY)


def test_states_without_an_optimizers_are_refused():
    model = model_of(tx=optax.adam(0.1))
    with pytest.raises(ValueError, match=r"those of block 1 .* have no opt_state"):
        lg.spmd(model, stages=2).load(lg.init(model_of(), KEY), KEY)


def test_states_of_numpy_in_other_containers_are_the_models_own(engine):
    states = lg.init(model_of(), KEY)
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
def test_keys_of_another_kind_are_refused(engine, key, found):
    with pytest.raises(ValueError, match=found):
        lg.init(model_of(), key)
    with pytest.raises(ValueError, match=found):
        engine.load(lg.init(model_of(), KEY), key)


@pytest.mark.parametrize("key", [jax.random.PRNGKey(0), KEY, jax.random.split(KEY, 3)], ids=["raw", "one", "three"])
def test_trials_want_a_key_each(key):
    with pytest.raises(ValueError, match=r"wants 2 keys, one a trial; got .*: use lg.trial_keys\(seed, 2\)"):
        lg.init(lg.trials(model_of(), 2), key)


@pytest.mark.parametrize("name", ["spmd", "mpmd"])
def test_another_mesh_that_is_set_is_refused(name):
    model, mesh = model_of(), jax.make_mesh((2,), ("x",), devices=jax.devices()[:2])
    engine, states = ENGINES[name](model), lg.init(model, KEY)
    with jax.set_mesh(mesh), pytest.raises(ValueError, match=rf"{name} trains on .*, and jax.set_mesh has set another"):
        engine.load(states, KEY)
    state = engine.load(states, KEY)
    fed = lg.data.batches(np.zeros((1, 2, 4), np.float32), np.zeros((1, 2), np.int32))
    with jax.set_mesh(mesh), pytest.raises(ValueError, match="load and run outside of that context"):
        engine.run(state, fed)
    if engine.mesh is not None:
        with jax.set_mesh(engine.mesh):
            engine.run(engine.load(states, KEY), fed)[1].check()
