"""Small pictures inside of a page."""

import base64
import struct
import zlib

import numpy as np


def data_address(picture: np.ndarray, white: int = 255) -> str:
    """A picture as the `data:` address of a PNG.

    Args:
      picture: `(H, W)` or `(H, W, C)` of one or three channels; what is not uint8 is scaled from its least number to
        its largest.
      white: of uint8 the number that is shown as white, such as the largest of a whole set that goes to 16 alone.

    Raises:
      ValueError: for another shape.
    """
    if picture.ndim == 2:
        picture = picture[:, :, None]
    if picture.ndim != 3 or picture.shape[2] not in (1, 3):
        raise ValueError(f"a picture is (H, W), (H, W, 1) or (H, W, 3); got {picture.shape}.")
    if picture.dtype != np.uint8:
        low, high = float(np.min(picture)), float(np.max(picture))
        picture = np.round(255 * (picture - low) / ((high - low) or 1.0)).astype(np.uint8)
    elif 0 < white < 255:
        picture = np.minimum(np.round(picture * (255 / white)), 255).astype(np.uint8)
    height, width, channels = picture.shape
    rows = b"".join(b"\0" + row.tobytes() for row in picture)  # each begins with the number of its filter, none
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
