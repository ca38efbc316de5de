"""Real sets, small, written by tensorflow-datasets and read through the door."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from localgrad.cli.data import main
from localgrad.data import SPLITS, get, prepare
from localgrad.data.tfds_folders import find

TRAIN, TEST = 40, 12


def pictures(count: int, shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8)


def png(image: np.ndarray) -> io.BytesIO:
    """Packed here, so that preparing a set needs no TensorFlow."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    file.seek(0)
    return file


class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A set of random pictures with the labels 0, 1, .. 9, 0, .."""

    VERSION = tfds.core.Version("1.2.0")
    SIZES = {"train": TRAIN, "test": TEST}  # noqa: RUF012
    SHAPE = (28, 28, 1)
    LABEL: Any = tfds.features.ClassLabel(num_classes=10)
    pack: Callable[[np.ndarray], Any] = staticmethod(png)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"image": tfds.features.Image(shape=self.SHAPE), "label": self.LABEL}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(count) for split, count in self.SIZES.items()}

    def _generate_examples(self, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, image in enumerate(pictures(count, self.SHAPE)):
            yield i, {"image": self.pack(image), "label": i % 10}


class TinyGrey(Tiny):
    """28x28x1, without a validation split."""


class TinyColour(Tiny):
    """32x32x3, with a validation split under another name."""

    SHAPE = (32, 32, 3)
    SIZES = {"train": TRAIN, "val": 7, "test": TEST}  # noqa: RUF012


class TinyConfigs(Tiny):
    """With configurations."""

    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name, version="1.0.0") for name in ("plain", "other")]  # noqa: RUF012


class TinyRaw(Tiny):
    """TensorFlow is needed to pack its pictures."""

    pack = staticmethod(lambda image: image)


class TinyValues(Tiny):
    """Labels are numbers, not classes."""

    LABEL = tfds.features.Scalar(np.int64)


class TinyRagged(Tiny):
    """Pictures of any size."""

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"image": tfds.features.Image(shape=(None, None, 1)), "label": self.LABEL}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))


class TinyTexts(Tiny):
    """Two texts an example, as AG News has them, and a test split without labels, as GLUE's sets have."""

    SIZES = {"train": TRAIN, "validation": 7, "test": TEST}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"body": tfds.features.Text(), "idx": np.int32, "label": self.LABEL, "title": tfds.features.Text()}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _generate_examples(self, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for i in range(count):
            yield i, {"body": f"Body {i}", "idx": i, "label": -1 if count == TEST else i % 10, "title": "a TITLE"}


class TinyNumbers(TinyTexts):
    """Neither pictures nor texts."""

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"idx": np.int32, "label": self.LABEL}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _generate_examples(self, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for i in range(count):
            yield i, {"idx": i, "label": i % 10}


def write(builder: type[Tiny], folder: Path, file_format: str = "array_record", **arguments: Any) -> Path:
    made = builder(data_dir=str(folder), file_format=file_format, **arguments)
    made.download_and_prepare()
    return Path(made.data_dir)


def run(code: str) -> str:
    """What a program prints that has loaded nothing yet."""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


def by_picture(images: np.ndarray, labels: np.ndarray) -> set[tuple[bytes, int]]:
    return {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}


@pytest.mark.parametrize(("builder", "name"), [(TinyGrey, "tiny_grey"), (TinyColour, "tiny_colour")])
def test_a_prepared_set_is_read_as_it_was_written(builder: type[Tiny], name: str, tmp_path: Path) -> None:
    write(builder, tmp_path)
    splits = {split: get(name, split, data_dir=tmp_path) for split in SPLITS}
    for made in splits.values():
        assert made.inputs.dtype == np.uint8 and made.inputs.shape[1:] == builder.SHAPE
        assert made.labels.dtype == np.int32 and (made.name, made.classes) == (name, 10)

    def written(count: int) -> set[tuple[bytes, int]]:
        return by_picture(pictures(count, builder.SHAPE), np.arange(count) % 10)

    found = {split: by_picture(made.inputs, made.labels) for split, made in splits.items()}
    assert found["test"] == written(TEST)
    if builder is TinyColour:
        assert found["train"] == written(TRAIN) and found["validation"] == written(7)
    else:
        assert len(found["train"]) == 36 and len(found["validation"]) == 4
        assert found["train"] | found["validation"] == written(TRAIN)


def test_array_record_needs_no_tensorflow(tmp_path: Path) -> None:
    write(TinyGrey, tmp_path)
    found = run(
        "import sys\n"
        "from localgrad.data import get\n"
        f"print([get('tiny_grey', split, data_dir={str(tmp_path)!r}).inputs.shape for split in {SPLITS}])\n"
        "print('tensorflow' in sys.modules)"
    )
    assert found.splitlines() == ["[(36, 28, 28, 1), (4, 28, 28, 1), (12, 28, 28, 1)]", "False"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("builder", "name"), [pytest.param(TinyGrey, "tiny_grey", marks=pytest.mark.full), (TinyColour, "tiny_colour")]
)
def test_tfrecord_is_read_the_same(builder: type[Tiny], name: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    for file_format in ("array_record", "tfrecord"):
        write(builder, tmp_path / file_format, file_format)
    for split in SPLITS:
        one, other = (get(name, split, data_dir=tmp_path / folder) for folder in ("array_record", "tfrecord"))
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_without_tensorflow_the_extra_is_named(tmp_path: Path) -> None:
    info = write(TinyGrey, tmp_path) / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    found = run(
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "absent = lambda name, *rest: None if name.split('.')[0] == 'tensorflow' else find(name, *rest)\n"
        "PathFinder.find_spec = staticmethod(absent)\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_tfds\n"
        "from localgrad.data import get, prepare\n"
        "from tensorflow_datasets.core import registered\n"
        "registered._DATASET_REGISTRY['tiny_raw'] = test_tfds.TinyRaw\n"
        f"for call in (lambda: get('tiny_grey', 'train', data_dir={str(tmp_path)!r}),\n"
        f"             lambda: prepare('tiny_raw', {str(tmp_path)!r})):\n"
        "    try: call()\n"
        "    except ImportError as error: print('caught', error)\n"
    )
    read, prepared = [line for line in found.splitlines() if line.startswith("caught")]
    assert re.search(r"prepared as tfrecord, which only TensorFlow reads.*`pip install -e '\.\[tensorflow\]'`", read)
    expected = r"preparing tiny_raw needs .*\(No module named 'tensorflow'\): `pip install -e '\.\[tensorflow\]'`"
    assert re.search(expected, prepared)


# Finding


def test_versions_and_configurations(tmp_path: Path) -> None:
    folder = write(TinyConfigs, tmp_path, config="other")
    assert find("tiny_configs", tmp_path) == folder == tmp_path / "tiny_configs" / "other" / "1.0.0"
    default = write(TinyConfigs, tmp_path, config="plain")
    assert find("tiny_configs", tmp_path) == default  # the first one is the default
    assert find("tiny_configs/other", tmp_path) == find("tfds:tiny_configs/other:1.0.0", tmp_path) == folder
    assert find("tiny_configs/other:2.0.0", tmp_path) is None
    assert len(get("tiny_configs/other", "test", data_dir=tmp_path).inputs) == TEST

    for version in ("1.10.0", "1.9.0"):
        (folder.parent / version).mkdir()
        (folder.parent / version / "dataset_info.json").write_text("{}")
    assert find("tiny_configs/other", tmp_path) == folder.parent / "1.10.0"

    metadata = tmp_path / "tiny_configs" / ".config" / "metadata.json"
    metadata.write_text(json.dumps({}))
    with pytest.raises(ValueError, match=r"configurations \['other', 'plain'\]; name one of them: tiny_configs/other"):
        find("tiny_configs", tmp_path)


def test_the_usual_folder_is_that_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(TinyGrey, tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert find("tiny_grey", None) == folder
    assert len(get("tiny_grey", "test").inputs) == TEST


def test_fashion_mnist_from_tensorflow_datasets(tmp_path: Path) -> None:
    made = type("FashionMnist", (Tiny,), {"__module__": __name__}, skip_registration=True)
    write(made, tmp_path)
    assert get("fashion_mnist", "validation", data_dir=tmp_path).inputs.shape == (4, 28, 28, 1)


@pytest.mark.parametrize("name", ["", "a b", "mnist:3", "mnist:latest", "a/b/c"])
def test_a_malformed_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected `name`, `name/config` or `name/config:version`"):
        get(name, "train", data_dir=tmp_path)


def test_a_set_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        get("cifar10:3.0.2", "train", data_dir=tmp_path)
    assert f"no cifar10/3.0.2/dataset_info.json in {tmp_path}" in str(error.value)
    assert f"`python -m localgrad data prepare cifar10:3.0.2 --data_dir={tmp_path}`" in str(error.value)


@pytest.mark.parametrize("call", [lambda name, folder: get(name, "train", data_dir=folder), prepare])
def test_an_unknown_name_lists_what_exists(call: Callable[[str, Path], Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        call("cifar_10", tmp_path)
    message = str(error.value)
    assert "unknown dataset 'cifar_10'; did you mean one of ['cifar10'" in message
    assert "or the name of any set of images or texts with a class each of tensorflow-datasets" in message
    with pytest.raises(ValueError, match="did you mean one of \\['digits'"):
        call("digit", tmp_path)


def test_a_set_of_texts_is_read_as_it_was_written(tmp_path: Path) -> None:
    write(TinyTexts, tmp_path)
    splits = {split: get("tiny_texts", split, data_dir=tmp_path) for split in SPLITS}
    # Without labels a test split is none: the published validation split is the test, and the end of train validation.
    assert [len(splits[split].labels) for split in SPLITS] == [36, 4, 7]
    words = splits["train"].words
    assert words is not None and splits["test"].words == words and splits["train"].inputs.shape == (36, 4)
    for split, made in splits.items():
        for row, label in zip(made.inputs, made.labels, strict=True):
            body, number, *title = (words[i] for i in row)
            assert (body, title) == ("body", ["a", "title"])
            assert number == "[UNK]" or split != "validation"
            assert number == "[UNK]" or int(number) % 10 == label
    assert len({words[row[1]] for row in splits["train"].inputs}) == 36


# What is neither images nor texts with a class each


@pytest.mark.parametrize(
    ("builder", "name", "message"),
    [
        (TinyValues, "tiny_values", r"its 'label' is Scalar \(found \['image', 'label'\]\); expected 'image', uint8"),
        (TinyNumbers, "tiny_numbers", r"it has no 'image' \(found \['idx', 'label'\]\)"),
        (TinyRagged, "tiny_ragged", r"its images are uint8 \(None, None, 1\); expected"),
    ],
)
def test_a_set_of_another_kind_is_refused(builder: type[Tiny], name: str, message: str, tmp_path: Path) -> None:
    write(builder, tmp_path)
    with pytest.raises(ValueError, match=message):
        get(name, "train", data_dir=tmp_path)


def test_a_label_out_of_range_is_refused(tmp_path: Path) -> None:
    features = write(TinyGrey, tmp_path) / "features.json"
    features.write_text(features.read_text().replace('"numClasses": "10"', '"numClasses": "9"'))
    with pytest.raises(ValueError, match=r"split 'test' of .*tiny_grey.*: labels run from 0 to 9; expected 0 to 8"):
        get("tiny_grey", "test", data_dir=tmp_path)


# Preparing


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a set known to tensorflow-datasets by name, for one test."""
    from tensorflow_datasets.core import registered

    monkeypatch.setitem(registered._DATASET_REGISTRY, "tiny_grey", TinyGrey)


@pytest.mark.usefixtures("registered")
def test_prepare_writes_array_record_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError):
        get("tiny_grey", "test", data_dir=tmp_path)
    main(["prepare", "tiny_grey", f"--data_dir={tmp_path}"])
    folder = tmp_path / "tiny_grey" / "1.2.0"
    assert capsys.readouterr().out.splitlines()[-1].endswith(str(folder))
    files = sorted(path.name for path in folder.glob("*array_record*"))
    assert len(files) == 2 and len(get("tiny_grey", "test", data_dir=tmp_path).inputs) == TEST
    written = [path.stat().st_mtime_ns for path in sorted(folder.iterdir())]
    assert prepare("tiny_grey", tmp_path) == folder
    assert [path.stat().st_mtime_ns for path in sorted(folder.iterdir())] == written


def test_the_command_line_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["prepare", "--help"])
    shown = capsys.readouterr().out
    assert "localgrad data prepare" in shown and "--data_dir" in shown and "name/config:version" in shown
