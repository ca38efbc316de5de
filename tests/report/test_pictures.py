"""Pictures inside of a page are PNG files of the very numbers."""

import base64
import io

import matplotlib.image
import numpy as np
import pytest

from localgrad.report.pictures import data_address


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1), (4, 2, 3)])
def test_a_reader_of_png_gives_the_picture_back(shape):
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    head, _, content = data_address(picture).partition(",")
    assert head == "data:image/png;base64"
    found = matplotlib.image.imread(io.BytesIO(base64.b64decode(content)))
    np.testing.assert_array_equal(np.round(255 * found), picture[..., 0] if shape[2:] == (1,) else picture)


def test_bytes_that_go_to_sixteen_are_no_black_picture():
    dim = np.array([[0, 4], [8, 16]], np.uint8)
    assert data_address(dim, 16) == data_address(np.array([[0, 64], [128, 255]], np.uint8))
    assert data_address(dim, 0) == data_address(dim)


def test_floats_are_scaled_and_other_shapes_refused():
    assert data_address(np.array([[0.0, 0.5], [1.0, 1.0]])) == data_address(np.array([[0, 128], [255, 255]], np.uint8))
    with pytest.raises(ValueError, match=r"got \(2, 2, 7\)"):
        data_address(np.zeros((2, 2, 7)))
