"""Folders of pictures: how classes are numbered, and what is no class and no picture."""

import numpy as np
import pytest
from PIL import Image

import localgrad as lg
from localgrad import data

from ..training import own


def draw(path, value=10, size=(4, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


# How classes are numbered


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["10", "0", "2", "1", "11"], ("0", "1", "2", "10", "11")),
        (["b", "10", "a", "9"], ("9", "10", "a", "b")),
        (["nan", "inf", "a", "2"], ("2", "a", "inf", "nan")),
    ],
)
def test_numbers_are_numbered_by_number(names, ordered, tmp_path):
    for i, name in enumerate(names):
        draw(tmp_path / name / "a.png", value=i)
    found = data.image_folder(tmp_path)
    assert found.label_names == ordered
    assert [names[value] for value in found.inputs[:, 0, 0, 0]] == [ordered[label] for label in found.labels]


def test_folders_are_numbered_as_the_labels_of_a_csv_file_are(tmp_path):
    names = ["10", "2", "-1", "1.5", "b", "A", "07"]
    for name in names:
        draw(tmp_path / "pictures" / name / "a.png")
    (tmp_path / "a.csv").write_text("a,label\n" + "".join(f"1,{name}\n" for name in names))
    assert data.image_folder(tmp_path / "pictures").label_names == data.csv_file(tmp_path / "a.csv").label_names


# What is no class


@pytest.mark.parametrize("splits", [["train", "val"], ["Training", "testing"], ["train", "valid", "test"], ["train"]])
def test_splits_are_no_classes(splits, tmp_path):
    for split in splits:
        draw(tmp_path / "data" / split / "cat" / "a.png")
        draw(tmp_path / "data" / split / "dog" / "a.png")
    (tmp_path / "data" / "__MACOSX").mkdir()
    with pytest.raises(ValueError, match=rf"which are splits and no classes: give .*data/{splits[0]}"):
        data.image_folder(tmp_path / "data")
    with pytest.raises(ValueError, match="which are splits and no classes"):
        data.image_folder(tmp_path / "data", label_names=("cat", "dog"))
    assert data.image_folder(tmp_path / "data" / splits[0]).label_names == ("cat", "dog")


def test_splits_are_refused_by_fit(tmp_path):
    for split in ("train", "val"):
        draw(tmp_path / split / "cat" / "a.png")
    with pytest.raises(ValueError, match="train, val, which are splits"):
        lg.fit(own.model(2), tmp_path, epochs=1, log=lambda line: None)


def test_names_of_splits_may_be_classes_where_somebody_says_so_or_others_are_there(tmp_path):
    for name in ("train", "test"):
        draw(tmp_path / name / "a.png")
    assert data.image_folder(tmp_path, label_names=("train", "test")).labels.tolist() == [1, 0]
    draw(tmp_path / "bus" / "a.png")
    assert data.image_folder(tmp_path).label_names == ("bus", "test", "train")


# Folders without pictures


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([], r"dog has no pictures \(\.png, [^)]*\): convert them, or take the folder away"),
        (["a.ppm", "b.txt"], r"dog has no pictures \(\.png, [^)]*\), but a.ppm, b.txt: convert"),
        (["a.ppm", "b.ppm", "c.ppm", "d.ppm"], r"but a.ppm, b.ppm, c.ppm, ...: convert"),
        (["Thumbs.db", ".DS_Store", "desktop.ini", "__MACOSX/a.png"], r"dog has no pictures \(\.png, [^)]*\): convert"),
    ],
)
def test_a_class_without_pictures_is_refused(files, says, tmp_path):
    draw(tmp_path / "cat" / "a.png")
    draw(tmp_path / "emu" / "a.png")
    (tmp_path / "dog").mkdir()
    for name in files:
        (tmp_path / "dog" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "dog" / name).write_bytes(b"P6")
    with pytest.raises(ValueError, match=says):
        data.image_folder(tmp_path)


def test_a_class_that_is_not_tested_may_have_none_but_not_others(tmp_path):
    draw(tmp_path / "cat" / "a.png")
    (tmp_path / "dog").mkdir()
    (tmp_path / "notes").mkdir()  # empty, and no class
    assert data.image_folder(tmp_path, label_names=("cat", "dog")).labels.tolist() == [0]
    (tmp_path / "dog" / "a.ppm").write_bytes(b"P6")
    with pytest.raises(ValueError, match=r"dog has no pictures .*, but a.ppm"):
        data.image_folder(tmp_path, label_names=("cat", "dog"))


def test_no_pictures_at_all_says_what_there_is(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.ppm").write_bytes(b"P6")
    with pytest.raises(ValueError, match=r"no folders with pictures \(.*\), but cat.ppm, dog.ppm: give one folder"):
        data.image_folder(tmp_path)


def test_what_systems_leave_behind_is_no_class(tmp_path):
    draw(tmp_path / "cat" / "a.png")
    draw(tmp_path / "dog" / "a.png")
    for name in ("__MACOSX", ".ipynb_checkpoints"):
        draw(tmp_path / name / "cat" / "a.png")
    assert data.image_folder(tmp_path).label_names == ("cat", "dog")


# Links


def test_links_are_followed_at_any_depth(tmp_path):
    draw(tmp_path / "far" / "deep" / "a.png", 1)
    draw(tmp_path / "elsewhere" / "b.png", 2)
    draw(tmp_path / "data" / "cat" / "c.png", 3)
    (tmp_path / "data" / "cat" / "more").symlink_to(tmp_path / "far")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere")
    found = data.image_folder(tmp_path / "data")
    assert found.inputs[:, 0, 0, 0].tolist() == [3, 1, 2] and found.labels.tolist() == [0, 0, 1]


def test_links_back_end(tmp_path):
    draw(tmp_path / "cat" / "deep" / "a.png")
    draw(tmp_path / "dog" / "a.png")
    (tmp_path / "cat" / "deep" / "up").symlink_to(tmp_path / "cat")
    (tmp_path / "dog" / "root").symlink_to(tmp_path)
    assert len(data.image_folder(tmp_path).inputs) == 2


def test_a_link_to_nothing_is_told(tmp_path):
    draw(tmp_path / "cat" / "a.png")
    draw(tmp_path / "dog" / "a.png")
    (tmp_path / "dog" / "b.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(FileNotFoundError, match=r"b.png is not there"):
        data.image_folder(tmp_path)


# Sixteen bits


def wide(path, largest):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array([[0, largest]], np.uint16)).save(path)


def test_the_scale_of_sixteen_bits_is_that_of_the_folder(tmp_path):
    wide(tmp_path / "cat" / "a.png", 700)  # dark
    wide(tmp_path / "dog" / "a.png", 4095)
    with pytest.raises(ValueError, match=r"a picture has 16 bits a value, and none is above 4095"):
        data.image_folder(tmp_path)
    wide(tmp_path / "dog" / "b.png", 65535)
    assert data.image_folder(tmp_path).inputs.max(axis=(1, 2, 3)).tolist() == [700 >> 8, 4095 >> 8, 255]


def test_channels_that_no_file_has_are_told_before_files_are_read(tmp_path):
    draw(tmp_path / "cat" / "a.png")
    with pytest.raises(ValueError, match="pictures of 2 channels"):
        data.image_folder(tmp_path, shape=(4, 4, 2))
