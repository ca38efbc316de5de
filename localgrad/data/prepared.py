"""Opens what tensorflow-datasets (TFDS) has prepared: nothing in it is trusted, and what is damaged is named."""

import json
import re
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from localgrad.data.dataset import Part
from localgrad.data.files import told

EXTRA = "pip install -e '.[tensorflow]'"
_CHUNK = 1024  # records decoded at a time
_OWN = re.compile(r"tensorflow_datasets\.core\.features(\.\w+)+")
_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")  # as TFDS has written it over the years


def opened(folder: Path, remedy: str) -> Any:
    """TFDS's builder of a prepared folder.

    Args:
      folder: with `dataset_info.json` and `features.json`.
      remedy: what the user can do if it is damaged.

    Raises:
      FileNotFoundError: one of the two is missing.
      ValueError: one of them is damaged, or names a class to be loaded that is not TFDS's own.
    """
    info = _json(folder / "dataset_info.json", remedy)
    features = folder / "features.json"
    try:
        _check_classes(_json(features, remedy), features)
    except RecursionError:
        raise ValueError(f"{features}: nested too deeply to be looked at. {remedy}") from None
    _check_places(info, folder / "dataset_info.json")

    import tensorflow_datasets

    with told(folder, remedy, Exception):
        return tensorflow_datasets.builder_from_directory(folder)


def records(builder: Any, chosen: Part, folder: Path, remedy: str) -> Iterator[dict[str, Any]]:
    """The examples of a part of a split, in the order of the files.

    Raises:
      FileNotFoundError: a file of it is missing.
      ImportError: it is of a format that only TensorFlow reads, which is not installed.
      ValueError: a file of it is damaged.
    """
    split = builder.info.splits[chosen.published]
    paths, lengths = list(map(str, split.filepaths)), list(split.shard_lengths)
    read = _reader(builder, folder)
    for path, (start, stop) in zip(paths, pairwise(accumulate(lengths, initial=0)), strict=True):
        start, stop = max(start, chosen.start), min(stop, chosen.stop)
        if start < stop:
            _check_file(folder / Path(path).name, remedy)
            with told(path, remedy, Exception):  # the readers of TFDS raise whatever theirs do
                yield from read(f"{chosen.published}[{start}:{stop}]")


def _reader(builder: Any, folder: Path) -> Any:
    """`split -> iterator of records`, of the format that the set is prepared in."""
    import tensorflow_datasets

    formats = {builder.info.file_format, *builder.info.alternative_file_formats}
    if tensorflow_datasets.core.FileFormat.ARRAY_RECORD in formats:

        def read_array_records(split: str) -> Iterator[dict[str, Any]]:
            source = builder.as_data_source(split)
            for start in range(0, len(source), _CHUNK):
                raw = source.data_source.__getitems__(range(start, min(start + _CHUNK, len(source))))
                if not all(raw):  # what a file that was cut short gives, without a word
                    raise ValueError("a record is empty: the file is cut short")
                yield from map(builder.info.features.deserialize_example_np, raw)

        return read_array_records
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{folder} is prepared as {builder.info.file_format.value}, which only TensorFlow reads, and TensorFlow "
            f"is not installed: `{EXTRA}`, or remove that folder and prepare the set anew as array_record with "
            f"`python -m localgrad data prepare`"
        ) from error
    # One file after another: as many interleaved as TFDS does would give an order that depends on its defaults.
    order = tensorflow_datasets.ReadConfig(interleave_cycle_length=1)
    return lambda split: iter(
        tensorflow_datasets.as_numpy(builder.as_dataset(split, shuffle_files=False, read_config=order))
    )


def _check_file(path: Path, remedy: str) -> None:
    with told(path, remedy):
        if path.is_dir():
            raise ValueError(f"{path} is a folder; expected a file of records. {remedy}")
        if not path.stat().st_size:
            raise ValueError(f"{path} is empty; expected records. {remedy}")


def _json(path: Path, remedy: str) -> dict[str, Any]:
    with told(path, remedy):
        raw = path.read_bytes()
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {len(raw)} bytes that are no JSON ({error}). {remedy}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: holds {type(found).__name__}; expected an object of JSON. {remedy}")
    return found


def _check_classes(node: Any, path: Path) -> None:
    """Refuses classes that are not TFDS's own: it would import their modules, that is, run them."""
    if isinstance(node, str) and node.lstrip()[:1] in ("{", "["):  # JSON within JSON, as TFDS writes some features
        try:
            node = json.loads(node)
        except ValueError:
            return
    if isinstance(node, list):
        for item in node:
            _check_classes(item, path)
    if isinstance(node, dict):
        for key, value in node.items():
            if key in _CLASS_KEYS and isinstance(value, str) and not _OWN.fullmatch(value):
                raise ValueError(
                    f"{path}: names the class {value!r}; expected one of tensorflow_datasets.core.features, and no "
                    "other is loaded, for loading runs its code. Prepare the set anew from where you trust it"
                )
            _check_classes(value, path)


def _check_places(info: dict[str, Any], path: Path) -> None:
    """Refuses names of files that lead out of the folder."""
    for split in info.get("splits", []):
        template = split.get("filepathTemplate", "") if isinstance(split, dict) else ""
        if "/" in str(template) or "\\" in str(template):
            raise ValueError(f"{path}: its files are {template!r}; expected names within that folder")
