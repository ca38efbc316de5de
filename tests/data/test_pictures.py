"""One picture: palettes, transparency, values of 16 bits."""

import numpy as np
import pytest
from PIL import Image

from localgrad.data import read_image
from localgrad.data.pictures import picture_array

INK = np.zeros((4, 4), np.uint8)
INK[1:3, 1:3] = 255  # where something is drawn


def drawing(mode, ink=0):
    """A square of one brightness on a transparent ground, which is stored as black."""
    grey = np.where(INK > 0, ink, 0).astype(np.uint8)
    if mode == "P":
        picture = Image.fromarray(np.where(INK > 0, 1, 0).astype(np.uint8), "L")
        picture.putpalette([0, 0, 0, ink, ink, ink])
        return picture
    return Image.fromarray(np.dstack([grey] * (len(mode) - 1) + [INK]))


def save(picture, path):
    more = {"transparency": 0} if picture.mode == "P" else {}
    picture.save(path, **more)
    return path


# Transparency


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("channels", [1, 3, None])
def test_what_is_transparent_is_white_paper(mode, channels, tmp_path):
    path = save(drawing(mode), tmp_path / "a.png")
    found = read_image(path, None if channels is None else (4, 4, channels))
    assert found.shape[2] == (channels or (3 if mode == "RGBA" else 1))
    for channel in np.moveaxis(found, 2, 0):
        np.testing.assert_array_equal(channel, 255 - INK)


def test_half_of_it_shines_through(tmp_path):
    Image.fromarray(np.dstack([INK * 0, np.full((4, 4), 51, np.uint8)])).save(tmp_path / "a.png")
    assert set(read_image(tmp_path / "a.png", (4, 4, 1)).ravel()) == {204}


def test_a_network_with_transparency_gets_it(tmp_path):
    path = save(drawing("RGBA", 7), tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(path, (4, 4, 4)), np.asarray(drawing("RGBA", 7)))


def test_opaque_pictures_are_as_they_were(tmp_path):
    pixels = np.arange(64, dtype=np.uint8).reshape(4, 4, 4)
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels[..., :3])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_white_on_white_is_refused(mode, tmp_path):
    path = save(drawing(mode, 255), tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a.png is transparent, and white is all that is seen.*another colour"):
        read_image(path, (4, 4, 1))
    if mode == "RGBA":
        assert read_image(path, (4, 4, 4))[..., 3].max() == 255


def test_an_empty_picture_is_white(tmp_path):
    Image.new("RGBA", (2, 2)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").min() == 255


def test_the_transparent_value_of_sixteen_bits(tmp_path):
    wide = np.array([[0, 40000], [50000, 0]], np.uint16)
    Image.fromarray(wide).save(tmp_path / "a.png", transparency=0)
    expected = [[255, 40000 >> 8], [50000 >> 8, 255]]
    assert read_image(tmp_path / "a.png", (2, 2, 1))[..., 0].tolist() == expected


# Sixteen bits


def wide(largest):
    return (np.arange(16, dtype=np.float64).reshape(4, 4) * largest / 15).astype(np.uint16)


def big_endian(pixels, path):
    """A grey TIFF as instruments write it: Pillow opens it as I;16B."""
    Image.frombytes("I;16B", pixels.shape[::-1], pixels.astype(">u2").tobytes()).save(path)
    with Image.open(path) as picture:
        assert picture.mode == "I;16B"


def write(kind, pixels, folder, name="a"):
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.{'png' if kind == 'png' else 'tif'}"
    if kind == "I;16B":
        big_endian(pixels, path)
    else:
        Image.fromarray(pixels.astype(np.int32) if kind == "I" else pixels).save(path)
    return path


@pytest.mark.parametrize("kind", ["png", "tif", "I", "I;16B"])
def test_full_range_keeps_its_upper_half(kind, tmp_path):
    found = read_image(write(kind, wide(65535), tmp_path), (4, 4, 1))
    np.testing.assert_array_equal(found[..., 0], wide(65535) >> 8)


@pytest.mark.parametrize("kind", ["png", "tif", "I", "I;16B"])
@pytest.mark.parametrize("largest", [255, 4095, 16383])
def test_small_values_of_sixteen_bits_are_refused(kind, largest, tmp_path):
    with pytest.raises(ValueError, match=rf"a\.\w+ has 16 bits a value, and none is above {largest}.*Save with 8 bits"):
        read_image(write(kind, wide(largest), tmp_path))


def test_black_of_sixteen_bits_is_black(tmp_path):
    assert not read_image(write("png", wide(0), tmp_path)).any()


def colours_of_sixteen_bits(path, largest):
    """A PNG of RGB with 16 bits a channel, which Pillow reads and does not write."""
    import struct
    import zlib

    rows = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in wide(largest))
    part = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    head = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
    )
    return path


def test_colours_of_sixteen_bits_too(tmp_path):
    found = read_image(colours_of_sixteen_bits(tmp_path / "a.png", 65535))
    np.testing.assert_array_equal(found, np.stack([wide(65535) >> 8] * 3, -1))
    for largest in (255, 4095):
        with pytest.raises(ValueError, match=f"16 bits a value, and none is above {largest}"):
            read_image(colours_of_sixteen_bits(tmp_path / "b.png", largest))


# Shapes


def test_channels_that_no_file_has_are_told(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"pictures of 2 channels, \(4, 4, 2\), are not read from files.*give arrays"):
        read_image(tmp_path / "a.png", (4, 4, 2))
    for shape in ((4, 4), (4, 0, 1)):
        with pytest.raises(ValueError, match=r"expected \(H, W, C\), each at least 1"):
            read_image(tmp_path / "a.png", shape)


# Pictures of Pillow


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "CMYK", "HSV", "YCbCr", "F", "I", "I;16"])
def test_numbers_of_a_picture_are_those_of_numpy(mode):
    picture = Image.new(mode, (3, 2), 7 if len(Image.new(mode, (1, 1)).getbands()) == 1 else None)
    np.testing.assert_array_equal(picture_array(picture), np.asarray(picture))


def test_a_palette_gives_its_colours():
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "L")
    picture.putpalette([9, 9, 9, 250, 0, 3, 1, 2, 3])
    assert picture_array(picture).tolist() == [[[9, 9, 9], [250, 0, 3], [1, 2, 3]]]
    picture.putpalette([9, 9, 9, 250, 250, 250, 1, 1, 1])
    assert picture_array(picture).tolist() == [[9, 250, 1]] and picture_array(picture).dtype == np.uint8


def test_a_transparent_palette_is_on_white():
    picture = drawing("P")
    picture.info["transparency"] = 0
    np.testing.assert_array_equal(picture_array(picture), 255 - INK)


def test_black_and_white_are_bytes():
    picture = Image.fromarray(INK).convert("1")
    assert np.asarray(picture).dtype == np.bool_
    np.testing.assert_array_equal(picture_array(picture), INK)


@pytest.mark.parametrize(("mode", "same"), [("RGBX", "RGB"), ("RGBa", "RGBA"), ("La", "LA")])
def test_modes_that_hold_the_same(mode, same):
    picture = Image.new(same, (2, 2), (10, 20, 30, 255)[: len(same)] if same != "LA" else (10, 255))
    np.testing.assert_array_equal(picture_array(picture.convert(mode)), np.asarray(picture))


def test_a_mode_of_no_numbers_is_refused():
    class Other:
        mode = "BGR;15"

        def convert(self, mode):
            raise AssertionError

    with pytest.raises(ValueError, match="the mode BGR;15 is no array of numbers"):
        picture_array(Other())
