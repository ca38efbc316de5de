"""Whatever way a module is told that it trains, its dropout drops and its statistics move then, and only then."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from localgrad.base import Block
from localgrad.blocks import from_linen, from_nnx
from localgrad.blocks.modes import TRAINS

X = np.random.default_rng(0).normal(2.0, 3.0, (16, 12)).astype(np.float32)
SPEC = jax.ShapeDtypeStruct(X.shape, X.dtype)


def body(x: jax.Array, train: bool) -> jax.Array:
    """Within a compact module."""
    x = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x))
    return nn.Dropout(0.5, deterministic=not train)(x)


class Train(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return body(x, train)


class Required(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        return body(x, train)


class IsTraining(nn.Module):
    @nn.compact
    def __call__(self, x, *, is_training):
        return body(x, is_training)


class Training(nn.Module):
    @nn.compact
    def __call__(self, x, training=False):
        return body(x, training)


class Deterministic(nn.Module):
    @nn.compact
    def __call__(self, x, mask=None, deterministic=True):
        return body(x, not deterministic)


class RunningAverage(nn.Module):
    @nn.compact
    def __call__(self, x, use_running_average):
        return body(x, not use_running_average)


class TwoModes(nn.Module):
    @nn.compact
    def __call__(self, x, train=False, deterministic=True):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x))
        return nn.Dropout(0.5, deterministic=deterministic)(x)


class Options(nn.Module):
    @nn.compact
    def __call__(self, x, **options):
        return Train()(x, **options)


class LookedUp(nn.Module):
    @nn.compact
    def __call__(self, x, **options):
        return body(x, options["training"])


class Field(nn.Module):
    train: bool

    @nn.compact
    def __call__(self, x):
        return body(x, self.train)


class Merged(nn.Module):
    deterministic: bool | None = None

    @nn.compact
    def __call__(self, x, deterministic=None):
        return body(x, not nn.merge_param("deterministic", self.deterministic, deterministic))


class Undecided(nn.Module):
    def setup(self):
        self.dense, self.norm, self.dropout = nn.Dense(8), nn.BatchNorm(), nn.Dropout(0.5)

    def __call__(self, x):
        return self.dropout(self.norm(self.dense(x)))


class Deaf(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Train()(x)


class Inverted(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return body(x, not train)


class Always(nn.Module):
    @nn.compact
    def __call__(self, x):
        return body(x, True)


class IsTrain(nn.Module):
    @nn.compact
    def __call__(self, x, is_train=False):
        return body(x, is_train)


class OwnDropout(nn.Module):
    """Draws by itself, so that no submodule has a mode."""

    @nn.compact
    def __call__(self, x, noisy=False):
        return x * jax.random.bernoulli(self.make_rng("dropout"), 0.5, x.shape) if noisy else x


class OwnNorm(nn.Module):
    """Has batch statistics of its own."""

    @nn.compact
    def __call__(self, x, refresh=False):
        mean = self.variable("batch_stats", "mean", lambda: jnp.zeros((1, 12)))
        if refresh:
            mean.value = x.mean(axis=0, keepdims=True)
        return x - mean.value


class StillNorm(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return x - self.variable("batch_stats", "mean", lambda: jnp.zeros((1, 12))).value


class Harmless(nn.Module):
    """Pinned modes that make no difference."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.MultiHeadDotProductAttention(2, deterministic=True)(x[:, None])[:, 0]
        return nn.Dropout(0.0, deterministic=True)(x)


class PinnedNorm(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=True, name="norm")(nn.Dense(8)(x))
        return nn.Dropout(0.5, deterministic=not train)(x)


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        return nn.Dropout(0.2, deterministic=not train)(nn.Dense(12)(x)), None


class Lifted(nn.Module):
    how: str

    @nn.compact
    def __call__(self, x, train: bool):
        if self.how == "keyword":
            return nn.remat(Required, static_argnums=(2,))()(x, train=train)
        return (nn.remat(Required) if self.how == "array" else nn.remat(Required, static_argnums=(2,)))()(x, train)


