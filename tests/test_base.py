"""The protocol serves three kinds of method: local losses, errors from the output, and cotangents from above."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from localgrad.base import Backward, Batches, Block, BlockState, Forward, LocalBlock, Model
from localgrad.blocks import from_linen, mlp
from localgrad.methods import al, early_exit, trials
from localgrad.pipeline import make_plan, sequential
from tests.pipeline import toys
from tests.pipeline.toys import objective

BATCH, FEATURES, CLASSES = 8, 5, toys.CLASSES
KEY = jax.random.key(1)
States = tuple[BlockState, ...]


class Layer(nn.Module):
    """Dense -> batch norm -> tanh; without a bias, whose gradient would be the rounding errors that Adam magnifies."""

    features: int

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Dense(self.features, use_bias=False)(x)
        return jnp.tanh(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))


def data(batches: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batches, BATCH, FEATURES)), rng.integers(0, CLASSES, (batches, BATCH)).astype(np.int32)


def model_of(method: str, blocks: Sequence[LocalBlock]) -> Model:
    return toys.model_of(method, blocks, BATCH, FEATURES)


def assert_close(tree: Any, other: Any, atol: float = 1e-12) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), tree, other)


# --- signal = 'none' ----------------------------------------------------------------------------------------------


def test_local_losses(x64: None, as_batches: Callable[..., Batches], random_states: Callable[..., States]) -> None:
    """Associated Learning on the engine is each block's own gradient and its own optimizer, batch after batch."""
    tx = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1, momentum=0.9))  # a norm: of one block, not of all
    spec = jax.ShapeDtypeStruct((BATCH, FEATURES), jnp.float64)
    model = al([from_linen(Layer(6)), from_linen(Layer(4))], spec, CLASSES, tx=tx, target_width=4)
    start = random_states(model)
    xs, ys = data(4)
    engine = sequential(model)
    state, metrics = engine.run(engine.load(start, KEY), as_batches(xs, ys))

    @jax.jit
    def by_hand(states, x, y, k):
        message, new, losses = model.enter(x, y), [], []
        for i, (block, old) in enumerate(zip(model.blocks, states, strict=True)):
            key = jax.random.fold_in(jax.random.fold_in(KEY, k), i)
            passed = block.forward(old, message, key)
            assert passed.stash == () and passed.down is None and block.backward is None
            ((groups, one),) = block.tx.items()
            with jax.numpy_dtype_promotion("standard"):
                updates, opt_state = one.update(passed.grads, old.opt_state[groups], old.params)
            params = optax.apply_updates(old.params, updates)
            new.append(BlockState(params, passed.model_state, {groups: opt_state}))
            losses.append(passed.metrics["loss"])
            message = passed.message
        return tuple(new), losses

    expected = start
    for k in range(4):
        expected, losses = by_hand(expected, xs[k], ys[k], k)
        assert_close([values["loss"][k] for values in metrics.values], losses)
    assert_close(engine.states(state), expected)
    assert np.abs(np.asarray(state.blocks[0].params["f"]["Dense_0"]["kernel"])).max() > 0


# --- signal = 'above' ---------------------------------------------------------------------------------------------


