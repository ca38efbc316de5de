"""Networks by name, for command lines: one row each."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from localgrad import registry
from localgrad.base import Block
from localgrad.blocks.deep import DEEP
from localgrad.blocks.networks import basic_cnn, cnn, convnet, mlp, two_conv, vanilla_cnn
from localgrad.blocks.text import bilstm, embedding, transformer


class Network(NamedTuple):
    """A network by name.

    Attributes:
      make: `(**options) -> blocks`; whatever it takes by name can be set from the command line.
      reads: what its first block is given: images (or any other numbers), or texts as token ids.
    """

    make: Callable[..., list[Block]]
    reads: Literal["images", "texts"] = "images"

    def __call__(self, **options) -> list[Block]:
        return self.make(**options)


NETWORKS = registry.Table(
    Network,
    "register_network",
    {
        "mlp": Network(mlp),
        "cnn": Network(cnn),
        "vanilla_cnn": Network(vanilla_cnn),
        "convnet": Network(convnet),
        "two_conv": Network(two_conv),
        "basic_cnn": Network(basic_cnn),
        **{name: Network(make) for name, make in DEEP.items()},
        "embedding": Network(embedding, "texts"),
        "bilstm": Network(bilstm, "texts"),
        "transformer": Network(transformer, "texts"),
    },
)


def networks_of(reads: str) -> tuple[str, ...]:
    """The names of the networks that read images, or texts."""
    return tuple(name for name, network in NETWORKS.items() if network.reads == reads)


def register_network(
    name: str, make: Callable[..., list[Block]], *, reads: Literal["images", "texts"] = "images"
) -> None:
    """Adds a network, for `--net=NAME` and `NETWORKS`.

    Args:
      name: a word.
      make, reads: see `Network`.  Of texts, `make` also takes `words`, the size of the vocabulary, `dtype` and
        `buckets`, the lengths that batches may have.

    Raises:
      ValueError: a name that is no word, or that another network has.
    """
    registry.add("network", NETWORKS, name, Network(make, reads))
