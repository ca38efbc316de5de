"""Prepared sets that are damaged, or not to be trusted: told in one line, with the file and what to do."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from etils import epath

from localgrad.data import get
from localgrad.data.files import expanded

from .files import write_snippets
from .test_tfds import TinyGrey, TinyTexts, write


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    write(TinyGrey, folder)
    write(TinyTexts, folder)
    return folder


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def noise(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(bytes(byte ^ 0x5A for byte in raw))


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def change(old: str, new: str) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return apply


RECORDS, INFO, FEATURES = "*train*array_record*", "dataset_info.json", "features.json"
DAMAGES = {
    "records cut": (RECORDS, half),
    "records empty": (RECORDS, lambda path: path.write_bytes(b"")),
    "records gone": (RECORDS, lambda path: path.unlink()),
    "records noise": (RECORDS, noise),
    "records text": (RECORDS, lambda path: path.write_text("<html>not found</html>")),
    "records folder": (RECORDS, folder_instead),
    "info empty": (INFO, lambda path: path.write_text("")),
    "info cut": (INFO, half),
    "info a list": (INFO, lambda path: path.write_text("[]")),
    "info noise": (INFO, noise),
    "info of nothing": (INFO, lambda path: path.write_text("{}")),
    "features empty": (FEATURES, lambda path: path.write_text("")),
    "features gone": (FEATURES, lambda path: path.unlink()),
    "features a folder": (FEATURES, folder_instead),
    "features deep": (FEATURES, lambda path: path.write_text('{"a":' * 100_000)),
    "features deep within": (FEATURES, lambda path: path.write_text(json.dumps({"json": "[" * 100_000}))),
    "features of nothing": (FEATURES, lambda path: path.write_text("{}")),
}


@pytest.mark.parametrize("name", ["tiny_grey", "tiny_texts"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_in_one_line(damage: str, name: str, prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared / name, tmp_path / name)
    pattern, apply = DAMAGES[damage]
    (path,) = (tmp_path / name / "1.2.0").glob(pattern)
    apply(path)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        get(name, "train", data_dir=tmp_path)
    message = str(error.value)
    named = path if damage != "info of nothing" and damage != "features of nothing" else path.parent
    assert str(named) in message and "\n" not in message
    assert f"`python -m localgrad data prepare {name} --data_dir={tmp_path}`" in message


def test_more_examples_than_memory_holds(prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared / "tiny_grey", tmp_path / "tiny_grey")
    path = tmp_path / "tiny_grey" / "1.2.0" / INFO
    path.write_text(re.sub(r'"shardLengths": \[\s*"40"\s*\]', f'"shardLengths": ["{10**17}"]', path.read_text()))
    with pytest.raises(ValueError, match=r"dataset_info.json: 9\d+ images .* more than memory holds"):
        get("tiny_grey", "train", data_dir=tmp_path)


def test_a_file_of_another_number_of_examples(prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared / "tiny_grey", tmp_path / "tiny_grey")
    (train,) = (tmp_path / "tiny_grey" / "1.2.0").glob(RECORDS)
    (test,) = train.parent.glob("*test*array_record*")
    shutil.copy(test, train)
    with pytest.raises(ValueError, match=str(train)):
        get("tiny_grey", "train", data_dir=tmp_path)


def test_a_damaged_choice_of_configurations(prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared / "tiny_grey", tmp_path / "tiny_grey" / "some")
    (tmp_path / "tiny_grey" / ".config").mkdir()
    (tmp_path / "tiny_grey" / ".config" / "metadata.json").write_text("{")
    with pytest.raises(ValueError, match=r"metadata.json: is no object.*tiny_grey/CONFIGURATION, of \['some'\]"):
        get("tiny_grey", "train", data_dir=tmp_path)


# What is not to be trusted

EVIL = "evil_module_of_a_set.Feature"
NESTED = {"pythonClassName": EVIL, "image": {}}


@pytest.mark.parametrize(
    "content",
    [
        {"pythonClassName": EVIL},
        {"python_class_name": EVIL},
        {"type": EVIL, "content": {}},
        {"pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
         "featuresDict": {"features": {"image": NESTED}}},
        {"pythonClassName": "tensorflow_datasets.core.features.sequence_feature.Sequence",
         "jsonFeature": {"json": json.dumps({"feature": {"type": EVIL, "content": {}}})}},
        {"type": "tensorflow_datasets.core.features.features_dict.FeaturesDict", "proto_cls": "FeaturesDict",
         "content": json.dumps({"features": {"image": NESTED}})},
        {"pythonClassName": "tensorflow_datasets.core.features.evil_module_of_a_set;x"},
        {"pythonClassName": "tensorflow_datasets.scripts.cli.main"},
    ],
)  # fmt: skip
def test_a_set_names_no_class_of_its_own(
    content: dict, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_module_of_a_set.py").write_text("raise SystemExit('code of the set was run')")
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(prepared / "tiny_grey", tmp_path / "tiny_grey")
    path = tmp_path / "tiny_grey" / "1.2.0" / FEATURES
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"{path}: names the class .*no other is loaded"):
        get("tiny_grey", "train", data_dir=tmp_path)
    assert "evil_module_of_a_set" not in sys.modules


def test_files_of_a_set_are_in_its_folder(prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared / "tiny_grey", tmp_path / "tiny_grey")
    path = tmp_path / "tiny_grey" / "1.2.0" / INFO
    change("{DATASET}-{SPLIT}", "../../{DATASET}-{SPLIT}")(path)
    with pytest.raises(ValueError, match="dataset_info.json: its files are .*within that folder"):
        get("tiny_grey", "train", data_dir=tmp_path)


def test_a_cloud_is_read_through_etils(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = epath.Path("gs://bucket/sets")
    for given in ("gs://bucket/sets", Path("gs://bucket/sets"), cloud):
        assert str(expanded(given)) == "gs://bucket/sets" and isinstance(expanded(given), type(cloud))
    write_snippets(tmp_path)
    monkeypatch.setattr(epath, "Path", lambda path: tmp_path if path == "gs://bucket/sets" else None)
    assert len(get("movie_snippets", "test", data_dir="gs://bucket/sets").labels) == 6


@pytest.mark.parametrize("name", ["movie_snippets", "mnist", "tiny_grey"])
def test_a_cloud_that_cannot_be_reached_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no credentials\nfor this bucket")

    for call in ("is_file", "is_dir", "glob", "iterdir"):
        monkeypatch.setattr(type(epath.Path("gs://bucket")), call, fail)
    with pytest.raises(ValueError, match=r"gs://bucket: cannot be read \(no credentials for this bucket\)"):
        get(name, "test", data_dir="gs://bucket")
