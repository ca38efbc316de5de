"""Any set of tensorflow-datasets (TFDS) of images or of texts with a class each, by name.

A set prepared as `array_record` is read without TensorFlow; one prepared as `tfrecord`, TFDS's default, needs it.
Nothing is downloaded unless `prepare` is asked to.
"""

import difflib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from localgrad.data.dataset import EMBEDDED, VALIDATION_NAMES, Dataset, Part, checked, part
from localgrad.data.text import Corpus

EXTRA = "pip install -e '.[tensorflow]'"
VERSION = re.compile(r"\d+\.\d+\.\d+")
CHUNK = 1024  # records decoded at a time


class Name(NamedTuple):
    """A name as TFDS writes it, `name/config:version`, taken apart."""

    name: str
    config: str | None
    version: str | None


def root(data_dir: str | Path | None) -> Path:
    """The folder that holds prepared sets: `data_dir`, else $TFDS_DATA_DIR, else `~/tensorflow_datasets`."""
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def command(name: str, data_dir: str | Path | None) -> str:
    """The shell command that downloads and prepares a set."""
    return f"python -m localgrad.data prepare {name} --data_dir={root(data_dir)}"


def find(name: str, data_dir: str | Path | None) -> Path | None:
    """Finds the folder of a prepared set, without importing TFDS.

    Args:
      name: `name`, `name/config`, `name:version` or `name/config:version`.
      data_dir: see `root`.

    Returns:
      The folder of the version asked for, else of the newest; None if there is none.

    Raises:
      ValueError: the name is malformed, or the set has several configurations prepared and the name chooses none.
    """
    wanted = _parsed(name)
    folder = root(data_dir) / wanted.name
    if wanted.config is not None:
        folder = folder / wanted.config
    elif not _versions(folder):
        folder = folder / _config(wanted, folder)
    versions = _versions(folder)
    if wanted.version is not None:
        return folder / wanted.version if wanted.version in versions else None
    return folder / versions[-1] if versions else None


def load(name: str, split: str, data_dir: str | Path | None) -> Dataset:
    """Reads a split of a prepared set; what a set does not publish is held out as `dataset.part` says.

    Args:
      name: as TFDS writes it, `name/config:version`; config and version may be left out.
      split: `train`, `validation` or `test`.
      data_dir: see `root`.

    Returns:
      The split, in the order of its files.

    Raises:
      FileNotFoundError: the set is not prepared there.
      ImportError: it is prepared as `tfrecord` and TensorFlow is not installed.
      ValueError: TFDS knows no such set, or it is not one of equal-sized pictures with a class each.
    """
    folder = find(name, data_dir)
    if folder is None:
        _check_exists(name)
        wanted = _parsed(name)
        raise FileNotFoundError(
            f"{name} is not prepared: no {'/'.join(filter(None, [wanted.name, wanted.config]))}/"
            f"{wanted.version or 'VERSION'}/dataset_info.json in {root(data_dir)}. "
            f"Prepare it with `{command(name, data_dir)}` (it downloads), or pass --data_dir with the folder it is in"
        )

    import tensorflow_datasets

    builder = tensorflow_datasets.builder_from_directory(folder)
    shape, classes = _features(name, builder.info.features)
    sizes = {published: int(info.num_examples) for published, info in builder.info.splits.items()}
    known = {published: size for published, size in sizes.items() if published in ("train", "test", *VALIDATION_NAMES)}
    chosen = part(name, split, known or sizes)

    images = np.empty((chosen.stop - chosen.start, *shape), np.uint8)
    labels = np.empty(len(images), np.int64)
    count = 0
    for count, record in enumerate(_records(builder, chosen, folder), start=1):
        images[count - 1], labels[count - 1] = record["image"], record["label"]
    if count != len(images):
        raise ValueError(f"{folder}: found {count} examples in {chosen}; expected {len(images)}. Prepare the set anew")
    return checked(name, images, labels, classes, where=f"split {chosen.published!r} of {folder}")


def holds_texts(name: str, data_dir: str | Path | None) -> bool:
    """Whether a prepared set is one of texts with a `label` each; False for one that is not there.

    Raises:
      ValueError: as `find`.
    """
    folder = find(name, data_dir)
    if folder is None:
        return False

    import tensorflow_datasets

    features = tensorflow_datasets.builder_from_directory(folder).info.features
    if not isinstance(features, tensorflow_datasets.features.FeaturesDict):
        return False
    kinds = {key: type(kind).__name__ for key, kind in features.items()}
    return "Text" in kinds.values() and kinds.get("label") == "ClassLabel" and "image" not in kinds


def read_texts(name: str, data_dir: str | Path | None) -> tuple[Corpus, str]:
    """Reads all splits of a prepared set of texts with a class each.

    A record's texts are joined in the order of their names (ag_news_subset: description, title).  Splits that
    were published without labels (GLUE's test splits) are left out.

    Args:
      name, data_dir: as for `load`.

    Returns:
      The set, and its folder.

    Raises:
      ImportError: as `load`.
    """
    import tensorflow_datasets

    folder = find(name, data_dir)
    assert folder is not None  # `holds_texts` has seen it
    builder = tensorflow_datasets.builder_from_directory(folder)
    features = builder.info.features
    fields = sorted(key for key, kind in features.items() if isinstance(kind, tensorflow_datasets.features.Text))
    splits = {}
    for split, info in builder.info.splits.items():
        if split not in ("train", "test", *VALIDATION_NAMES):
            continue
        texts, labels = [], []
        for record in _records(builder, Part(split, 0, int(info.num_examples)), folder):
            texts.append(" ".join(record[field].decode() for field in fields))
            labels.append(int(record["label"]))
        if set(labels) != {-1}:
            splits[split] = (texts, labels)
    return Corpus(splits, features["label"].num_classes), str(folder)


