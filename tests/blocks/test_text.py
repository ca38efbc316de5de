"""Networks of texts: masks, summaries, buckets, and what is refused."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from localgrad import al, bp, early_exit, sequential
from localgrad.blocks import bilstm, bucketed, embedding, output_spec, regroup, transformer
from localgrad.blocks.sequences import final_states, mean_of_tokens, with_mask
from localgrad.data import batches
from localgrad.report import largest_difference

WORDS, BATCH, LENGTH, CLASSES = 30, 4, 8, 3
NETWORKS = {
    "embedding": lambda **more: embedding(WORDS, embed_width=6, **more),
    "bilstm": lambda **more: bilstm(WORDS, widths=(5,), embed_width=6, **more),
    "transformer": lambda **more: transformer(WORDS, layers=1, width=6, feed_forward=7, heads=2, **more),
}


def some_texts(steps: int, length: int = LENGTH, longest: int = LENGTH) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    size = rng.integers(1, longest + 1, (steps, BATCH, 1))
    words = rng.integers(1, WORDS, (steps, BATCH, longest))
    x = np.zeros((steps, BATCH, length), np.int32)
    x[..., :longest] = np.where(np.arange(longest) < size, words, 0)
    return x, rng.integers(0, CLASSES, (steps, BATCH)).astype(np.int32)


@pytest.mark.parametrize(
    ("net", "method"),
    # `al` reads the same summaries as an exit does, and learns from texts in `tests/pipeline/test_text.py`.
    [("transformer", early_exit), *(pytest.param(n, al, marks=pytest.mark.full) for n in NETWORKS)],
)
def test_padding_further_changes_no_parameter_and_no_prediction(
    net: str, method: Callable, x64: None, random_states: Callable
) -> None:
    found = []
    for length in (LENGTH, LENGTH + 5):
        xs, ys = some_texts(3, length, LENGTH)
        network = NETWORKS[net](dropout=0.3, dtype=jnp.float64)
        options = {"target_width": 4} if method is al else {}
        model = method(network, jax.ShapeDtypeStruct(xs.shape[1:], jnp.int32), CLASSES, tx=optax.adam(1e-2), **options)
        engine = sequential(model)
        state = engine.load(random_states(model), jax.random.key(1))
        state, metrics = engine.run(state, batches(jnp.asarray(xs), jnp.asarray(ys)))
        states = engine.states(state)
        scores = [model.predict(states, jnp.asarray(xs[0]), exit) for exit in model.exits]
        found.append((states, [value["loss"] for value in metrics.values], scores))
    assert largest_difference(found[0][0], found[1][0]) < 1e-12
    for one, other in zip(jax.tree.leaves(found[0][1:]), jax.tree.leaves(found[1][1:]), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_summaries_are_those_of_the_tokens_alone() -> None:
    rng = np.random.default_rng(0)
    values, size = rng.normal(size=(3, 5, 4)).astype(np.float32), [5, 2, 1]
    mask = (np.arange(5) < np.array(size)[:, None]).astype(np.float32)
    x = with_mask(jnp.asarray(values), jnp.asarray(mask))
    for row, count in enumerate(size):
        np.testing.assert_allclose(mean_of_tokens(x)[row], values[row, :count].mean(axis=0), rtol=1e-6)
        ends = np.concatenate([values[row, count - 1, :2], values[row, 0, 2:]])
        np.testing.assert_array_equal(final_states(x)[row], ends)


def test_the_summary_of_a_bilstm_is_the_state_in_which_each_direction_ends() -> None:
    xs, _ = some_texts(1)
    first, layer = NETWORKS["bilstm"]()
    spec = jax.ShapeDtypeStruct(xs.shape[1:], jnp.int32)
    x, _ = first.apply(*first.init(jax.random.key(0), spec), jnp.asarray(xs[0]), key=None, train=False)
    params, _ = layer.init(jax.random.key(1), output_spec(first, spec))
    found = layer.summary(layer.apply(params, {}, x, key=None, train=False)[0])
    counts = (xs[0] > 0).sum(axis=1)
    for row in (counts.argmin(), counts.argmax()):
        count = int(counts[row])
        ends = []
        for direction, name in ((1, "OptimizedLSTMCell_0"), (-1, "OptimizedLSTMCell_1")):
            run = nn.RNN(nn.OptimizedLSTMCell(5), return_carry=True)
            (_, h), _ = run.apply({"params": {"cell": params[name]}}, x[row, :count, :-1][::direction])
            ends.append(h)
        np.testing.assert_allclose(found[row], np.concatenate(ends), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("net", "method"),
    [
        ("transformer", early_exit),
        *(pytest.param(n, m, marks=pytest.mark.full) for n in ("bilstm", "transformer") for m in (al, bp)),
    ],
)
def test_buckets_change_nothing_and_compile_nothing_anew(
    net: str, method: Callable, x64: None, random_states: Callable
) -> None:
    found = []
    xs, ys = some_texts(4, LENGTH, LENGTH)
    xs[::2, :, 3:] = 0  # every other batch is short
    for buckets in ((), (3, 6)):
        network = NETWORKS[net](buckets=buckets, dtype=jnp.float64, dropout=0.3)
        options = {"target_width": 4, "bridge": ()} if method is al else {}
        model = method(network, jax.ShapeDtypeStruct(xs.shape[1:], jnp.int32), CLASSES, tx=optax.sgd(0.1), **options)
        engine = sequential(model)
        state = engine.load(random_states(model), jax.random.key(1))
        for step in range(4):
            fed = batches(jnp.asarray(xs[step : step + 1]), jnp.asarray(ys[step : step + 1]), first=step)
            state, _ = engine.run(state, fed)
        assert engine.run._cache_size() == 1  # type: ignore[attr-defined]
        found.append(engine.states(state))
    assert largest_difference(*found) < 1e-12


def test_a_short_batch_costs_what_its_bucket_costs() -> None:
    """The layer really runs on fewer places: one behind the bucket that is no number does not reach it."""
    (block,) = transformer(WORDS, layers=1, width=6, heads=2, buckets=(3,))[1:]
    x = jnp.zeros((2, LENGTH, 7)).at[:, :2].set(1.0)
    params, _ = block.init(jax.random.key(0), jax.ShapeDtypeStruct(x.shape, x.dtype))
    short, _ = block.apply(params, {}, x.at[:, 3:, :-1].set(jnp.nan), key=None, train=False)
    assert np.isfinite(short).all()


def test_words_do_not_drown_in_the_sines_of_their_places() -> None:
    """Texts of other words differ: the mean over the words of the first encoder is not that of the sines alone."""
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.integers(1, 2000, (64, 20)), jnp.int32)
    words, first = transformer(2000, layers=1, width=64, feed_forward=32, heads=4)
    spec = jax.ShapeDtypeStruct(xs.shape, jnp.int32)
    x, _ = words.apply(*words.init(jax.random.key(0), spec), xs, key=None, train=False)
    params, _ = first.init(jax.random.key(1), output_spec(words, spec))

    def share(x: jax.Array) -> float:
        """Of the mean square of the summaries, what is between texts."""
        read = np.asarray(first.summary(x))
        return float(np.mean((read - read.mean(axis=0)) ** 2) / np.mean(read**2))

    found = share(first.apply(params, {}, x, key=None, train=False)[0])
    assert share(x) > 0.9 and found > 0.03  # 0.0015 without the norm


@pytest.mark.parametrize("scale", [0.1, 3.0, 50.0])
@pytest.mark.parametrize("width", [6, 8])
def test_given_vectors_may_have_any_scale(scale: float, width: int) -> None:
    """GloVe's are larger than those that are drawn here; also where a dense layer brings them to the width."""
    (_, first) = transformer(WORDS, layers=1, width=6, heads=2, embed_width=width)
    mask = jnp.asarray(np.arange(LENGTH) < np.array([[LENGTH], [3]]), jnp.float32)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, LENGTH, width)), jnp.float32)
    params, _ = first.init(jax.random.key(0), jax.ShapeDtypeStruct((2, LENGTH, width + 1), jnp.float32))
    run = lambda values: first.apply(params, {}, with_mask(values, mask), key=None, train=False)[0]
    np.testing.assert_allclose(run(x), run(scale * x), atol=2e-3)
    assert np.abs(run(x) - run(x[:, ::-1])).max() > 0.1


def test_a_chain_is_read_as_its_last_part_is() -> None:
    network = bilstm(WORDS, widths=(5,), embed_width=6, blocks=1)
    assert len(network) == 1 and network[0].summary is final_states
    assert regroup(embedding(WORDS), 1)[0].summary is mean_of_tokens


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: transformer(WORDS, width=10, heads=3), "heads=3 do not divide the width of the transformer, 10"),
        (lambda: transformer(WORDS, layers=0), "positive"),
        (lambda: bilstm(WORDS, widths=()), "positive"),
        (lambda: embedding(WORDS, dropout=1.0), "dropout"),
        (lambda: bucketed(embedding(WORDS)[0], (4, 4)), "ascend"),
    ],
)
def test_what_cannot_be_is_refused(make, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