class NnxBase(nnx.Module):
    def __init__(self, rngs):
        self.dense, self.norm = nnx.Linear(12, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def run(self, x, train):
        return self.dropout(self.norm(self.dense(x), use_running_average=not train), deterministic=not train)


class NnxPlain(NnxBase):
    def __call__(self, x):
        return self.dropout(self.norm(self.dense(x)))


class NnxTrain(NnxBase):
    def __call__(self, x, train=False):
        return self.run(x, train)


class NnxTraining(NnxBase):
    def __call__(self, x, *, training):
        return self.run(x, training)


class NnxAttribute(NnxBase):
    def __init__(self, rngs):
        super().__init__(rngs)
        self.train = False  # hides the method of that name

    def __call__(self, x):
        return self.run(x, self.train)


class NnxOptions(nnx.Module):
    def __init__(self, rngs):
        self.inner = NnxTrain(rngs)

    def __call__(self, x, **options):
        return self.inner(x, **options)


def class_attribute(name: str) -> Block:
    """A block whose mode is an attribute of its class, by some name, that says prediction."""

    class OfClass(NnxBase):
        def __call__(self, x):
            return self.run(x, getattr(self, name) == TRAINS[name])

    setattr(OfClass, name, not TRAINS[name])
    return from_nnx(OfClass)


class LinenOfClass(nn.Module):
    training = False

    @nn.compact
    def __call__(self, x):
        return body(x, self.training)


class NnxDeaf(NnxOptions):
    def __call__(self, x):
        return self.inner(x)


class NnxPinned(NnxBase):
    def __call__(self, x):
        return self.dropout(self.norm(self.dense(x), use_running_average=True))


class NnxAlways(NnxBase):
    def __call__(self, x):
        return self.dropout(self.norm(self.dense(x)), deterministic=False)


class NnxIsTrain(nnx.Module):
    def __init__(self, rngs):
        self.rngs = rngs

    def __call__(self, x, is_train=False):
        return x * jax.random.bernoulli(self.rngs.noise(), 0.5, x.shape) if is_train else x


class NnxNoise(nnx.Module):
    def __init__(self, rngs):
        self.rngs = rngs

    def __call__(self, x):
        return x + jax.random.normal(self.rngs.noise(), x.shape)


class NnxStatic(NnxBase):
    @nnx.jit(static_argnames=("train",))
    def __call__(self, x, train):
        return self.run(x, train)


class NnxRemat(NnxBase):
    @partial(nnx.remat, static_argnums=(2,))
    def __call__(self, x, train):
        return self.run(x, train)


class NnxArray(NnxBase):
    @nnx.jit
    def __call__(self, x, train):
        return self.run(x, train)


class NnxCalledWithRngs(nnx.Module):
    def __init__(self, rngs):
        self.dropout = nnx.Dropout(0.5)

    def __call__(self, x, rngs=None):
        return self.dropout(x, rngs=rngs)


class NnxLayer(nnx.Module):
    def __init__(self, rngs):
        self.dense, self.dropout = nnx.Linear(12, 12, rngs=rngs), nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.dense(x))


class NnxScanned(nnx.Module):
    """Three layers as one, whose random streams are three as well."""

    def __init__(self, rngs):
        self.layers = nnx.split_rngs(splits=3)(nnx.vmap(NnxLayer))(rngs)

    def __call__(self, x):
        return nnx.scan(lambda x, layer: (layer(x), None))(x, self.layers)[0]


def used(block: Block) -> tuple[float, float, float, bool]:
    """Share of zeros in training and in prediction, how far statistics move, and whether those stay in prediction."""

    @jax.jit  # compiling each operation by itself would take far longer
    def run(x):
        params, before = block.init(jax.random.key(0), SPEC)
        y, after = block.apply(params, before, x, key=jax.random.key(1), train=True)
        z, same = block.apply(params, before, x, key=None, train=False)
        return before, after, same, (y == 0).mean(), (z == 0).mean()

    before, after, same, dropped, predicted = jax.device_get(run(X))
    kind = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert kind(before) == kind(after) == kind(same)
    distance = jax.tree.leaves(jax.tree.map(lambda a, b: float(abs(a - b).max()), before, after))
    still = all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), before, same)))
    return float(dropped), float(predicted), max(distance, default=0.0), still


