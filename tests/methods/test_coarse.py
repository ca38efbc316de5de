"""Coarse labels in the lower blocks."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import localgrad as lg
from localgrad import testing, training
from localgrad.base import Model
from localgrad.blocks import mlp
from localgrad.methods.coarse import representatives
from localgrad.methods.registry import METHODS
from localgrad.pipeline import sequential
from localgrad.report import largest_difference

BATCH, CLASSES = 8, 4
SPEC = jax.ShapeDtypeStruct((BATCH, 5), jnp.float64)
GROUPS = (0, 1, 1, 0)
TWINS, OTHERS = np.array([3, 2, 1, 0]), np.array([1, 0, 2, 3])  # of each class, one in its group, one in the other
KEY = jax.random.key(1)
Y = np.arange(BATCH, dtype=np.int32) % CLASSES
RULES = ("early_exit", "dgl", "auglocal", "mono_forward", "pred", "predsim", "sim", "scl", "infopro", "drtp")


@cache
def build(rule: str) -> Model:
    options: dict[str, Any] = {"head": "linear"} if rule == "scl" else {}
    return METHODS[rule](mlp((7, 6)), SPEC, CLASSES, lambda scale: optax.sgd(0.1 * scale, momentum=0.9), **options)


@cache
def in_groups(rule: str) -> Model:
    return lg.coarse_to_fine(build(rule), [GROUPS])


@cache
def first_pass(make: Callable[[str], Model], rule: str) -> Callable:
    """The pass of the first block, compiled once for all labels; in float64, as every test of it is."""
    model, x = make(rule), jnp.asarray(np.random.default_rng(0).normal(size=SPEC.shape))
    return jax.jit(lambda state, y: model.blocks[0].forward(state, model.enter(x, y), KEY))


def passed(make: Callable[[str], Model], rule: str, states: Any, y: Any) -> Any:
    return first_pass(make, rule)(states[0], jnp.asarray(y, jnp.int32))


@pytest.mark.parametrize("rule", RULES)
def test_labels_of_a_group_are_one_to_a_coarse_block(rule: str, x64: None, random_states: Callable) -> None:
    """Its loss and gradient are the same, those of other groups are not; and labels go on as they came."""
    states = random_states(build(rule))
    found, twin, other = (passed(in_groups, rule, states, y) for y in (Y, TWINS[Y], OTHERS[Y]))
    assert largest_difference(found.grads, twin.grads) <= 1e-15
    assert largest_difference(found.grads, other.grads) > 1e-6
    assert largest_difference(found.grads, passed(build, rule, states, Y).grads) > 1e-6
    np.testing.assert_array_equal(found.message["y"], Y)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found.grads))


@pytest.mark.parametrize("rule", ["early_exit", "auglocal", "mono_forward", "pred"])
def test_it_learns_the_probability_of_the_group(rule: str, x64: None, random_states: Callable) -> None:
    model, states = in_groups(rule), random_states(build(rule))
    x = jnp.asarray(np.random.default_rng(0).normal(size=SPEC.shape))
    shares = np.asarray(jax.nn.softmax(model.predict(states, x, 1)))  # without norms training and prediction agree
    of_group = np.where(np.array(GROUPS)[Y] == 0, shares[:, [0, 3]].sum(1), shares[:, [1, 2]].sum(1))
    np.testing.assert_allclose(passed(in_groups, rule, states, Y).metrics["loss"], -np.log(of_group).mean(), rtol=1e-12)


@pytest.mark.parametrize("rule", ["early_exit", "predsim"])
def test_groups_of_one_class_are_the_rule_itself(rule: str, x64: None, random_states: Callable) -> None:
    plain = build(rule)
    model, states = lg.coarse_to_fine(plain, [(7, 3, 1, 0)]), random_states(plain)
    given = testing.random_batches(plain, 3)
    ends = []
    for each in (plain, model):
        engine = sequential(each)
        ends.append(engine.states(engine.run(engine.load(states, KEY), given)[0]))
    assert largest_difference(*ends) <= 1e-12


def test_a_label_that_is_none_is_noticed(x64: None, random_states: Callable) -> None:
    states = random_states(build("early_exit"))
    assert np.isnan(passed(in_groups, "early_exit", states, np.full(BATCH, CLASSES)).metrics["loss"])


@pytest.mark.full
def test_the_pipeline_gives_the_same_numbers(x64: None) -> None:
    for rule in ("early_exit", "predsim"):
        assert testing.check_engines(lg.coarse_to_fine(build(rule), [GROUPS]), stages=2) <= 1e-12


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: lg.coarse_to_fine(build("early_exit"), [GROUPS] * 2), "blocks below the last, 1 here; got 2 of them"),
        (lambda: lg.coarse_to_fine(build("early_exit"), [(0, 1)]), r"number for each of 4 classes; got \[0, 1\]"),
        (lambda: lg.coarse_to_fine(build("early_exit"), [(1, 1, 1, 1)]), "of one group leave nothing to tell apart"),
        (lambda: lg.coarse_to_fine(build("early_exit"), [(0, 0.5, 1, 1)]), "a whole number for each of 4 classes"),
        *[
            (lambda rule=rule: lg.coarse_to_fine(build(rule), [GROUPS]), f"method {rule!r} is not so here")
            for rule in ("al", "bp", "dfa", "ff", "critic")
        ],
        (lambda: lg.coarse_to_fine(lg.freeze(build("dgl"), 1), [GROUPS]), "before they are frozen"),
        (
            lambda: lg.coarse_to_fine(
                lg.early_exit(mlp((4, 4)), SPEC, lg.regression(2), tx=optax.sgd(0.1)), [GROUPS]
            ),
            "for classification, not for regression: coarse labels are of classes",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(make: Callable, says: str, x64: None) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_groups_are_named_by_their_first_class() -> None:
    assert representatives((9, 4, 9, 4, 2), 5).tolist() == [0, 1, 0, 1, 4]


def test_a_command_says_them(tmp_path: Any) -> None:
    def models(*said: str) -> list:
        config = training.Config(method="early_exit", widths=(8, 6), coarse_labels=said, workdir=str(tmp_path))
        return [block.made_of.step for block in training.prepare_all(config)[0].model.blocks]

    assert ["_coarse_block" in step.__qualname__ for step in models("2")] == [True, False]
    with pytest.raises(ValueError, match="--coarse_labels is a list of numbers such as 2, or 0:0:1:1; got 'few'"):
        models("few")
    with pytest.raises(ValueError, match=r"a whole number for each of 10 classes; got \[0, 1\]"):
        models("0:1")
