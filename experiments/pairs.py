"""Every network at its thinnest, for checks of all pairs of methods and networks."""

from localgrad.base import Block
from localgrad.blocks import NETWORKS
from localgrad.blocks.deep import VGG

THIN: dict[str, dict] = {
    "mlp": {"widths": (6, 5, 4)},
    "cnn": {"widths": (4, 6, 6), "norm": True, "dropout": 0.1},
    "vanilla_cnn": {"widths": (4,) * 8},
    "convnet": {"widths": (4, 5, 6)},
    "two_conv": {"widths": (4, 4, 6)},
    **{name: {"width_factor": 1 / 32} for name in (*VGG, "resnet18")},
    **{name: {"width_factor": 1 / 8} for name in ("resnet20", "resnet32")},
    "alexnet": {"widths": (4, 4, 6, 6, 6, 8, 8)},
}


def thin(net: str) -> list[Block]:
    """A network of three blocks that compiles in seconds."""
    return NETWORKS[net](**THIN[net], blocks=3)
