"""What the pipeline benchmarks run: networks, methods, and the work of one stage alone."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from localgrad.base import Backward, Batches, Block, BlockState, Forward, LocalBlock, Model, Signal, Spec
from localgrad.blocks import NETWORKS
from localgrad.data import batches
from localgrad.methods import METHODS
from localgrad.pipeline import signal_of, specs
from localgrad.pipeline.specs import signals
from localgrad.pipeline.timing import small

CLASSES = 10


class Network(NamedTuple):
    """A network of a benchmark.

    Attributes:
      title: what tables call it.
      name, options: in `localgrad.blocks.NETWORKS`.
      shape: of a batch of inputs.
      heads: options of each method, by its name.
      methods: that run there besides bp; None is all.
      dtype: of the inputs; whole numbers are those of words.
    """

    title: str
    name: str
    options: dict[str, Any]
    shape: tuple[int, ...]
    heads: dict[str, dict[str, Any]]
    methods: tuple[str, ...] | None = None
    dtype: Any = jnp.float32

    def blocks(self) -> list[Block]:
        return NETWORKS[self.name](**self.options)


POOLED: dict[str, dict[str, Any]] = {
    "al": {"bridge": (), "pool": 256},
    "scl": {"head": "linear", "pool": 256},
    "predsim": {"pool": 256},
    "dgl": {"aux": "hidden", "pool": 256},
    "dkp": {"form": "broadcast"},
}
TEXTS: dict[str, dict[str, Any]] = {"al": {"bridge": ()}, "scl": {"head": "linear"}, "dgl": {"aux": "hidden"}}
WORDS = 5000
MODELS = {
    "mlp": Network(
        "MLP, 8 x 1024, batch 1024",
        "mlp",
        {"widths": (1024,) * 8},
        (1024, 1024),
        {"al": {"bridge": ()}, "scl": {"head": "linear"}, "dgl": {"aux": "hidden"}},
    ),
    "long": Network(
        "MLP, 8 x 1024, batch 4096: long ticks",
        "mlp",
        {"widths": (1024,) * 8},
        (4096, 1024),
        {"al": {"bridge": ()}, "dgl": {"aux": "hidden"}},
        methods=("al", "dgl", "dkp"),
    ),
    "cnn": Network(
        "CNN, 4 x 32 and 4 x 64 channels, 32 x 32 images, batch 32",
        "cnn",
        {"widths": (32,) * 4 + (64,) * 4},
        (32, 32, 32, 3),
        POOLED,
    ),
    "heavy": Network(
        "the same CNN, heads on whole images",
        "cnn",
        {"widths": (32,) * 4 + (64,) * 4},
        (32, 32, 32, 3),
        {"scl": {}, "dgl": {"aux": "cnn"}},
        methods=("scl", "dgl"),
    ),
    "bilstm": Network(
        "BiLSTM, 4 layers of 128 and 128 units, 32 words, batch 64",
        "bilstm",
        {"words": WORDS, "embed_width": 128, "widths": (128,) * 4},
        (64, 32),
        TEXTS,
        dtype=jnp.int32,
    ),
    "transformer": Network(
        "Transformer, 4 encoder layers of 128, 4 heads, hidden 512, 64 words, batch 32",
        "transformer",
        {"words": WORDS, "layers": 4, "width": 128, "feed_forward": 512, "heads": 4},
        (32, 64),
        TEXTS,
        dtype=jnp.int32,
    ),
}
SMOKE = {
    "mlp": MODELS["mlp"]._replace(options={"widths": (16,) * 4}, shape=(8, 16)),
    "long": MODELS["long"]._replace(options={"widths": (16,) * 4}, shape=(16, 16)),
    "cnn": MODELS["cnn"]._replace(options={"widths": (4, 4, 6, 6)}, shape=(8, 8, 8, 3)),
    "heavy": MODELS["heavy"]._replace(options={"widths": (4, 4, 6, 6)}, shape=(8, 8, 8, 3)),
    "bilstm": MODELS["bilstm"]._replace(options={"words": 9, "embed_width": 4, "widths": (4,) * 4}, shape=(8, 5)),
    "transformer": MODELS["transformer"]._replace(
        options={"words": 9, "layers": 2, "width": 8, "feed_forward": 8, "heads": 2}, shape=(8, 5)
    ),
}


def make_model(network: Network, method: str) -> Model:
    """A method on a network of a benchmark, with Adam."""
    return METHODS[method](
        network.blocks(),
        jax.ShapeDtypeStruct(network.shape, network.dtype),
        CLASSES,
        lambda scale: optax.adam(1e-3 * scale),
        **network.heads.get(method, {}),
    )


def examples(model: Model, count: int) -> Batches:
    """Random batches of a model of a benchmark; texts are all of full length."""
    rng = np.random.default_rng(0)
    shape = (count, *model.x_spec.shape)
    if jnp.issubdtype(model.x_spec.dtype, jnp.floating):
        xs = rng.standard_normal(shape, np.float32)
    else:
        xs = rng.integers(1, SMOKE["bilstm"].options["words"], shape, np.int32)
    ys = rng.integers(0, model.task.classes, (count, model.batch_size), np.int32)
    return batches(jnp.asarray(xs), jnp.asarray(ys))


def stage_model(model: Model, cuts: Sequence[int], stage: int, parts: int = 1) -> Model:
    """The blocks of a stage as a model of their own: its work, and nothing that travels.

    Its messages and, where its blocks wait for one, its signal are constants of the right shapes.

    Args:
      model: any model.
      cuts: block indices at which stages begin and end.
      stage: which of them, from 0.
      parts: into how many micro-batches a batch is cut.
    """
    first, last = cuts[stage : stage + 2]
    states, messages = specs(model, 1, parts)
    blocks, effective = model.blocks[first:last], model.effective[first:last]
    if last < len(model.blocks) and signal_of(model) != "none":
        blocks += (_above(signal_of(model), signals(model, states, messages)[last - 1]),)
        effective += (frozenset(),)
    return model._replace(blocks=blocks, effective=effective, enter=lambda x, y: small(messages[first]))


def _above(signal: Signal, spec: Spec) -> LocalBlock:
    """A block that does nothing but hand down a signal."""
    nothing = lambda state, stash, signal: Backward({}, {"loss": jnp.zeros(())}, small(spec))
    chained = signal == "above"
    return LocalBlock(
        name="above",
        signal="above" if chained else "none",
        init=lambda key, message: BlockState({}, {}, {}),
        forward=lambda state, message, key: Forward(message, {}, down=None if chained else small(spec)),
        tx={},
        backward=nothing if chained else None,
    )