def backprop(block: Block, tx: optax.GradientTransformation, spec: jax.ShapeDtypeStruct, last: bool) -> LocalBlock:
    """A link of a chain; the last one holds the cross-entropy.  `spec` is that of its input."""

    def init(key, message):
        params, model_state = block.init(key, message["x"])
        return BlockState({"f": params}, model_state, {"f": tx.init({"f": params})})

    def value_and_vjp(params, model_state, x, y, key):
        def run(params, x):
            out, new = block.apply(params["f"], model_state, x, key=key, train=True)
            return (objective(out, y) if last else out), (out, new)

        return jax.vjp(run, params, x, has_aux=True)

    message = {"x": spec, "y": jax.ShapeDtypeStruct(spec.shape[:1], jnp.int32)}
    state = jax.eval_shape(lambda key: init(key, message), jax.random.key(0))
    # A vjp function is no array, but its leaves are; how to put them together again is known without any number.
    abstract = jax.eval_shape(
        lambda *args: value_and_vjp(*args)[1], state.params, state.model_state, spec, message["y"], jax.random.key(0)
    )
    treedef = jax.tree.structure(abstract)

    def forward(state, message, key):
        x, y = message["x"], message["y"]
        value, vjp, (out, model_state) = value_and_vjp(state.params, state.model_state, x, y, key)
        stash = {"residuals": jax.tree.leaves(vjp), "loss": value if last else jnp.zeros((), x.dtype)}
        return Forward(jax.lax.stop_gradient({"x": out, "y": y}), model_state, stash=stash)

    def backward(state, stash, signal):
        vjp = jax.tree.unflatten(treedef, stash["residuals"])
        params, x = vjp(jnp.ones((), spec.dtype) if last else signal["cotangent"])
        loss = stash["loss"] if last else signal["loss"]
        return Backward(params, {"loss": loss}, {"cotangent": x, "loss": loss})

    return LocalBlock(block.name, "above", init, forward, {"f": tx}, backward)


def test_cotangents_from_above(
    x64: None, as_batches: Callable[..., Batches], random_states: Callable[..., States]
) -> None:
    """A chain of three blocks is backpropagation through the whole network."""
    network = [from_linen(Layer(6)), from_linen(Layer(4)), from_linen(nn.Dense(CLASSES))]
    tx = optax.chain(optax.trace(0.9), optax.adamw(1e-2))
    widths = (FEATURES, 6, 4)
    model = model_of(
        "bp",
        [
            backprop(block, tx, jax.ShapeDtypeStruct((BATCH, width), jnp.float64), last=i == 2)
            for i, (block, width) in enumerate(zip(network, widths, strict=True))
        ],
    )
    start = random_states(model)
    xs, ys = data(5)
    engine = sequential(model)
    state, metrics = engine.run(engine.load(start, KEY), as_batches(xs, ys))

    def loss(params, model_states, x, y):
        new = []
        for block, param, model_state in zip(network, params, model_states, strict=True):
            x, model_state = block.apply(param["f"], model_state, x, key=None, train=True)
            new.append(model_state)
        return objective(x, y), tuple(new)

    @jax.jit
    def by_hand(params, model_states, opt_state, x, y):
        (value, model_states), grads = jax.value_and_grad(loss, has_aux=True)(params, model_states, x, y)
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), model_states, opt_state, value

    params, model_states = tuple(s.params for s in start), tuple(s.model_state for s in start)
    opt_state = tx.init(params)
    for k in range(5):
        params, model_states, opt_state, value = by_hand(params, model_states, opt_state, xs[k], ys[k])
        assert_close([values["loss"][k] for values in metrics.values], [value] * 3)
    trained = engine.states(state)
    assert_close(tuple(s.params for s in trained), params)
    assert_close(tuple(s.model_state for s in trained), model_states)
    assert make_plan(model).cuts == (0, 3)


# --- signal = 'top' -----------------------------------------------------------------------------------------------


