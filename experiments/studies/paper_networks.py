"""Networks as the papers trained them, shared by the studies: fields of `Config`."""

from typing import Any

# NECO's convolutional network, in pairs; ICLR's CNN is the same
AL_CNN: dict[str, Any] = {"net": "vanilla_cnn", "blocks": (2, 2, 2, 2), "target_width": 256}
# and their VGG: {128, 256, pool}, {256, 512, pool}, {512, pool, 512, pool}, {dense 1024, dense 1024}
AL_VGG: dict[str, Any] = {
    "net": "vgg8b", "net_options": ("pool=after", "dense=(1024, 1024)"), "activation": "elu", "blocks": (2, 2, 2, 2),
    "target_width": 300,
}  # fmt: skip
# and its residual networks, a stem and one block a stage
NECO_RESNET: dict[str, dict[str, Any]] = {
    net: {
        "net": net, "net_options": ("form=neco",), "blocks": (1, count, count, count), "learning_rate": 1e-3,
        "target_width": 300,
    }
    for net, count in (("resnet20", 3), ("resnet32", 5))
}  # fmt: skip


def baseline(shape: dict[str, Any]) -> dict[str, Any]:
    """The network that NECO's code trains by backpropagation beside a network of Associated Learning.

    It has ReLU, also in the dense layers that it is deepened by, and a residual network of it ends in a mean over
    space.  ICLR's images are trained by a modified form of that code (its section 6.6).
    """
    pooled = {"net_options": (*shape.get("net_options", ()), "mean=True")} if "resnet" in shape["net"] else {}
    return {**shape, **pooled, "method": "bp_matched", "activation": "relu"}
