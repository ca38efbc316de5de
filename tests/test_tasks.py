"""Every kind of target on both engines, with every rule that can learn it; the others refuse and say why."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import localgrad as lg
from localgrad.blocks import from_linen, mlp
from localgrad.data import batches
from localgrad.evaluation import make_evaluator
from localgrad.methods import METHODS
from localgrad.pipeline import delays_of, signal_of
from localgrad.report import largest_difference
from localgrad.tasks import Task, as_task, classification, multilabel, regression, tokens

BATCH, FEATURES, PLACES, VOCABULARY, COUNT = 8, 5, 4, 7, 5
RNG = np.random.default_rng(0)
PLAIN = jax.ShapeDtypeStruct((BATCH, FEATURES), jnp.float64)
PLACED = jax.ShapeDtypeStruct((BATCH, PLACES, VOCABULARY), jnp.float64)


class ByPlace(nn.Module):
    """A dense layer on every place of a sequence."""

    features: int

    @nn.compact
    def __call__(self, x):
        return nn.tanh(nn.Dense(self.features)(x))


TASKS: dict[str, tuple[Task, Any]] = {
    "regression": (regression(2), lambda: RNG.normal(size=(COUNT, BATCH, 2))),
    "multilabel": (multilabel(3), lambda: RNG.integers(0, 2, (COUNT, BATCH, 3)).astype(np.int32)),
    "tokens": (tokens(VOCABULARY), lambda: RNG.integers(0, VOCABULARY, (COUNT, BATCH, PLACES)).astype(np.int32)),
}
RULES = (
    "al", "early_exit", "dgl", "auglocal", "mono_forward", "noprop", "deep_supervision", "pred", "dfa", "dkp", "drtp",
    "bp", "cdni", "critic", "direct_tp",
)  # fmt: skip


def make(method: str, name: str, **options: Any) -> lg.Model:
    if name == "tokens":
        network, spec = [from_linen(ByPlace(width)) for width in (6, 5)], PLACED
    else:
        network, spec = mlp((6, 5)), PLAIN
    options |= (
        {"aux": "hidden", "hidden": 4}
        if method == "dgl"
        else {"target_width": 4, "bridge": ()}
        if method == "al"
        else {}
    )
    options |= {"steps": 2, "hidden": 4} if method == "noprop" else {}
    return METHODS[method](network, spec, TASKS[name][0], lambda scale: optax.sgd(0.1 * scale, momentum=0.9), **options)


def examples(name: str) -> tuple[np.ndarray, np.ndarray]:
    spec = PLACED if name == "tokens" else PLAIN
    return RNG.normal(size=(COUNT, *spec.shape)), TASKS[name][1]()


QUICK = [("al", "regression"), ("dfa", "tokens"), ("bp", "multilabel")]
SLOW = [("al", "tokens")]


def slow_or_full(slow: bool) -> pytest.MarkDecorator:
    return pytest.mark.slow if slow else pytest.mark.full


@pytest.mark.parametrize(
    ("method", "name"),
    [
        pytest.param(method, name, marks=[] if (method, name) in QUICK else slow_or_full((method, name) in SLOW))
        for name in TASKS
        for method in RULES
    ],
)
def test_both_engines_learn_every_task(method: str, name: str, x64: None, random_states: Callable) -> None:
    model = make(method, name)
    xs, ys = examples(name)
    key = jax.random.key(0)
    states = random_states(model)
    found = []
    pipeline = lg.spmd(model, stages=2, bubble=float("nan"), micro_batches=1 if method.startswith("bp") else None)
    signal = signal_of(model)
    delays = delays_of(pipeline.plan.cuts, signal) if signal in ("top", "next") else None
    for engine in (pipeline, lg.sequential(model, delays)):
        state, metrics = engine.run(engine.load(states, key), engine.put(batches(xs, ys, task=model.task)))
        metrics.check()
        found.append(engine.states(state))
    assert largest_difference(*found) < 1e-12
    assert max(largest_difference(a.params, b.params) for a, b in zip(states, found[0], strict=True)) > 1e-3
    scores = model.predict(found[1], jnp.asarray(xs[0]))
    assert scores.shape == (*ys[0].shape, VOCABULARY) if name == "tokens" else ys[0].shape


@pytest.mark.parametrize(("method", "why"), [("scl", "contrasts examples"), ("predsim", "compares labels")])
@pytest.mark.parametrize("name", TASKS)
def test_a_rule_that_needs_classes_refuses_tasks_without(method: str, why: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"method '{method}' is for classification, not for {name}: its.* {why}"):
        make(method, name)


@pytest.mark.parametrize("method", ["fa", "kp", "usf"])
def test_what_goes_back_through_layers_refuses_sequences(method: str) -> None:
    with pytest.raises(
        ValueError, match=f"method '{method}' goes back through layers .* and tokens are of every place"
    ):
        make(method, "tokens")


def test_a_sine_is_learnt() -> None:
    """Regression to the end: both sides of Associated Learning, and a classifier's place taken by a line."""
    xs = RNG.uniform(-2, 2, (600, 64, 1)).astype(np.float32)
    ys = np.sin(2 * xs)
    spec = jax.ShapeDtypeStruct((64, 1), jnp.float32)
    for method, least in (("early_exit", 0.02), ("bp", 0.02)):
        model = METHODS[method](
            mlp((64, 64), activation="tanh"), spec, regression(), lambda scale: optax.adam(scale * 3e-3)
        )
        engine = lg.sequential(model)
        state, metrics = engine.run(
            engine.load(lg.init(model, jax.random.key(0)), jax.random.key(1)), batches(xs, ys, task=model.task)
        )
        metrics.check()
        scores = model.predict(engine.states(state), jnp.asarray(xs[0]))
        assert float(jnp.mean((scores - ys[0]) ** 2)) < least  # of a variance of about a half