def prepare(name: str, data_dir: str | Path | None = None) -> Path:
    """Downloads a set and writes it as `array_record`, so that it is read without TensorFlow ever after.

    A set that is there already, in whatever format, is left alone.

    Args:
      name: as TFDS writes it, `name/config:version`; config and version may be left out.
      data_dir: see `root`.

    Returns:
      The folder of the prepared set.

    Raises:
      ImportError: TFDS needs a package that is not installed to prepare this set, as a rule TensorFlow.
      ValueError: TFDS knows no such set.
    """
    wanted = _parsed(name)
    found = find(name, data_dir)
    if found is not None:
        return found
    _check_exists(name)

    import tensorflow_datasets

    full_name = wanted.name + (f"/{wanted.config}" if wanted.config else "")
    full_name += f":{wanted.version}" if wanted.version else ""
    try:
        builder = tensorflow_datasets.builder(full_name, data_dir=str(root(data_dir)), file_format="array_record")
        builder.download_and_prepare()
    except ImportError as error:
        # TFDS puts the whole example before the cause.
        cause = str(error).splitlines()[-1]
        missing = re.search(r"No module named '(\w+)", cause)
        remedy = f"pip install {missing[1]}" if missing and missing[1] != "tensorflow" else EXTRA
        raise ImportError(f"preparing {name} needs a package that is not installed ({cause}): `{remedy}`") from error
    return Path(builder.data_dir)


def _parsed(name: str) -> Name:
    match = re.fullmatch(r"(?:tfds:)?(\w+)(?:/([^:/]+))?(?::([^:/]+))?", name)
    if not match or (match[3] and not VERSION.fullmatch(match[3])):
        raise ValueError(
            f"dataset {name!r}: expected `name`, `name/config` or `name/config:version` with a version such as 3.0.1"
        )
    return Name(*match.groups())


def _versions(folder: Path) -> list[str]:
    """Versions prepared in a folder, oldest first."""
    infos = folder.glob("*/dataset_info.json")
    versions = [info.parent.name for info in infos if VERSION.fullmatch(info.parent.name)]
    return sorted(versions, key=lambda version: [int(number) for number in version.split(".")])


def _config(wanted: Name, folder: Path) -> str:
    """The configuration to read where the name chooses none: the set's default, else the only one prepared."""
    configs = sorted(child.name for child in folder.iterdir() if _versions(child)) if folder.is_dir() else []
    metadata = folder / ".config" / "metadata.json"
    default = json.loads(metadata.read_text()).get("default_config_name") if metadata.is_file() else None
    if default in configs:
        return default
    if len(configs) > 1:
        raise ValueError(
            f"{wanted.name} in {folder} has the configurations {configs}; name one of them: {wanted.name}/{configs[0]}"
        )
    return configs[0] if configs else ""


def _check_exists(name: str) -> None:
    import tensorflow_datasets

    known = tensorflow_datasets.list_builders(with_community_datasets=False)
    wanted = _parsed(name).name
    if wanted not in known:
        close = difflib.get_close_matches(wanted, [*EMBEDDED, *known], n=5)
        raise ValueError(
            f"unknown dataset {name!r}; {f'did you mean one of {close}? ' if close else ''}"
            f"Expected one of {list(EMBEDDED)} or the name of any set of images or texts with a class each of "
            "tensorflow-datasets, "
            "such as mnist, cifar10 or svhn_cropped"
        )


def _features(name: str, features: Any) -> tuple[tuple[int, int, int], int]:
    """The shape of the images and the number of classes; raises ValueError, with the reason, if there are none."""
    from tensorflow_datasets import features as kinds

    found = dict(features.items()) if isinstance(features, kinds.FeaturesDict) else {}
    expected = "expected 'image', uint8 of one fixed shape (H, W, C), and 'label', one class an example; choose another"
    for key, kind in (("image", kinds.Image), ("label", kinds.ClassLabel)):
        if not isinstance(found.get(key), kind):
            reason = f"its {key!r} is {type(found[key]).__name__}" if key in found else f"it has no {key!r}"
            raise ValueError(
                f"{name} is no set of images or texts with a class each: {reason} (found {sorted(found)}); {expected}"
            )
    image, label = found["image"], found["label"]
    if image.np_dtype != np.uint8 or len(image.shape) != 3 or None in image.shape:
        raise ValueError(f"{name}: its images are {np.dtype(image.np_dtype)} {image.shape}; {expected}")
    if label.num_classes is None:
        raise ValueError(f"{name}: its 'label' does not say how many classes there are; {expected}")
    return image.shape, label.num_classes


def _records(builder: Any, chosen: Part, folder: Path) -> Iterable[dict[str, Any]]:
    """The examples of a part of a split, in the order of the files."""
    import tensorflow_datasets

    split = f"{chosen.published}[{chosen.start}:{chosen.stop}]"
    formats = {builder.info.file_format, *builder.info.alternative_file_formats}
    if tensorflow_datasets.core.FileFormat.ARRAY_RECORD in formats:
        source = builder.as_data_source(split)
        for start in range(0, len(source), CHUNK):
            yield from source.__getitems__(range(start, min(start + CHUNK, len(source))))
        return

    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{folder} is prepared as {builder.info.file_format.value}, which only TensorFlow reads, and TensorFlow "
            f"is not installed: `{EXTRA}`, or remove that folder and prepare the set anew as array_record with "
            f"`python -m localgrad.data prepare`"
        ) from error
    # One file after another: as many interleaved as TFDS does would give an order that depends on its defaults.
    order = tensorflow_datasets.ReadConfig(interleave_cycle_length=1)
    yield from tensorflow_datasets.as_numpy(builder.as_dataset(split, shuffle_files=False, read_config=order))
