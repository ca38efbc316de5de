"""Whole pipelines drawn at random, each to be compared with the sequential engine: the one home of the strategy."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from localgrad import init
from localgrad.base import Model
from localgrad.blocks import cnn, from_linen, mlp, regroup
from localgrad.methods import METHODS, coarse_to_fine, freeze, layerwise, overlapping
from localgrad.pipeline import signal_of
from localgrad.pipeline.coupling import couples
from localgrad.tasks import Task, classification, multilabel, regression, tokens
from localgrad.testing import check_engines, random_batches

BATCH, MOST = 8, 320  # the sequence of draws is that of MOST examples, however many are asked for
TASKS: dict[str, Callable[[], Task]] = {
    "classification": lambda: classification(3),
    "regression": lambda: regression(2),
    "multilabel": lambda: multilabel(3),
    "tokens": lambda: tokens(4),
}
# Adam's epsilon is large: it divides by the root of a square, and would make a step of the rounding of a zero gradient.
OPTIMIZERS: dict[str, Callable[[float], optax.GradientTransformation]] = {
    "sgd": lambda scale: optax.sgd(0.05 * scale),
    "momentum": lambda scale: optax.sgd(0.02 * scale, momentum=0.9),
    "adam": lambda scale: optax.adam(0.01 * scale, eps=1e-3),
}
NETS = {"mlp": (BATCH, 5), "cnn": (BATCH, 4, 4, 1), "by place": (BATCH, 3, 5)}  # what they read
OPTIONS: dict[str, dict[str, tuple[Any, ...]]] = {
    "al": {"profile": ("neco", "iclr", "iclr_head")},
    "auglocal": {"depth": (1, 2)},
    "dni": {"profile": ("released", "notes")},
    "gim": {"patch": (2,), "steps": (1,), "negatives": (3,)},
    "infopro": {"loss": ("contrast", "softmax")},
    "loco": {"patch": (2,), "steps": (1,), "negatives": (3,)},
    "mixed": {"rule": ("early_exit", "dgl", "scl"), "share": (0.0, 0.3, 1.0)},
    "mono_forward": {"prediction": ("last", "sum")},
    "noprop": {"steps": (2, 3), "hidden": (6,)},
    "predsim": {"beta": (0.01, 0.5, 0.9)},
}
CLASSES_ONLY = ("scl", "predsim", "sim", "infopro", "ff", "simclr", "rotation", "gim", "loco", "mixed")
OF_IMAGES = ("rotation", "gim", "loco", "bp_fc")  # images that are cut or turned, or convolutions that stand still
ONE_LAYER = ("fa", "kp", "usf", "dtp")  # blocks of one dense or convolutional layer
# What is drawn of a batch, and statistics of a norm within a method, are of a shard: shards are no whole batch there.
BY_SHARD = ("scl", "predsim", "sim", "infopro", "ff", "simclr", "gim", "loco", "noprop", "dtp", "dgl", "dni", "cdni")
# Groups that may have an optimizer of their own, and the others of such a block.
BY_GROUP = {
    "al": ("f+b", "g+h"),
    **dict.fromkeys(("dkp", "kp"), ("f+head", "feedback")),
    **dict.fromkeys(("dni", "cdni"), ("f+head", "synthesizer")),
    **dict.fromkeys(("dtp", "direct_tp"), ("f+head", "inverse")),
    "critic": ("f+head", "critic"),
}
METHOD_NAMES = (
    "al", "scl", "early_exit", "dgl", "predsim", "bp", "bp_matched", "dfa", "dkp", "drtp", "fa", "kp",
    "auglocal", "mono_forward", "ff", "noprop", "simclr", "rotation", "gim", "loco", "infopro", "pred", "sim", "bp_fc",
    "deep_supervision", "dni", "cdni", "critic", "dtp", "direct_tp", "usf", "mixed",
)  # fmt: skip
# What becomes of a model of a rule whose blocks wait for nothing, or of one with an f in all blocks.
TRANSFORMS: dict[str, Callable[[Model], Model]] = {
    "none": lambda model: model,
    "layerwise": lambda model: layerwise(model, 1),
    "overlapping": overlapping,
    "coarse": lambda model: coarse_to_fine(model, [(0, 1, 1)]),
    "frozen": lambda model: freeze(model, 1),
}
TRANSFORMED = ("early_exit", "dgl", "scl", "predsim", "pred", "auglocal", "mono_forward", "infopro")


class Drawn(NamedTuple):
    """A pipeline in words and numbers, from which it can be made again.

    Attributes:
      net, widths, norm: of the network; one layer a block before `grouping`.
      grouping: blocks that the layers are grouped in, None for one a layer.
      method, options, optimizer, task: what learns, and what.
      second: the optimizer of a group that `BY_GROUP` names, None for one of all groups.
      transform: a key of `TRANSFORMS`.
      cuts: shares of the way through the blocks at which stages begin.
      shards, per_call, batches: how it is run.
      seed: of batches and parameters.
    """

    net: str
    widths: tuple[int, ...]
    norm: bool
    grouping: int | None
    method: str
    options: dict[str, Any]
    optimizer: str
    second: str | None
    transform: str
    task: str
    cuts: tuple[float, ...]
    shards: int
    per_call: int
    batches: int
    seed: int


@st.composite
def pipelines(draw: st.DrawFn) -> Drawn:
    """A pipeline of a method that takes its network and its task."""
    method = draw(st.sampled_from(METHOD_NAMES))
    layers = draw(st.integers(2, 4))
    options = {name: draw(st.sampled_from(values)) for name, values in OPTIONS.get(method, {}).items()}
    task = draw(st.sampled_from(("classification",) if method in CLASSES_ONLY else tuple(TASKS)))
    image = method in OF_IMAGES
    one = Drawn(
        net="by place" if task == "tokens" else draw(st.sampled_from(("cnn",) if image else ("mlp", "cnn"))),
        widths=tuple(draw(st.lists(st.integers(3, 6), min_size=layers, max_size=layers))),
        norm=draw(st.booleans()),
        grouping=None if method in ONE_LAYER else draw(st.sampled_from((None, 2))),
        method=method,
        options=options,
        optimizer=draw(st.sampled_from(tuple(OPTIMIZERS))),
        second=draw(st.sampled_from((None, *OPTIMIZERS))) if method in BY_GROUP else None,
        transform=draw(st.sampled_from(tuple(TRANSFORMS))) if method in TRANSFORMED else "none",
        task=task,
        cuts=tuple(draw(st.lists(st.floats(0.1, 0.9), min_size=1, max_size=2, unique=True))),
        shards=draw(st.sampled_from((1, 1, 2))),
        per_call=draw(st.integers(1, 3)),
        batches=draw(st.integers(3, 4)),
        seed=draw(st.integers(0, 10**6)),
    )
    assume(not (one.shards == 2 and (one.norm or method in BY_SHARD or options.get("rule") in BY_SHARD)))
    assume(not (one.transform == "coarse" and task != "classification"))
    return one


def model_of(one: Drawn) -> Model:
    """The model of a drawn pipeline, in float64.

    Raises:
      ValueError: if the method refuses the network or the task, with its reason.
    """
    if one.net == "by place":
        network = regroup([from_linen(ByPlace(width, one.norm)) for width in one.widths], one.grouping)
    else:
        network = {"mlp": mlp, "cnn": cnn}[one.net](one.widths, norm=one.norm, blocks=one.grouping)
    spec = jax.ShapeDtypeStruct(NETS[one.net], jnp.float64)
    given = (network, spec, TASKS[one.task]())
    if one.second is None:
        return TRANSFORMS[one.transform](METHODS[one.method](*given, OPTIMIZERS[one.optimizer], **one.options))
    first, second = BY_GROUP[one.method]
    tx = {first: OPTIMIZERS[one.optimizer](1.0), second: OPTIMIZERS[one.second](1.0)}
    return METHODS[one.method].make(*given, tx=tx, **one.options)


class ByPlace(linen.Module):
    """A dense layer on every place of a sequence, perhaps normalised over its features."""

    features: int
    norm: bool

    @linen.compact
    def __call__(self, x):
        x = linen.Dense(self.features)(x)
        return linen.tanh(linen.LayerNorm()(x) if self.norm else x)


def cuts_of(one: Drawn, blocks: int) -> tuple[int, ...]:
    """The first blocks of the stages, and the end."""
    inner = {min(blocks - 1, max(1, round(share * blocks))) for share in one.cuts} if blocks > 1 else set()
    return (0, *sorted(inner), blocks)


def apart(one: Drawn, limit: float = 1e300) -> float | str:
    """The largest difference from the sequential engine on any schedule, or why there is no such pipeline.

    Raises:
      AssertionError: if it is above the limit, naming block and leaf.
    """
    with jax.enable_x64(True):
        try:
            model = model_of(one)
        except ValueError as error:
            return str(error)
        if one.shards > 1 and couples(model):
            return "its blocks compare examples, and shards are no whole batch"
        cuts = cuts_of(one, len(model.blocks))
        fed = random_batches(model, one.batches, one.seed)
        states, whole = init(model, jax.random.key(one.seed)), {"data_parallel": one.shards, "cuts": cuts}
        found = check_engines(
            model, fed, stages=len(cuts) - 1, states=states, per_call=one.per_call, tolerance=limit,
            streamed=signal_of(model) != "none", **whole,
        )  # fmt: skip
    return float(np.float64(found))


def drawn(count: int, first: int = 0) -> list[Drawn]:
    """So many pipelines from the `first` on, the same every time."""
    found: list[Drawn] = []

    @settings(
        max_examples=MOST, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(pipelines())
    def gather(one: Drawn) -> None:
        if one not in found:
            found.append(one)

    gather()
    return found[first : first + count]