TOLD = {
    "train": lambda: from_linen(Train()),
    "training": lambda: from_linen(Training()),
    "is_training": lambda: from_linen(IsTraining()),
    "deterministic behind another": lambda: from_linen(Deterministic()),
    "use_running_average": lambda: from_linen(RunningAverage()),
    "two modes": lambda: from_linen(TwoModes()),
    "options handed on": lambda: from_linen(Options()),
    "options looked up": lambda: from_linen(LookedUp()),
    **{f"class attribute {name}": partial(class_attribute, name) for name in TRAINS},
    "field on": lambda: from_linen(Field(True)),
    "field off": lambda: from_linen(Field(False)),
    "merged open": lambda: from_linen(Merged()),
    "merged set": lambda: from_linen(Merged(False)),
    "undecided": lambda: from_linen(Undecided()),
    "sequential": lambda: from_linen(nn.Sequential([nn.Dense(8), nn.BatchNorm(), nn.Dropout(0.5)])),
    "sequential of layers": lambda: from_linen(nn.Sequential([Required(), nn.remat(Required)()])),
    "remat": lambda: from_linen(nn.remat(Required, static_argnums=(2,))()),
    "jit": lambda: from_linen(nn.jit(Required, static_argnums=(2,))()),
    "remat of jit": lambda: from_linen(nn.remat(nn.jit(Required, static_argnums=(2,)), static_argnums=(2,))()),
    "remat of field": lambda: from_linen(nn.remat(Field)(False)),
    "remat within": lambda: from_linen(Lifted("place")),
    "call": lambda: from_linen(IsTrain(), call=lambda module, x, train: module(x, is_train=train)),
    "nnx": lambda: from_nnx(NnxPlain),
    "nnx train": lambda: from_nnx(NnxTrain),
    "nnx training": lambda: from_nnx(NnxTraining),
    "nnx attribute": lambda: from_nnx(NnxAttribute),
    "nnx options": lambda: from_nnx(NnxOptions),
    "nnx jit": lambda: from_nnx(NnxStatic),
    "nnx remat": lambda: from_nnx(NnxRemat),
}


@pytest.mark.parametrize("make", TOLD.values(), ids=TOLD)
def test_the_mode_arrives(make: Any) -> None:
    dropped, predicted, moved, still = used(make())
    assert 0.3 < dropped < 0.7 and predicted == 0 and moved > 0.001 and still


DROPPING = {
    "dropout": (lambda: from_linen(nn.Dropout(0.5)), 0.5),
    "dropout set": (lambda: from_linen(nn.Dropout(0.5, deterministic=False)), 0.5),
    "own dropout": (lambda: from_linen(OwnDropout(), call=lambda m, x, train: m(x, train)), 0.5),
    "scan": (
        lambda: from_linen(
            nn.scan(
                Scanned,
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=nn.broadcast,
                length=3,
            )()
        ),
        0.2,
    ),
    "nnx dropout": (lambda: from_nnx(lambda rngs: nnx.Dropout(0.5, rngs=rngs)), 0.5),
    "nnx streams by call": (lambda: from_nnx(NnxCalledWithRngs), 0.5),
    "nnx scan": (lambda: from_nnx(NnxScanned), 0.2),
    "nnx own": (lambda: from_nnx(NnxIsTrain, call=lambda m, x, train: m(x, train)), 0.5),
}


@pytest.mark.parametrize(("make", "rate"), DROPPING.values(), ids=DROPPING)
def test_dropout_arrives(make: Any, rate: float) -> None:
    dropped, predicted, _, _ = used(make())
    assert abs(dropped - rate) < 0.2 and dropped > 0 and predicted == 0


