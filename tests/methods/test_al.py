"""Associated Learning against its equations, written out again here."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.base import Batches, BlockState, Forward, Model
from localgrad.blocks import mlp
from localgrad.methods import al
from localgrad.methods.profiles import DEFAULT_PROFILE, PROFILES
from localgrad.pipeline import init, sequential

BATCH, FEATURES, CLASSES, WIDTH = 6, 5, 3, 4
KEY = jax.random.key(0)
States = tuple[BlockState, ...]
RandomStates = Callable[..., States]

every_profile = pytest.mark.parametrize("profile", ["neco", "iclr", "iclr_head"])


def build(profile: str, depth: int = 3, tx: Any = None, dtype: Any = None) -> Model:
    spec = jax.ShapeDtypeStruct((BATCH, FEATURES), dtype or jnp.float64)
    widths = (7, 6, 5)[:depth]
    return al(mlp(widths), spec, CLASSES, tx=tx or optax.sgd(0.1), profile=profile, target_width=WIDTH)


@cache
def network(profile: str, depth: int = 3) -> Model:
    return build(profile, depth)


@pytest.fixture(scope="module")
def states_of(random_states: RandomStates) -> Callable[..., States]:
    """`(profile, depth=3) -> states` of that network, made once for all tests; in float64, as all that use it are."""
    return cache(lambda profile, depth=3: random_states(network(profile, depth)))


def examples() -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(BATCH, FEATURES))), jnp.asarray([0, 1, 2, 0, 1, 1], jnp.int32)


def passes(model: Model, states: States, x: jax.Array, y: jax.Array) -> list[Forward]:
    """What the pass of each block gives."""
    found, message = [], model.enter(x, y)
    for block, state in zip(model.blocks, states, strict=True):
        found.append(block.forward(state, message, KEY))
        message = found[-1].message
    return found


# --- the equations ------------------------------------------------------------------------------------------------


def dense(params: Any, x: Any, layer: int = 0) -> Any:
    kernel, bias = params[f"Dense_{layer}"]["kernel"], params[f"Dense_{layer}"]["bias"]
    return x @ kernel + jnp.broadcast_to(bias, (x.shape[0], bias.shape[0]))


def sigmoid(x: Any) -> Any:
    return 1 / (1 + jnp.exp(-x))


def elu(x: Any) -> Any:
    return jnp.where(x > 0, x, jnp.expm1(jnp.minimum(x, 0)))


def f(params: Any, s: Any) -> Any:
    return elu(dense(params, s))


def b(profile: str, params: Any, s: Any) -> Any:
    if profile == "neco":
        return sigmoid(dense(params, sigmoid(dense(params, s)), 1))
    return dense(params, s) if profile == "iclr" else jnp.tanh(dense(params, s))


def g(profile: str, params: Any, t: Any) -> Any:
    return sigmoid(dense(params, t)) if profile == "neco" else jnp.tanh(dense(params, t))


def h(profile: str, params: Any, t: Any, first: bool) -> Any:
    out = dense(params, t)
    if profile == "neco":
        return sigmoid(out)
    return jnp.tanh(out) if profile == "iclr" or first else out


def association(profile: str, params: Any, s: Any, t: Any) -> Any:
    difference = b(profile, params["b"], f(params["f"], s)) - g(profile, params["g"], t)
    return jnp.sum(difference**2) / difference.size


def autoencoder(profile: str, params: Any, t: Any, first: bool) -> Any:
    decoded = h(profile, params["h"], g(profile, params["g"], t), first)
    if profile == "iclr_head" and first:
        return -jnp.sum(t * (decoded - jnp.log(jnp.sum(jnp.exp(decoded), 1, keepdims=True)))) / t.shape[0]
    return jnp.sum((decoded - t) ** 2) / t.size


@pytest.mark.parametrize(
    ("profile", "depth"),
    [
        ("neco", 3),
        ("iclr", 3),
        ("iclr_head", 3),
        ("iclr_head", 1),  # the block whose decoder is another one, alone
        pytest.param("neco", 1, marks=pytest.mark.full),
        pytest.param("iclr", 1, marks=pytest.mark.full),
    ],
)
def test_losses_and_gradients(profile: str, depth: int, x64: None, states_of: Callable[..., States]) -> None:
    model = network(profile, depth)
    states = states_of(profile, depth)
    x, y = examples()

    @jax.jit
    def ours(states):
        return [(passed.grads, passed.metrics) for passed in passes(model, states, x, y)]

    @jax.jit
    def theirs(states):
        found, s, t = [], x, jnp.eye(CLASSES)[y]
        for i, state in enumerate(states):
            a, of_a = jax.value_and_grad(lambda p, s=s, t=t: association(profile, p, s, t))(state.params)
            e, of_e = jax.value_and_grad(lambda p, t=t, i=i: autoencoder(profile, p, t, i == 0))(state.params)
            # f and b learn from the association, h from the autoencoder, g from the latter or, in `iclr`, from both
            both = jax.tree.map(jnp.add, of_a["g"], of_e["g"])
            grads = {"f": of_a["f"], "b": of_a["b"], "g": both if profile == "iclr" else of_e["g"], "h": of_e["h"]}
            found.append((grads, {"loss": a + e, "association": a, "autoencoder": e}))
            s, t = f(state.params["f"], s), g(profile, state.params["g"], t)
        return found

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), ours(states), theirs(states))
    for grads, _ in ours(states):
        assert all(np.abs(x).max() > 1e-6 for x in jax.tree.leaves(grads))


@every_profile
def test_predict_at_every_exit(profile: str, x64: None, states_of: Callable[..., States]) -> None:
    model = network(profile)
    states = states_of(profile)
    params = [state.params for state in states]
    x, _ = examples()
    assert model.exits == (1, 2, 3)
    found = []
    *scores, default = jax.jit(lambda states: [model.predict(states, x, exit) for exit in (1, 2, 3, None)])(states)
    for exit in (1, 2, 3):
        s = x
        for i in range(exit):
            s = f(params[i]["f"], s)
        t = b(profile, params[exit - 1]["b"], s)
        for i in reversed(range(exit)):
            t = h(profile, params[i]["h"], t, i == 0)
        found.append(t)
        assert scores[exit - 1].shape == (BATCH, CLASSES)
        np.testing.assert_allclose(scores[exit - 1], t, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(default, scores[-1])
    assert np.abs(found[0] - found[2]).max() > 1e-3


@pytest.mark.parametrize("exit", [0, 4, -1])
def test_an_exit_out_of_range_is_refused(exit: int, x64: None, states_of: Callable[..., States]) -> None:
    model = network("iclr")
    with pytest.raises(ValueError, match=f"exit {exit} does not exist: this model has exits 1, 2, 3"):
        model.predict(states_of("iclr"), examples()[0], exit)


# --- who learns from what -----------------------------------------------------------------------------------------


@every_profile
def test_the_association_reaches_g_in_iclr_only(profile: str, x64: None, states_of: Callable[..., States]) -> None:
    model = network(profile)
    states = states_of(profile)
    x, y = examples()

    @jax.jit
    def gradients(states):
        def association(params, block, state, message):
            passed = block.forward(state._replace(params=params), message, KEY)
            return passed.metrics["association"], passed.message

        found, message = [], model.enter(x, y)
        for block, state in zip(model.blocks, states, strict=True):
            grads, message = jax.grad(association, has_aux=True)(state.params, block, state, message)
            found.append(grads)
        return found

    for grads in gradients(states):
        largest = {group: max(np.abs(x).max() for x in jax.tree.leaves(grads[group])) for group in "fbgh"}
        assert largest["f"] > 1e-6 and largest["b"] > 1e-6 and largest["h"] == 0
        assert (largest["g"] > 1e-6) if profile == "iclr" else (largest["g"] == 0)


def test_a_block_above_the_first_never_sees_the_label(x64: None, states_of: Callable[..., States]) -> None:
    model = network("iclr_head", 2)
    states = states_of("iclr_head", 2)
    x, y = examples()
    permuted = jnp.roll(y, 1)
    assert np.asarray(permuted != y).any()

    forward = [jax.jit(block.forward) for block in model.blocks]
    step = lambda i, message: forward[i](states[i], message, KEY)

    below, other_below = step(0, model.enter(x, y)), step(0, model.enter(x, permuted))
    one, two = below.message, other_below.message
    assert set(one) == {"s", "t"} and one["s"].shape == (BATCH, 7) and one["t"].shape == (BATCH, WIDTH)
    assert float(below.metrics["loss"]) != float(other_below.metrics["loss"])
    # The labels differ, and yet the input side of the message does not; with t held, nothing of the block above does.
    np.testing.assert_array_equal(one["s"], two["s"])
    held = step(1, {**two, "t": one["t"]})
    jax.tree.map(np.testing.assert_array_equal, held, step(1, one))
    assert float(step(1, two).metrics["loss"]) != float(held.metrics["loss"])


@every_profile
def test_messages_are_detached(profile: str, x64: None, states_of: Callable[..., States]) -> None:
    model = network(profile, 1)
    (state,) = states_of(profile, 1)
    message = model.enter(*examples())

    def total(params):
        return sum(
            jnp.sum(x) for x in model.blocks[0].forward(state._replace(params=params), message, KEY).message.values()
        )

    value, grads = jax.jit(jax.value_and_grad(total))(state.params)
    assert value != 0 and not any(np.asarray(x).any() for x in jax.tree.leaves(grads))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_effective_groups(depth: int, x64: None, states_of: Callable[..., States]) -> None:
    """Prediction at the last exit depends on exactly the groups that are called effective."""
    model = network("iclr", depth)
    states = states_of("iclr", depth)
    x, _ = examples()

    def total(params):
        return jnp.sum(model.predict(tuple(s._replace(params=p) for s, p in zip(states, params, strict=True)), x))

    grads = jax.jit(jax.grad(total))(tuple(state.params for state in states))
    used = [
        {group for group in "fbgh" if any(np.asarray(x).any() for x in jax.tree.leaves(one[group]))} for one in grads
    ]
    assert used == [set(groups) for groups in model.effective]
    assert used[-1] == set("fbh") and all(groups == set("fh") for groups in used[:-1])


# --- optimizers and profiles --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tx", [optax.adam(1e-2), {"f+b": optax.adam(1e-2), "g+h": optax.adam(1e-2)}], ids=["one", "by group"]
)
def test_two_adams_of_neco(
    tx: optax.GradientTransformation,
    x64: None,
    random_states: RandomStates,
    states_of: Callable[..., States],
    as_batches: Callable[..., Batches],
) -> None:
    """Whatever the transform, g and h learn at twice its rate."""
    rate = 1e-2
    assert PROFILES["neco"].target_rate == 2 and PROFILES["iclr"].target_rate == PROFILES["iclr_head"].target_rate == 1
    model = build("neco", 1, tx)
    start = random_states(model)
    x, y = examples()
    engine = sequential(model)
    state, _ = engine.run(engine.load(start, KEY), as_batches(np.stack([x, x]), np.stack([y, y])))
    (trained,) = engine.states(state)
    params = after_two_adams(states_of, rate)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), trained.params, params)


@cache
def after_two_adams(states_of: Callable[..., States], rate: float) -> Any:
    """The parameters of one block after two steps on the same batch, written out."""
    (state,), (x, y) = states_of("neco", 1), examples()
    model = network("neco", 1)

    @jax.jit
    def adam(params, moments, k):
        grads = model.blocks[0].forward(state._replace(params=params), model.enter(x, y), KEY).grads
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], grads)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, moments[1], grads)
        rates = {"f": rate, "b": rate, "g": 2 * rate, "h": 2 * rate}
        step = {
            group: jax.tree.map(
                lambda m, v, group=group: rates[group] * (m / (1 - 0.9**k)) / (jnp.sqrt(v / (1 - 0.999**k)) + 1e-8),
                m[group],
                v[group],
            )
            for group in "fbgh"
        }
        return jax.tree.map(jnp.subtract, params, step), (m, v)

    params = state.params
    moments = (jax.tree.map(jnp.zeros_like, params),) * 2
    for k in (1.0, 2.0):
        params, moments = adam(params, moments, k)
    return params


def test_a_rate_of_the_users_own_replaces_the_profiles(x64: None, random_states: RandomStates) -> None:
    spec = jax.ShapeDtypeStruct((BATCH, FEATURES), jnp.float64)
    updates = []
    for rate in (None, 1.0, 0.5):
        model = al(mlp((7,)), spec, CLASSES, tx=optax.sgd(1.0), profile="neco", target_width=WIDTH, target_rate=rate)
        params = jax.tree.map(jnp.ones_like, random_states(model)[0].params)
        (tx,) = model.blocks[0].tx.values()
        updates.append(tx.update(params, tx.init(params), params)[0])
    for found, factor in zip(updates, (2.0, 1.0, 0.5), strict=True):
        assert {float(x.max()) for x in jax.tree.leaves([found["g"], found["h"]])} == {-factor}
        assert {float(x.max()) for x in jax.tree.leaves([found["f"], found["b"]])} == {-1.0}


def test_bridges() -> None:
    def widths(**options: Any) -> list[int]:
        spec = jax.ShapeDtypeStruct((BATCH, FEATURES), jnp.float32)
        model = al(mlp((7,)), spec, CLASSES, tx=optax.sgd(0.1), target_width=WIDTH, **options)
        message = jax.eval_shape(model.enter, model.x_spec, model.y_spec)
        bridge = jax.eval_shape(lambda key: model.blocks[0].init(key, message), KEY).params["b"]
        return [bridge[f"Dense_{i}"]["kernel"].shape[1] for i in range(len(bridge))]

    assert widths(profile="neco") == [5 * WIDTH, WIDTH]
    assert widths(profile="iclr") == widths(profile="iclr_head") == [WIDTH]
    assert widths(profile="neco", bridge=()) == [WIDTH]
    assert widths(bridge=(2, 3)) == [2 * WIDTH, 3 * WIDTH, WIDTH]


@pytest.mark.parametrize(
    ("options", "variance"),
    [
        ({"profile": "neco"}, 2.0),
        ({"profile": "iclr"}, 1.0),
        pytest.param({"profile": "iclr_head"}, 1.0, marks=pytest.mark.full),  # as those of `iclr`
        ({"profile": "iclr_head", "kernel_init": "he"}, 2.0),
        pytest.param({"profile": "neco", "kernel_init": "lecun"}, 1.0, marks=pytest.mark.full),  # the same choice
    ],
    ids=str,
)
def test_kernels_are_drawn_as_the_profile_says_or_as_one_asks(options: dict[str, Any], variance: float) -> None:
    """NECO draws b, g and h by He's normal, of variance 2 / fan-in; f is the network's own affair."""
    width, features, depth = 150, 200, 2
    spec = jax.ShapeDtypeStruct((BATCH, features), jnp.float32)
    model = al(mlp((features,) * depth), spec, CLASSES, tx=optax.sgd(0.1), target_width=width, **options)
    for i, state in enumerate(init(model, KEY)):
        for group in "bgh":
            layers = state.params[group].values()
            assert all(not layer["bias"].any() for layer in layers)
            kernels = [layer["kernel"] for layer in layers if layer["kernel"].size > 10_000]
            assert kernels or (i == 0 and group in "gh")  # those of the classes are small
            for kernel in kernels:
                assert float(jnp.mean(kernel**2)) * kernel.shape[0] == pytest.approx(variance, rel=0.05)


def test_a_width_for_each_block(x64: None, random_states: RandomStates) -> None:
    """As NECO's convolutional network has them; the same for all is one number."""
    spec = jax.ShapeDtypeStruct((BATCH, FEATURES), jnp.float64)
    make = lambda width, *widths: al(mlp(widths), spec, CLASSES, tx=optax.sgd(0.1), target_width=width, bridge=())
    model = make((4, 9), 7, 6)
    states = random_states(model)
    shapes = [[state.params[group]["Dense_0"]["kernel"].shape for group in "gh"] for state in states]
    assert shapes == [[(CLASSES, 4), (4, CLASSES)], [(4, 9), (9, 4)]]
    assert jax.eval_shape(model.predict, states, examples()[0]).shape == (BATCH, CLASSES)
    for ours, theirs in zip(*(map(jax.tree.leaves, init(make(width, 7), KEY)) for width in (4, (4,))), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_default_profile() -> None:
    assert DEFAULT_PROFILE == "neco"
    assert set(PROFILES) == {"neco", "iclr", "iclr_head"}


def test_the_message_has_the_dtype_of_the_input() -> None:
    model = build("iclr", dtype=jnp.float32)
    message = model.enter(jnp.ones((BATCH, FEATURES), jnp.float32), examples()[1])
    assert message["s"].dtype == message["t"].dtype == jnp.float32
    np.testing.assert_array_equal(message["t"], np.eye(CLASSES)[[0, 1, 2, 0, 1, 1]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "icml"}, "unknown profile 'icml' of method 'al'; there are neco, iclr, iclr_head"),
        ({"network": []}, "needs a network of at least one block; got none"),
        ({"classes": 1}, "classes must be at least 2; got 1"),
        ({"target_width": 0}, "target_width must be at least 1; got 0"),
        ({"target_width": (4, 0)}, r"target_width must be at least 1; got \(4, 0\)"),
        ({"target_width": (4, 5)}, r"target_width is one number, or one a block, of 1; got \(4, 5\)"),
        ({"target_rate": 0.0}, "target_rate must be positive and finite; got 0.0"),
        ({"kernel_init": "xavier"}, "unknown kernel_init 'xavier' of method 'al'; there are he, lecun"),
        ({"target_rate": float("nan")}, "target_rate must be positive and finite; got nan"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    spec = jax.ShapeDtypeStruct((BATCH, FEATURES), jnp.float32)
    good = {"network": mlp((4,)), "x_spec": spec, "classes": CLASSES, "tx": optax.sgd(0.1), "target_width": WIDTH}
    with pytest.raises(ValueError, match=message):
        al(**{**good, **options})
