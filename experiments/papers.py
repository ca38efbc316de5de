"""Networks as the papers trained them, shared by the studies: fields of `Config`."""

from typing import Any

# NECO's convolutional network, in pairs; ICLR's CNN is the same
AL_CNN: dict[str, Any] = {"net": "vanilla_cnn", "blocks": (2, 2, 2, 2), "target_width": 256}
# and their VGG: {128, 256, pool}, {256, 512, pool}, {512, pool, 512, pool}, {dense 1024, dense 1024}
AL_VGG: dict[str, Any] = {
    "net": "vgg8b", "net_options": ("pool=after", "dense=(1024, 1024)"), "activation": "elu", "blocks": (2, 2, 2, 2),
    "target_width": 300,
}  # fmt: skip