REFUSED = {
    "deaf": (lambda: from_linen(Deaf()), "block 'Deaf': while it trains, 'Train_0' has train=False"),
    "inverted": (lambda: from_linen(Inverted()), "'BatchNorm_0' has use_running_average=True"),
    "always": (lambda: from_linen(Always()), "while it predicts, 'BatchNorm_0' has use_running_average=False"),
    "another name": (lambda: from_linen(IsTrain()), "'BatchNorm_0' has use_running_average=True"),
    "own dropout": (lambda: from_linen(OwnDropout()), "only with noisy=True.*call=lambda module, x, train"),
    "own norm": (lambda: from_linen(OwnNorm()), "only with refresh=True"),
    "still norm": (lambda: from_linen(StillNorm()), "batch statistics that stay as they are"),
    "pinned": (lambda: from_linen(PinnedNorm()), r"pass frozen=\('norm',\)"),
    "sequential": (lambda: from_linen(nn.Sequential([nn.Dense(3), Train()])), "'layers_1' has train=False"),
    "sequential always": (
        lambda: from_linen(nn.Sequential([nn.Dense(3), nn.Dropout(0.5, deterministic=False)])),
        "while it predicts, 'layers_1' has deterministic=False",
    ),
    "remat": (lambda: from_linen(nn.remat(Required)()), r"array of the argument train .*static_argnums=\(2,\)"),
    "jit": (lambda: from_linen(nn.jit(Required)()), r"array of the argument train .*static_argnums=\(2,\)"),
    "remat within": (lambda: from_linen(Lifted("array")), r"array of the argument train .*static_argnums=\(2,\)"),
    "remat by keyword": (lambda: from_linen(Lifted("keyword")), "by keyword: hand it over by place"),
    "frozen nothing": (lambda: from_linen(Train(), frozen=("norm",)), "frozen names 'norm', where nothing has a mode"),
    "linen class attribute": (lambda: from_linen(LinenOfClass()), "the module itself has training=False"),
    "axis": (lambda: from_linen(nn.BatchNorm(axis_name="data")), "leave axis_name out"),
    "nnx axis": (lambda: from_nnx(lambda rngs: nnx.BatchNorm(12, axis_name="data", rngs=rngs)), "leave axis_name out"),
    "bridge": (lambda: from_linen(nnx.bridge.to_linen(NnxPlain)), "with from_nnx"),
    "nnx deaf": (lambda: from_nnx(NnxDeaf), "block 'NnxDeaf': while it trains, 'inner' has train=False"),
    "nnx pinned": (lambda: from_nnx(NnxPinned), r"pass frozen=\('norm',\)"),
    "nnx always": (lambda: from_nnx(NnxAlways), "while it predicts, 'dropout' has deterministic=False"),
    "nnx another name": (lambda: from_nnx(NnxIsTrain), "only with is_train=True"),
    "nnx noise": (lambda: from_nnx(NnxNoise), "draws random numbers in prediction"),
    "nnx jit": (lambda: from_nnx(NnxArray), "array of the argument train: give it static_argnames"),
    "nnx frozen and told": (lambda: from_nnx(NnxTrain, frozen=("norm",)), "'norm' is frozen, but it is called with"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_told_is_refused_at_init(make: Any, message: str) -> None:
    block = make()
    with pytest.raises(TypeError, match=message) as caught:
        jax.eval_shape(lambda key: block.init(key, SPEC), jax.random.key(0))
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"block {block.name!r}: ")


@pytest.mark.parametrize("make", [lambda: from_linen(Train()), lambda: from_nnx(NnxPlain)])
def test_nothing_of_a_trace_outlives_it(make: Any) -> None:
    with jax.checking_leaks():
        assert used(make())[2] > 0


def test_pinned_modes_that_make_no_difference_pass() -> None:
    assert used(from_linen(Harmless()))[0] == 0


@pytest.mark.parametrize(
    ("make", "dropped", "moved"),
    [
        (lambda: from_linen(PinnedNorm(), frozen=("norm",)), True, False),
        (lambda: from_linen(Train(), frozen=("BatchNorm_0",)), True, False),
        (lambda: from_linen(Train(), frozen=("Dropout_0",)), False, True),
        (lambda: from_linen(Train(), frozen=("",)), False, False),
        (lambda: from_linen(StillNorm(), frozen=("",)), False, False),
        (lambda: from_nnx(NnxPinned, frozen=("norm",)), True, False),
        (lambda: from_nnx(NnxPlain, frozen=("norm",)), True, False),
        (lambda: from_nnx(NnxPlain, frozen=("",)), False, False),
    ],
)
def test_what_is_frozen_runs_as_in_prediction(make: Any, dropped: bool, moved: bool) -> None:
    zeros, _, distance, _ = used(make())
    assert (zeros > 0) == dropped and (distance > 0) == moved
