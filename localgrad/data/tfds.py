"""Any set of tensorflow-datasets (TFDS) of images or of texts with a class each, by name.

A set prepared as `array_record` is read without TensorFlow; one prepared as `tfrecord`, TFDS's default, needs it.
Nothing is downloaded unless `prepare` is asked to.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from localgrad.data.dataset import VALIDATION_NAMES, Dataset, Part, part
from localgrad.data.look import checked
from localgrad.data.prepared import EXTRA, opened, records
from localgrad.data.text import Corpus
from localgrad.data.tfds_folders import check_exists, command, find, parsed, root


def _remedy(name: str, folder: Path, data_dir: str | Path | None) -> str:
    return f"Remove {folder} and prepare the set again: `{command(name, data_dir)}`"


def load(name: str, split: str, data_dir: str | Path | None) -> Dataset:
    """Reads a split of a prepared set; what a set does not publish is held out as `dataset.part` says.

    Args:
      name: as TFDS writes it, `name/config:version`; config and version may be left out.
      split: `train`, `validation` or `test`.
      data_dir: see `tfds_folders.root`.

    Returns:
      The split, in the order of its files.

    Raises:
      FileNotFoundError: the set is not prepared there.
      ImportError: it is prepared as `tfrecord` and TensorFlow is not installed.
      ValueError: TFDS knows no such set, it is not one of equal-sized pictures with a class each, or it is damaged.
    """
    folder = find(name, data_dir)
    if folder is None:
        check_exists(name)
        wanted = parsed(name)
        raise FileNotFoundError(
            f"{name} is not prepared: no {'/'.join(filter(None, [wanted.name, wanted.config]))}/"
            f"{wanted.version or 'VERSION'}/dataset_info.json in {root(data_dir)}. "
            f"Prepare it with `{command(name, data_dir)}` (it downloads), or pass --data_dir with the folder it is in"
        )

    remedy = _remedy(name, folder, data_dir)
    builder = opened(folder, remedy)
    shape, classes = _features(name, builder.info.features)
    sizes = {published: int(info.num_examples) for published, info in builder.info.splits.items()}
    known = {published: size for published, size in sizes.items() if published in ("train", "test", *VALIDATION_NAMES)}
    chosen = part(name, split, known or sizes)

    try:
        images = np.empty((chosen.stop - chosen.start, *shape), np.uint8)
    except (MemoryError, ValueError):
        raise ValueError(
            f"{folder / 'dataset_info.json'}: {chosen.stop - chosen.start} images {shape} are more than memory holds. "
            f"If the set is not that large, the file is damaged. {remedy}"
        ) from None
    labels = np.empty(len(images), np.int64)
    count = 0
    for count, record in enumerate(records(builder, chosen, folder, remedy), start=1):
        found = np.shape(record["image"])
        if count > len(images) or found != shape:
            raise ValueError(
                f"{folder}: example {count} of {chosen} is an image {found}; expected {len(images)} of {shape}. "
                f"{remedy}"
            )
        images[count - 1], labels[count - 1] = record["image"], record["label"]
    if count != len(images):
        raise ValueError(f"{folder}: found {count} examples in {chosen}; expected {len(images)}. {remedy}")
    return checked(name, images, labels, classes, where=f"split {chosen.published!r} of {folder}")


def holds_texts(name: str, data_dir: str | Path | None) -> bool:
    """Whether a prepared set is one of texts with a `label` each; False for one that is not there.

    Raises:
      FileNotFoundError, ValueError: as `find`, or it is damaged.
    """
    folder = find(name, data_dir)
    if folder is None:
        return False

    features = opened(folder, _remedy(name, folder, data_dir)).info.features

    import tensorflow_datasets

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
      FileNotFoundError, ImportError, ValueError: as `load`.
    """
    folder = find(name, data_dir)
    assert folder is not None  # `holds_texts` has seen it
    remedy = _remedy(name, folder, data_dir)
    builder = opened(folder, remedy)

    import tensorflow_datasets

    features = builder.info.features
    fields = sorted(key for key, kind in features.items() if isinstance(kind, tensorflow_datasets.features.Text))
    splits = {}
    for split, info in builder.info.splits.items():
        if split not in ("train", "test", *VALIDATION_NAMES):
            continue
        texts, labels = [], []
        whole = Part(split, 0, int(info.num_examples))
        for record in records(builder, whole, folder, remedy):
            try:
                texts.append(" ".join(record[field].decode() for field in fields))
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{folder}: example {len(texts) + 1} of split {split!r} is no text in UTF-8 ({error}). {remedy}"
                ) from None
            labels.append(int(record["label"]))
        if len(texts) != whole.stop:
            raise ValueError(f"{folder}: found {len(texts)} texts in split {split!r}; expected {whole.stop}. {remedy}")
        if set(labels) != {-1}:
            splits[split] = (texts, labels)
    return Corpus(splits, features["label"].num_classes), str(folder)


def prepare(name: str, data_dir: str | Path | None = None) -> Path:
    """Downloads a set and writes it as `array_record`, so that it is read without TensorFlow ever after.

    A set that is there already, in whatever format, is left alone.

    Args:
      name: as TFDS writes it, `name/config:version`; config and version may be left out.
      data_dir: see `tfds_folders.root`.

    Returns:
      The folder of the prepared set.

    Raises:
      ImportError: TFDS needs a package that is not installed to prepare this set, as a rule TensorFlow.
      ValueError: TFDS knows no such set.
    """
    wanted = parsed(name)
    found = find(name, data_dir)
    if found is not None:
        return found
    check_exists(name)

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
