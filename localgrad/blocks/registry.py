"""Networks by name, for command lines."""

from collections.abc import Callable

from localgrad.base import Block
from localgrad.blocks.deep import DEEP
from localgrad.blocks.networks import cnn, convnet, mlp, two_conv, vanilla_cnn
from localgrad.blocks.text import bilstm, embedding, transformer

NETWORKS: dict[str, Callable[..., list[Block]]] = {
    "mlp": mlp,
    "cnn": cnn,
    "vanilla_cnn": vanilla_cnn,
    "convnet": convnet,
    "two_conv": two_conv,
    **DEEP,
}
TEXT_NETWORKS: dict[str, Callable[..., list[Block]]] = {
    "embedding": embedding,
    "bilstm": bilstm,
    "transformer": transformer,
}