def feedback(block: Block, tx: optax.GradientTransformation, spec: jax.ShapeDtypeStruct, last: bool) -> LocalBlock:
    """Direct feedback alignment: the error at the output, through a fixed matrix B, is the gradient at the block's."""
    # B learns nothing, but it is a parameter: a group of its own.
    link = backprop(block, optax.identity(), spec, last)

    def f_only(state):
        return BlockState({"f": state.params["f"]}, state.model_state, {})

    def init(key, message):
        state = link.init(key, message)
        features = jax.eval_shape(link.forward, state, message, key).message["x"].shape[1]
        shape = (0, 0) if last else (CLASSES, features)
        params = {**state.params, "feedback": jax.random.normal(jax.random.fold_in(key, 1), shape, spec.dtype)}
        return BlockState(params, state.model_state, {"f": tx.init({"f": params["f"]})})

    def forward(state, message, key):
        passed = link.forward(f_only(state), message, key)
        if not last:
            return passed
        made = link.backward(f_only(state), passed.stash, None)
        error = jax.grad(objective)(passed.message["x"], passed.message["y"])
        down = {"error": error, "loss": passed.stash["loss"]}
        return passed._replace(grads=made.grads, metrics=made.metrics, stash=(), down=down)

    def backward(state, stash, signal):
        # the error meets the B of today, but the residuals of the parameters that ran forward
        above = {"cotangent": signal["error"] @ state.params["feedback"], "loss": signal["loss"]}
        return link.backward(f_only(state), stash, above)._replace(down=None)

    if last:
        return LocalBlock(block.name, "none", init, forward, {"f": tx})
    return LocalBlock(block.name, "top", init, forward, {"f": tx}, backward)


def dfa(lower: Block, tx: optax.GradientTransformation, width: int) -> Model:
    specs = [jax.ShapeDtypeStruct((BATCH, features), jnp.float64) for features in (FEATURES, width)]
    upper = from_linen(nn.Dense(CLASSES))
    return model_of("dfa", [feedback(lower, tx, specs[0], False), feedback(upper, tx, specs[1], True)])


def test_delayed_errors(x64: None, random_states: Callable[..., States]) -> None:
    """An error two batches late meets the residuals of then, and statistics have advanced once a batch."""
    delay, batches, rate, width = 2, 6, 0.1, 4
    lower_f = from_linen(Layer(width))
    model = dfa(lower_f, optax.sgd(rate), width)
    start = random_states(model)
    xs, ys = data(batches)

    @jax.jit
    def tick(lower, upper, x, y, late):
        if late is not None:  # the error that has arrived is applied first, to a state that has moved on since
            lower = learn(model.blocks[0], lower, model.blocks[0].backward(lower, *late).grads)
        passed = model.blocks[0].forward(lower, model.enter(x, y), KEY)
        lower = lower._replace(model_state=passed.model_state)
        top = model.blocks[1].forward(upper, passed.message, KEY)
        return lower, learn(model.blocks[1], upper, top.grads), (passed.stash, top.down)

    lower, upper = start
    waiting: list[Any] = []
    for k in range(batches):
        late = waiting.pop(0) if len(waiting) == delay else None
        lower, upper, now = tick(lower, upper, xs[k], ys[k], late)
        waiting.append(now)

    # The same by hand: old parameters are kept instead of residuals, and statistics are written out.
    def output(params, x):
        return lower_f.apply(params, start[0].model_state, x, key=None, train=True)[0]

    @jax.jit
    def error(w, top, x, y):
        hidden = output(w, x)

        def scores(top):
            return hidden @ top["kernel"] + top["bias"].reshape(1, -1)

        e = (jax.nn.softmax(scores(top)) - jax.nn.one_hot(y, CLASSES, dtype=hidden.dtype)) / BATCH
        return e, jax.vjp(scores, top)[1](e)[0]

    late_grads = jax.jit(lambda old, x, e, b: jax.vjp(lambda p: output(p, x), old)[1](e @ b)[0])

    def descend(tree, step):
        return jax.tree.map(lambda p, g: p - rate * g, tree, step)

    w, top, b = start[0].params["f"], start[1].params["f"], start[0].params["feedback"]
    kept: list[Any] = []
    mean, var = (np.asarray(start[0].model_state["batch_stats"]["BatchNorm_0"][name]) for name in ("mean", "var"))
    for k in range(batches):
        if k >= delay:
            w = descend(w, late_grads(*kept[k - delay], b))
        hidden = xs[k] @ np.asarray(w["Dense_0"]["kernel"])
        mean, var = 0.9 * mean + 0.1 * hidden.mean(0), 0.9 * var + 0.1 * hidden.var(0)
        e, top_grads = error(w, top, xs[k], ys[k])
        kept.append((w, xs[k], e))
        top = descend(top, top_grads)
    assert_close((lower.params["f"], upper.params["f"]), (w, top))
    assert_close(lower.model_state["batch_stats"]["BatchNorm_0"], {"mean": mean, "var": var})
    assert_close(lower.params["feedback"], b, 0)
    assert np.abs(w["Dense_0"]["kernel"] - start[0].params["f"]["Dense_0"]["kernel"]).max() > 1e-3


