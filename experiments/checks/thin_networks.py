"""Every network at its thinnest, and the engines that must agree: for checks of all pairs of methods and networks."""

from localgrad.base import Block, Engine, Model
from localgrad.blocks import NETWORKS
from localgrad.blocks.deep import VGG
from localgrad.pipeline import delays_of, sequential, signal_of, spmd

THIN: dict[str, dict] = {
    "mlp": {"widths": (6, 5, 4)},
    "cnn": {"widths": (4, 6, 6), "norm": True, "dropout": 0.1},
    "vanilla_cnn": {"widths": (4,) * 8},
    "convnet": {"widths": (4, 5, 6)},
    "two_conv": {"widths": (4, 4, 6)},
    "basic_cnn": {"widths": (4, 5, 6)},
    **{name: {"width_factor": 1 / 32} for name in (*VGG, "resnet18")},
    "vgg19": {"width_factor": 1 / 16},
    **{name: {"width_factor": 1 / 8} for name in ("resnet20", "resnet32")},
    "alexnet": {"widths": (4, 4, 6, 6, 6, 8, 8)},
}

# Rows and columns of an image.  The last four layers of vgg19 see one of 16 as a single place, so that their batch norm
# has a number an example, and amplify the last bit several times as much as where they see four places.
IMAGE, LARGER_IMAGES = 16, {"vgg19": 32}


# Options of methods whose defaults make many blocks.
FEW: dict[str, dict] = {"noprop": {"steps": 3}}


def thin(net: str, *, fine: bool = False) -> list[Block]:
    """A network of three blocks, or of one a layer, that compiles in seconds."""
    return NETWORKS[net](**THIN[net], blocks=None if fine else 3)


def engines(model: Model, stages: int) -> list[tuple[Engine, Engine]]:
    """Pairs of a sequential engine and a pipeline that give the same numbers; bubbles are full of NaN.

    Methods that wait for the error at the output have two: locked, and with delays.  Backpropagation runs with the
    whole batch as one micro-batch, so that batch norm and dropout see the same examples.
    """
    pipeline = lambda **options: spmd(model, stages=stages, bubble=float("nan"), **options)
    signal = signal_of(model)
    if signal in ("top", "next"):
        delayed = pipeline()
        late = sequential(model, delays_of(delayed.plan.cuts, signal))
        return [(sequential(model), pipeline(staleness="locked")), (late, delayed)]
    return [(sequential(model), pipeline(micro_batches=1) if signal == "above" else pipeline())]
