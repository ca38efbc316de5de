"""One picture of Pillow as bytes: its mode, the ground of what is transparent, and values of more than 8 bits."""

from collections.abc import Sequence
from typing import Any

import numpy as np

_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
_NUMBERS = ("L", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F")  # modes whose array is their numbers
_SAME = {"1": "L", "La": "LA", "RGBX": "RGB", "RGBa": "RGBA"}  # others, and modes that hold the same
_TRANSPARENT = ("LA", "PA", "RGBA")
_HALVED = ("RGB;16", "RGBX;16", "RGBA;16", "LA;16")  # of 16 bits in the file, of which Pillow keeps the upper 8
WHITE = 1 << 14  # of 16 bits, where none is as large: 8, 10, 12 and 14 bits are often stored in 16


def mode_of(shape: Sequence[int]) -> str:
    """The mode of pictures of a shape.

    Raises:
      ValueError: it is not (H, W, C), or no file of a picture has C channels.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape={tuple(shape)} of pictures; expected (H, W, C), each at least 1.")
    if shape[2] not in _CHANNELS:
        raise ValueError(
            f"pictures of {shape[2]} channels, {tuple(shape)}, are not read from files, which have 1 (grey), 3 "
            "(colours) or 4 (with transparency): read them yourself, and give arrays."
        )
    return _CHANNELS[shape[2]]


def picture_array(picture: Any) -> np.ndarray:
    """The numbers of a picture of Pillow, as a loader gives it: `(H, W)`, or `(H, W, C)`.

    Grey and coloured pictures are what `np.asarray` makes of them. Of a palette that would be the numbers of its
    colours, and of black and white booleans: these become the bytes that one sees.

    Args:
      picture: what has a `mode`, and can be converted to another.

    Raises:
      ValueError: its mode is of no numbers.
    """
    if picture.mode in ("P", "PA"):
        picture = on_white(picture, "a picture").convert("L" if is_grey(picture) else "RGB")
    elif picture.mode in _SAME:
        picture = picture.convert(_SAME[picture.mode])
    if picture.mode not in _NUMBERS and not picture.mode.startswith("I;16"):
        raise ValueError(f"a picture of the mode {picture.mode} is no array of numbers: give picture.convert('RGB').")
    return np.asarray(picture)


def is_grey(picture: Any) -> bool:
    """Whether a picture, or the palette of one, has no colours."""
    if picture.mode in ("P", "PA"):
        colours = np.asarray(picture.getpalette("RGB")).reshape(-1, 3)
        return bool((colours == colours[:, :1]).all())
    return picture.mode in ("1", "L", "LA")


def on_white(picture: Any, what: str) -> Any:
    """A picture as it looks on white paper; one that nothing shines through is left as it is.

    Args:
      picture: any, of 8 bits.
      what: what it is, for messages.

    Raises:
      ValueError: nothing of it is seen on white, as of white letters.
    """
    from PIL import Image

    if picture.mode not in _TRANSPARENT and "transparency" not in picture.info:
        return picture
    layer = picture.convert("RGBA")
    ground = Image.new("RGBA", layer.size, "white")
    ground.alpha_composite(layer)
    drawn = np.ptp(np.asarray(layer), axis=(0, 1)).any()
    if drawn and np.asarray(ground).min() == 255:
        raise ValueError(
            f"{what} is transparent, and white is all that is seen of it on a white ground: put it on a ground of "
            "another colour, or read it with its transparency, C=4."
        )
    return ground.convert("RGB")


def eight_bits(path: Any, opened: Any) -> tuple[Any, int | None]:
    """A picture of 8 bits, upright, and what none of its values was above if they had 16; None where they had 8.

    Args:
      path: what it was opened from, for messages.
      opened: what `Image.open` gave, not loaded.

    Returns:
      The picture, of the upper half of each 16 bits; and the largest value, of colours at most 255 too large: of them
      Pillow does not say the lower half.

    Raises:
      ValueError: it holds numbers that are not of 8 or 16 bits.
    """
    from PIL import Image, ImageOps

    halved = any(_raw_mode(tile).startswith(_HALVED) for tile in opened.tile)
    image = ImageOps.exif_transpose(opened)
    if halved:
        seen = image.convert("RGB") if image.mode != "LA" else image.getchannel("L")
        return image, 256 * int(np.asarray(seen).max()) + 255
    if image.mode != "F" and not image.mode.startswith("I"):
        return image, None
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError(
            f"{path} holds grey values of another kind than 8 or 16 bits, from {values.min()} to {values.max()}: read "
            "it yourself, and give arrays."
        )
    found = Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))
    clear = image.info.get("transparency")
    if clear is not None:  # the value that is not drawn
        found.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return found, int(values.max())


def check_white(largest: int | None, what: str) -> None:
    """Refuses pictures of 16 bits that only have small values: as bytes they would be black, or almost.

    Args:
      largest: what none of the values is above, of one picture or of all that belong together; None of 8 bits.
      what: what they are of, for messages.

    Raises:
      ValueError: with that value.
    """
    if largest is None or largest >= WHITE or largest == 0:  # black is black on any scale
        return
    raise ValueError(
        f"{what} has 16 bits a value, and none is above {largest}: whether white is 255, 4095 or 65535 cannot be told, "
        "and as 65535 it would be all but black. Save with 8 bits, or read it yourself and give arrays."
    )


def _raw_mode(tile: Any) -> str:
    """How a file stores the values of a part of a picture, such as `RGB;16B`; tile is Pillow's tuple of it."""
    raw = tile[3] if len(tile) > 3 else ""
    raw = raw[0] if isinstance(raw, tuple) and raw else raw
    return raw if isinstance(raw, str) else ""