@pytest.mark.parametrize(
    ("task", "y"),
    [
        (regression(2), np.full((BATCH, 2), np.inf)),
        (multilabel(3), np.full((BATCH, 3), 2, np.int32)),
        (tokens(VOCABULARY), np.full((BATCH, PLACES), VOCABULARY, np.int32)),
        (classification(3), np.full((BATCH,), 3, np.int32)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_targets_that_are_none_are_not_learnt_from(task: Task, y: np.ndarray, x64: None) -> None:
    fine = jnp.zeros(y.shape, y.dtype)
    rows = BATCH * PLACES if task.per_token else BATCH
    scores = jnp.zeros((rows, task.outputs))
    assert np.isfinite(task.loss(scores, fine)) and np.isfinite(task.check(fine, scores.dtype))
    assert np.isnan(task.loss(scores, jnp.asarray(y))) and np.isnan(task.check(jnp.asarray(y), scores.dtype))
    assert task.encode(fine, scores.dtype).shape == scores.shape


def test_targets_of_another_shape_or_kind_are_refused(x64: None) -> None:
    xs, ys = examples("regression")
    many = RNG.integers(0, 2, (COUNT, BATCH, 3)).astype(np.int32)
    for task, wrong, words in (
        (
            regression(2),
            ys[..., :1],
            r"targets \(5, 8, 1\) of regression do not belong together: expected .*\(5, 8, 2\)",
        ),
        (multilabel(3), many.astype(float), "targets of multilabel are float64; expected whole numbers"),
        (regression(2), np.full(ys.shape, np.nan), "targets of regression"),
        (4, many[..., 0] + 3, "labels run from 3 to 4; expected 0 to 3"),
    ):
        with pytest.raises(ValueError, match=words):
            batches(xs, wrong, task=task)
    model = make("early_exit", "regression")
    engine = lg.sequential(model)
    with pytest.raises(ValueError, match=r"the model's task, regression, wants numbers of shape \[8, 2\]"):
        engine.run(
            engine.load(lg.init(model, jax.random.key(0)), jax.random.key(0)), batches(xs, many, task=multilabel(3))
        )


def test_what_is_no_task_is_refused() -> None:
    assert as_task(3).name == "classification" and as_task(np.int64(3)).classes == 3
    for wrong in ("digits", 3.0, True, None):
        with pytest.raises(TypeError, match="a task is one of `localgrad.tasks`, or a number of classes; got"):
            as_task(wrong)  # type: ignore[arg-type]
    for make_task, words in (
        (classification, "classes must be at least 2"),
        (regression, "outputs must be at least 1"),
    ):
        with pytest.raises(ValueError, match=words):
            make_task(0)


def test_scores_are_of_examples() -> None:
    y = jnp.array([[0, 1, 1], [1, 1, 0]])
    scores = jnp.array([[-1.0, 2.0, 3.0], [1.0, -1.0, -1.0]])
    found = multilabel(3).scores
    np.testing.assert_allclose(found["label_accuracy"].of(scores, y), [1, 2 / 3], rtol=1e-6)
    assert found["exact"].of(scores, y).tolist() == [True, False]
    assert regression(3).scores["mean_squared_error"].of(jnp.ones((2, 3)), jnp.zeros((2, 3))).tolist() == [1, 1]


def test_the_evaluator_reports_the_first_score_of_the_task(x64: None) -> None:
    model = make("early_exit", "regression")
    states = lg.init(model, jax.random.key(0))
    xs, ys = examples("regression")
    mask = np.arange(BATCH) < 5
    found = make_evaluator(model)(states, [(jnp.asarray(xs[0]), jnp.asarray(ys[0]), jnp.asarray(mask))])
    for exit, value in zip(model.exits, found, strict=True):
        away = np.mean((np.asarray(model.predict(states, xs[0], exit)) - ys[0]) ** 2, axis=-1)
        np.testing.assert_allclose(value, away[:5].mean(), rtol=1e-12)