def learn(block: LocalBlock, state: BlockState, grads: Any) -> BlockState:
    """An update by itself, perhaps late: statistics stay as they are."""
    f = {"f": state.params["f"]}
    updates, opt_state = block.tx["f"].update(grads, state.opt_state["f"], f)
    params = {**state.params, **optax.apply_updates(f, updates)}
    return state._replace(params=params, opt_state={"f": opt_state})


def test_errors_without_delay(
    x64: None, as_batches: Callable[..., Batches], random_states: Callable[..., States]
) -> None:
    """On a two-layer linear net with B = W_2^T, direct feedback alignment is backpropagation."""
    linear = from_linen(nn.Dense(4))
    model = dfa(linear, optax.sgd(0.1), 4)
    engine = sequential(model)
    xs, ys = data(3)
    states = random_states(model)
    bp = tuple(state.params["f"] for state in states)

    def loss(params, x, y):
        for param in params:
            x = x @ param["kernel"] + param["bias"].reshape(1, -1)
        return objective(x, y)

    gradient = jax.jit(jax.grad(loss))
    for k in range(3):
        tied = {**states[0].params, "feedback": states[1].params["f"]["kernel"].T}
        state, _ = engine.run(
            engine.load((states[0]._replace(params=tied), states[1]), KEY), as_batches(xs[k : k + 1], ys[k : k + 1])
        )
        states = engine.states(state)
        bp = jax.tree.map(lambda p, g: p - 0.1 * g, bp, gradient(bp, xs[k], ys[k]))
    assert_close(tuple(state.params["f"] for state in states), bp)


def test_errors_with_a_matrix_of_its_own_are_not_backprop(
    x64: None, as_batches: Callable[..., Batches], random_states: Callable[..., States]
) -> None:
    """The feedback is really used: without the tie only the last block follows backpropagation."""
    model = dfa(from_linen(nn.Dense(4)), optax.sgd(0.1), 4)
    engine = sequential(model)
    start = random_states(model)
    tied = (start[0]._replace(params={**start[0].params, "feedback": start[1].params["f"]["kernel"].T}), start[1])
    xs, ys = data(1)
    one, two = (engine.states(engine.run(engine.load(states, KEY), as_batches(xs, ys))[0]) for states in (start, tied))
    assert_close(one[1].params["f"], two[1].params["f"])
    assert np.abs(np.asarray(one[0].params["f"]["kernel"] - two[0].params["f"]["kernel"])).max() > 1e-3


# --- the tuples ---------------------------------------------------------------------------------------------------


def test_batch_axis_and_size() -> None:
    spec = jax.ShapeDtypeStruct((BATCH, FEATURES), jnp.float32)
    model = al(mlp((4,)), spec, CLASSES, tx=optax.sgd(0.1), target_width=4)
    assert (model.batch_axis, model.batch_size, model.trials) == (0, BATCH, None)
    three = trials(model, 3)
    assert (three.batch_axis, three.batch_size, three.trials) == (1, BATCH, 3)
    assert three.x_spec.shape == (3, BATCH, FEATURES) and three.y_spec.shape == (3, BATCH)


def test_stage_costs() -> None:
    spec = jax.ShapeDtypeStruct((BATCH, FEATURES), jnp.float32)
    plan = make_plan(early_exit(mlp((4, 8, 4)), spec, CLASSES, tx=optax.sgd(0.1)), 2, cuts=(0, 1, 3))
    assert plan.stage_costs == pytest.approx((plan.costs[0], plan.costs[1] + plan.costs[2]))
