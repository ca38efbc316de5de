"""The protocol serves three kinds of method: local losses, errors from the output, and cotangents from above."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from localgrad.base import Batches, Block, BlockState, LocalBlock, Model
from localgrad.blocks import from_linen, mlp
from localgrad.losses import cross_entropy
from localgrad.methods import al, trials
from localgrad.pipeline import init, make_plan, sequential

BATCH, FEATURES, CLASSES = 8, 5, 3
KEY = jax.random.key(1)


class Layer(nn.Module):
    """Dense -> batch norm -> tanh."""

    features: int

    @nn.compact
    def __call__(self, x, train: bool):
        return jnp.tanh(nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Dense(self.features)(x)))


def data(batches: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batches, BATCH, FEATURES)), rng.integers(0, CLASSES, (batches, BATCH)).astype(np.int32)


def model_of(method: str, blocks: Sequence[LocalBlock]) -> Model:
    """A model whose message is {x, y}."""
    return Model(
        method=method,
        blocks=tuple(blocks),
        x_spec=jax.ShapeDtypeStruct((BATCH, FEATURES), jnp.float64),
        y_spec=jax.ShapeDtypeStruct((BATCH,), jnp.int32),
        classes=CLASSES,
        enter=lambda x, y: {"x": x, "y": y},
        predict=lambda states, x, exit=None: x,
        exits=(len(blocks),),
        effective=(frozenset("f"),) * len(blocks),
    )


def objective(scores: jax.Array, y: jax.Array) -> jax.Array:
    return cross_entropy(scores, jax.nn.one_hot(y, CLASSES, dtype=scores.dtype))


def assert_close(tree: Any, other: Any, atol: float = 1e-12) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), tree, other)


# --- signal = 'none' ----------------------------------------------------------------------------------------------


def test_local_losses(x64: None, as_batches: Callable[..., Batches]) -> None:
    """Associated Learning on the engine is each block's own gradient and its own optimizer, batch after batch."""
    tx = optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(1e-2))
    spec = jax.ShapeDtypeStruct((BATCH, FEATURES), jnp.float64)
    model = al([from_linen(Layer(6)), from_linen(Layer(4))], spec, CLASSES, tx=tx, target_width=4)
    start = init(model, jax.random.key(0))
    xs, ys = data(4)
    engine = sequential(model)
    state, metrics = engine.run(engine.load(start, KEY), as_batches(xs, ys))

    expected = list(start)
    for k in range(4):
        message = model.enter(jnp.asarray(xs[k]), jnp.asarray(ys[k]))
        for i, block in enumerate(model.blocks):
            key = jax.random.fold_in(jax.random.fold_in(KEY, k), i)
            old = expected[i]
            message, model_state, stash = block.forward(old, message, key)
            grads, values, downward = block.grads(old, stash, None)
            assert downward is None
            with jax.numpy_dtype_promotion("standard"):
                updates, opt_state = tx.update(grads, old.opt_state, old.params)
            expected[i] = BlockState(optax.apply_updates(old.params, updates), model_state, opt_state)  # type: ignore[arg-type]
            np.testing.assert_allclose(metrics.values[i]["loss"][k], values["loss"], rtol=0, atol=1e-12)
    assert_close(engine.states(state), tuple(expected))
    assert np.abs(np.asarray(state.blocks[0].params["f"]["Dense_0"]["kernel"])).max() > 0


# --- signal = 'cotangent' -----------------------------------------------------------------------------------------


def backprop(block: Block, tx: optax.GradientTransformation, spec: jax.ShapeDtypeStruct, last: bool) -> LocalBlock:
    """A link of a chain; the last one holds the cross-entropy.  `spec` is that of its input."""

    def init(key, message):
        params, model_state = block.init(key, message["x"])
        return BlockState({"f": params}, model_state, tx.init({"f": params}))

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
        return jax.lax.stop_gradient({"x": out, "y": y}), model_state, stash

    def grads(state, stash, signal):
        vjp = jax.tree.unflatten(treedef, stash["residuals"])
        params, x = vjp(jnp.ones((), spec.dtype) if last else signal["cotangent"])
        loss = stash["loss"] if last else signal["loss"]
        return params, {"loss": loss}, {"cotangent": x, "loss": loss}

    return LocalBlock(block.name, "cotangent", init, forward, grads, tx)


