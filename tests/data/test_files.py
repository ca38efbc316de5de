"""Sets of one's own out of files: folders of pictures, and CSV tables."""

import numpy as np
import pytest
from PIL import Image

from localgrad import data, multilabel, regression, tokens


def draw(folder, name, value, size=(4, 3), mode="L"):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(folder / name)


@pytest.fixture
def pictures(tmp_path):
    """Two classes of grey pictures, 4 wide and 3 high."""
    draw(tmp_path / "cat", "a.png", 10)
    draw(tmp_path / "cat" / "deep", "b.png", 20)
    draw(tmp_path / "ant", "c.bmp", 30)
    (tmp_path / "ant" / "notes.txt").write_text("")
    return tmp_path


def test_a_folder_a_class(pictures):
    found = data.image_folder(pictures)
    assert found.label_names == ("ant", "cat") and found.classes == 2
    assert found.inputs.shape == (3, 3, 4, 1) and found.inputs.dtype == np.uint8
    assert found.inputs[:, 0, 0, 0].tolist() == [30, 10, 20] and found.labels.tolist() == [0, 1, 1]
    assert data.image_folder(pictures, shape=(6, 5, 3)).inputs.shape == (3, 6, 5, 3)
    assert data.image_folder(pictures, label_names=("cat", "dog", "ant")).labels.tolist() == [2, 0, 0]