def test_cotangents_from_above(x64: None, as_batches: Callable[..., Batches]) -> None:
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
    start = init(model, jax.random.key(0))
    xs, ys = data(5)
    engine = sequential(model)
    state, metrics = engine.run(engine.load(start, KEY), as_batches(xs, ys))

    def loss(params, model_states, x, y):
        new = []
        for block, param, model_state in zip(network, params, model_states, strict=True):
            x, model_state = block.apply(param["f"], model_state, x, key=None, train=True)
            new.append(model_state)
        return objective(x, y), tuple(new)

    params, model_states = tuple(s.params for s in start), tuple(s.model_state for s in start)
    opt_state = tx.init(params)
    for k in range(5):
        (value, model_states), grads = jax.value_and_grad(loss, has_aux=True)(params, model_states, xs[k], ys[k])
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)  # type: ignore[assignment]
        for block_values in metrics.values:
            np.testing.assert_allclose(block_values["loss"][k], value, rtol=0, atol=1e-12)
    trained = engine.states(state)
    assert_close(tuple(s.params for s in trained), params)
    assert_close(tuple(s.model_state for s in trained), model_states)
    assert make_plan(model).cuts == (0, 3)


# --- signal = 'error' ---------------------------------------------------------------------------------------------


def feedback(block: Block, tx: optax.GradientTransformation, spec: jax.ShapeDtypeStruct, last: bool) -> LocalBlock:
    """Direct feedback alignment: the error at the output, through a fixed matrix B, is the gradient at the block's."""
    # B learns nothing, but it is a parameter: a group of its own.
    link = backprop(block, optax.identity(), spec, last)

    def f_only(state):
        return BlockState({"f": state.params["f"]}, state.model_state, None)

    def init(key, message):
        state = link.init(key, message)
        features = jax.eval_shape(link.forward, state, message, key)[0]["x"].shape[1]
        shape = (0, 0) if last else (CLASSES, features)
        params = {**state.params, "feedback": jax.random.normal(jax.random.fold_in(key, 1), shape, spec.dtype)}
        return BlockState(params, state.model_state, tx.init(params))

    def forward(state, message, key):
        message, model_state, stash = link.forward(f_only(state), message, key)
        if not last:
            return message, model_state, stash
        return message, model_state, {**stash, "error": jax.grad(objective)(message["x"], message["y"])}

    def grads(state, stash, signal):
        # the error meets the B of today, but the residuals of the parameters that ran forward
        above = None if last else {"cotangent": signal["error"] @ state.params["feedback"], "loss": signal["loss"]}
        mine, metrics, _ = link.grads(f_only(state), stash, above)
        downward = {"error": stash["error"], "loss": stash["loss"]} if last else None
        return {**mine, "feedback": jnp.zeros_like(state.params["feedback"])}, metrics, downward

    return LocalBlock(block.name, "error", init, forward, grads, tx)


def dfa(lower: Block, tx: optax.GradientTransformation, width: int) -> Model:
    specs = [jax.ShapeDtypeStruct((BATCH, features), jnp.float64) for features in (FEATURES, width)]
    upper = from_linen(nn.Dense(CLASSES))
    return model_of("dfa", [feedback(lower, tx, specs[0], False), feedback(upper, tx, specs[1], True)])