def test_what_a_folder_cannot_be(pictures, tmp_path):
    with pytest.raises(ValueError, match="a folder 'cat', which is no class; there are ant, bee"):
        data.image_folder(pictures, label_names=("ant", "bee"))
    draw(pictures / "cat", "d.png", 1, size=(5, 5))
    with pytest.raises(ValueError, match=r"d.png is \(5, 5, 1\): say to which shape"):
        data.image_folder(pictures)
    (pictures / "ant" / "e.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="e.jpg: cannot be read"):
        data.image_folder(pictures, shape=(2, 2, 1))
    with pytest.raises(FileNotFoundError, match="is no folder"):
        data.image_folder(tmp_path / "none")
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(ValueError, match="no folders with pictures"):
        data.image_folder(tmp_path / "empty")


def csv(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text)
    return path


def test_a_table_with_and_without_a_header(tmp_path):
    found = data.csv_file(csv(tmp_path, "a,label,b\n1,yes,2\n3,no,4.5\n\n5,yes,6\n"))
    assert found.columns == ("a", "b") and found.label_names == ("no", "yes")
    assert found.inputs.tolist() == [[1, 2], [3, 4.5], [5, 6]] and found.labels.tolist() == [1, 0, 1]
    plain = data.csv_file(csv(tmp_path, "1,2,10\n3,4,9\n"))
    assert plain.columns == ("1", "2") and plain.label_names == ("9", "10") and plain.labels.tolist() == [1, 0]
    numbers = data.csv_file(csv(tmp_path, "a,y\n1,0.5\n2,0.25\n"), task=regression(1))
    assert numbers.labels.tolist() == [[0.5], [0.25]] and numbers.label_names is None
    chosen = data.csv_file(csv(tmp_path, "a,b\n1,0\n2,1\n"), label="a", label_names=("2", "1"))
    assert chosen.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "more", "says"),
    [
        ("a,b\n1,2,3\n", {}, "line 2: 3 cells; expected 2"),
        ("a,b\n", {}, "has no rows"),
        ("", {}, "has no rows"),
        ("a,y\n1,0\nred,1\n", {}, "row 2, column a: 'red'; expected a finite number"),
        ("a,y\nnan,0\n2,1\n", {}, "row 1, column a: 'nan'"),
        ("a,y\n1,0\n2,1\n", {"label": "z"}, "has no column 'z'; it has a, y"),
        ("a,a,y\n1,2,0\n", {}, "two columns 'a': give each a name of its own"),
        ("a,label,target\n1,2,0\n", {}, "is label or target the label\\? Name it"),
        ("a,y\n1,0\n2,\n", {}, "row 2: column y is empty; expected a label"),
        ("a,y\n1_000,0\n2,1\n", {}, "row 1, column a: '1_000'; expected a finite number"),
        ("0,1,2\n1,2,0\n", {}, "if that is a header, give names that are no numbers"),
        ("a,y\n1,0\n2,5\n", {"label_names": ("0", "1")}, "row 2: the label '5' is no class; there are 0, 1"),
    ],
)
def test_what_a_table_cannot_be(text, more, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        data.csv_file(csv(tmp_path, text), **more)


@pytest.mark.parametrize(
    ("text", "columns", "rows"),
    [
        ("-2.5,-3.1,a\n1,2,b\n3,4,a\n", ("1", "2"), 3),  # no header: `a` is there again
        ("a,b,kind\n1,2,x\n3,4,y\n", ("a", "b"), 2),
        ("0,1,2,kind\n1,2,3,x\n3,4,5,y\n", ("0", "1", "2"), 2),  # as pandas names columns
        ("2019,2020,kind\n1,2,3\n3,4,5\n", ("2019", "2020"), 2),
        ("2019,2020,kind\n1,2,x\n3,4,y\n", ("2019", "2020"), 2),
        ("\ufeffa,b,kind\n1,2,x\n3,4,y\n", ("a", "b"), 2),  # as Excel writes UTF-8
        ("\ufeff1,2,0\n3,4,1\n", ("1", "2"), 2),
    ],
)
def test_which_line_is_a_header(text, columns, rows, tmp_path):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    found = data.csv_file(tmp_path / "a.csv")
    assert found.columns == columns and len(found.inputs) == rows


@pytest.mark.parametrize("task", [regression(2), multilabel(3), multilabel(1), tokens(4)])
def test_a_file_has_one_column_of_targets(task, tmp_path):
    with pytest.raises(ValueError, match=f"one column of targets.* model is for {task.name} of {task.outputs}: give a"):
        data.csv_file(csv(tmp_path, "a,b,y\n1,2,0\n3,4,1\n"), task=task)


@pytest.mark.parametrize(
    ("text", "more", "says"),
    [
        ("a,y,b\n1,u,2\n3,v,4\n", {}, "inputs are 2 columns, a, b; the label is 'y', by its usual name."),
        ("a,b,c\n1,2,u\n3,4,v\n", {}, "inputs are 2 columns, a, b; the label is 'c', the last column."),
        ("a,b,y\n1,2,3\n3,4,5\n", {"label": "a"}, "inputs are 2 columns, b, y; the label is 'a', as fields say."),
        ("5,2,3\n3,4,5\n", {"task": regression(1)}, "inputs are 2 columns, 1, 2; the target is '3', the last column."),
        (
            "id,a,y\n1,5,u\n2,4,v\n3,6,u\n",
            {},
            "inputs are 2 columns, id, a; the label is 'y', by its usual name. 'id' numbers the rows: if it means "
            "nothing, leave it out of the file.",
        ),
        (
            ",".join([*(f"x{i}" for i in range(20)), "y"]) + "\n" + ",".join("4" * 21) + "\n",
            {},
            "inputs are 20 columns, x0, x1, x2, x3, x4, x5, x6, x7, ..., x19; the label is 'y', by its usual name.",
        ),
    ],
)
def test_a_table_says_which_column_is_what(text, more, says, tmp_path):
    assert data.csv_file(csv(tmp_path, text), **more).notes == (f"table.csv: {says}",)


@pytest.mark.parametrize("mode", ["I;16", "I", "RGB"])
def test_pictures_of_sixteen_bits_are_not_cut_off(mode, tmp_path):
    wide = np.arange(16, dtype=np.uint16).reshape(4, 4) * 4096
    if mode == "RGB":
        Image.fromarray(np.stack([wide >> 8] * 3, -1).astype(np.uint8)).save(tmp_path / "a.tif")
    else:
        Image.fromarray(wide if mode == "I;16" else wide.astype(np.int32)).save(tmp_path / "a.tif")
    found = data.read_image(tmp_path / "a.tif", (4, 4, 1))
    np.testing.assert_array_equal(found[..., 0], wide >> 8)


def test_a_picture_is_upright_as_its_camera_says(tmp_path):
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the top of what is stored is the right side of what was seen
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(data.read_image(tmp_path / "a.png")[..., 0], np.rot90(pixels, -1))


@pytest.mark.parametrize("pixels", [np.full((2, 2), 0.5, np.float32), np.full((2, 2), -3, np.int32)])
def test_pictures_of_other_numbers_are_refused(pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="grey values of another kind than 8 or 16 bits"):
        data.read_image(tmp_path / "a.tif")


def test_hidden_folders_hold_no_examples(pictures):
    before = len(data.image_folder(pictures, shape=(4, 4, 1)).inputs)
    some = next(pictures.rglob("*.png"))
    (some.parent / ".ipynb_checkpoints").mkdir()
    (some.parent / ".ipynb_checkpoints" / some.name).write_bytes(some.read_bytes())
    assert len(data.image_folder(pictures, shape=(4, 4, 1)).inputs) == before