def test_delayed_errors(x64: None) -> None:
    """An error two batches late meets the residuals of then, and statistics have advanced once a batch."""
    delay, batches, rate, width = 2, 6, 0.1, 4
    lower_f, upper_f = from_linen(Layer(width)), from_linen(nn.Dense(CLASSES))
    model = dfa(lower_f, optax.sgd(rate), width)
    start = init(model, jax.random.key(0))
    xs, ys = data(batches)

    lower, upper = start
    waiting: list[tuple[Any, Any]] = []
    for k in range(batches):
        if len(waiting) == delay:
            stash, signal = waiting.pop(0)
            lower = learn(model.blocks[0], lower, stash, signal)
        message = model.enter(jnp.asarray(xs[k]), jnp.asarray(ys[k]))
        message, model_state, stash = model.blocks[0].forward(lower, message, KEY)
        lower = lower._replace(model_state=model_state)
        _, model_state, top_stash = model.blocks[1].forward(upper, message, KEY)
        grads, _, signal = model.blocks[1].grads(upper, top_stash, None)
        upper = apply(model.blocks[1], upper, grads)._replace(model_state=model_state)
        waiting.append((stash, signal))

    # The same by hand: old parameters are kept instead of residuals, and statistics are written out.
    def output(params, x):
        return lower_f.apply(params, start[0].model_state, x, key=None, train=True)[0]

    def error(top, hidden, y):
        scores = lambda top, hidden: upper_f.apply(top, {}, hidden, key=None, train=True)[0]
        e = jax.nn.softmax(scores(top, hidden)) - jax.nn.one_hot(y, CLASSES, dtype=hidden.dtype)
        return e / BATCH, jax.vjp(lambda top: scores(top, hidden), top)[1](e / BATCH)[0]

    w, top, b = start[0].params["f"], start[1].params["f"], start[0].params["feedback"]
    kept: list[tuple[Any, Any, Any]] = []
    statistics = {"mean": np.zeros(width), "var": np.ones(width)}
    descend = lambda tree, step: jax.tree.map(lambda p, g: p - rate * g, tree, step)
    for k in range(batches):
        if k >= delay:
            old, x, e = kept[k - delay]
            w = descend(w, jax.vjp(lambda p, x=x: output(p, x), old)[1](e @ b)[0])
        hidden = xs[k] @ np.asarray(w["Dense_0"]["kernel"]) + np.asarray(w["Dense_0"]["bias"])
        statistics = {
            "mean": 0.9 * statistics["mean"] + 0.1 * hidden.mean(0),
            "var": 0.9 * statistics["var"] + 0.1 * hidden.var(0),
        }
        e, top_grads = error(top, output(w, jnp.asarray(xs[k])), ys[k])
        kept.append((w, jnp.asarray(xs[k]), e))
        top = descend(top, top_grads)
    assert_close((lower.params["f"], upper.params["f"]), (w, top))
    assert_close(lower.model_state["batch_stats"]["BatchNorm_0"], statistics)
    assert_close(lower.params["feedback"], b, 0)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), lower.params["f"]["Dense_0"]["kernel"], start[0].params["f"]["Dense_0"]["kernel"])  # fmt: skip
    assert moved > 1e-3


def apply(block: LocalBlock, state: BlockState, grads: Any) -> BlockState:
    updates, opt_state = block.tx.update(grads, state.opt_state, state.params)
    return state._replace(params=optax.apply_updates(state.params, updates), opt_state=opt_state)  # type: ignore[arg-type]


def learn(block: LocalBlock, state: BlockState, stash: Any, signal: Any) -> BlockState:
    """A late update: the state has moved on since the stash was made, and its statistics stay as they are."""
    return apply(block, state, block.grads(state, stash, signal)[0])


def test_errors_without_delay(x64: None, as_batches: Callable[..., Batches]) -> None:
    """On a two-layer linear net with B = W_2^T, direct feedback alignment is backpropagation."""
    linear = from_linen(nn.Dense(4))
    model = dfa(linear, optax.sgd(0.1), 4)
    engine = sequential(model)
    xs, ys = data(3)
    states = init(model, jax.random.key(0))
    bp = tuple(state.params["f"] for state in states)

    def loss(params, x, y):
        return objective((x @ params[0]["kernel"] + params[0]["bias"]) @ params[1]["kernel"] + params[1]["bias"], y)

    with jax.numpy_rank_promotion("allow"):
        for k in range(3):
            tied = {**states[0].params, "feedback": states[1].params["f"]["kernel"].T}
            states = (states[0]._replace(params=tied), states[1])
            state, _ = engine.run(engine.load(states, KEY), as_batches(xs[k : k + 1], ys[k : k + 1], first=k))
            states = engine.states(state)
            bp = jax.tree.map(lambda p, g: p - 0.1 * g, bp, jax.grad(loss)(bp, xs[k], ys[k]))
    assert_close(tuple(state.params["f"] for state in states), bp)


def test_errors_with_a_matrix_of_its_own_are_not_backprop(x64: None, as_batches: Callable[..., Batches]) -> None:
    """The feedback is really used: without the tie only the last block follows backpropagation."""
    model = dfa(from_linen(nn.Dense(4)), optax.sgd(0.1), 4)
    engine = sequential(model)
    start = init(model, jax.random.key(0))
    tied = (start[0]._replace(params={**start[0].params, "feedback": start[1].params["f"]["kernel"].T}), start[1])
    xs, ys = data(1)
    one, two = (
        engine.states(engine.run(engine.load(states, KEY), as_batches(xs, ys))[0]) for states in (start, tied)
    )
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
    plan = make_plan(al(mlp((4, 8, 4)), spec, CLASSES, tx=optax.sgd(0.1), target_width=4), 2, cuts=(0, 1, 3))
    assert plan.stage_costs == pytest.approx((plan.costs[0], plan.costs[1] + plan.costs[2]))
