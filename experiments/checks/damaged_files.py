"""Small files of every form that the library reads, and what can happen to a file; for `checks.refusals`."""

import io
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

_RUN = ("config.json", "metrics.jsonl", "summary.json", "checkpoints/3/manifest.json",
        "checkpoints/3/blocks/manifest.ocdbt",
        "checkpoints/3", "checkpoints")  # fmt: skip
FILES: dict[str, tuple[str, ...]] = {
    "idx": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"),
    "nouns": ("data.noun",),
    "snippets": ("movieReviewSnippets_GroundTruth.txt",),
    "vectors": ("vectors.txt",),
    "prepared": tuple(
        f"tiny_grey/1.2.0/{name}"
        for name in ("dataset_info.json", "features.json", "tiny_grey-train.array_record-00000-of-00001")
    ),
    "run": tuple(f"run/{name}" for name in _RUN),
}


def _replace(content: bytes) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.write_bytes(content)

    return replace


def _cut(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])


def _noise(path: Path) -> None:
    path.write_bytes(bytes(byte ^ 0x5A for byte in path.read_bytes()))


def _gone(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _renamed(path: Path) -> None:
    path.rename(path.with_name("9"))


def _types(path: Path) -> None:
    """Every value of a JSON object of another type; or a NaN in a text."""
    try:
        found = json.loads(path.read_text().splitlines()[0] if path.suffix == ".jsonl" else path.read_text())
        path.write_text(json.dumps({key: [] if isinstance(value, str) else "x" for key, value in found.items()}) + "\n")
    except (ValueError, AttributeError, IndexError):
        path.write_bytes(path.read_bytes().replace(b"1", b"nan"))


def _unknown(path: Path) -> None:
    """An object, of other fields."""
    path.write_text('{"a_field_of_tomorrow": 1}\n')


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut": _cut,
    "noise": _noise,
    "empty": _replace(b""),
    "list": _replace(b"[]"),
    "null": _replace(b"null"),
    "number": _replace(b"7\n"),
    "deep": _replace(b'{"a":' * 100_000),
    "other types": _types,
    "unknown fields": _unknown,
    "gone": _gone,
    "folder": _folder,
    "renamed": _renamed,
}


def damage(path: Path, name: str) -> None:
    """Does something to a file, or to a folder: what is for files alone empties one."""
    if path.is_dir() and name not in ("gone", "renamed"):
        shutil.rmtree(path)
        path.mkdir()
    else:
        DAMAGES[name](path)


def setting(base: Path, name: str, what: str, run: Path) -> None:
    """Puts the files of a setting into a folder, and damages one.

    Args:
      base: the folder.
      name: a key of `FILES`, or `place`, `table`, or nothing.
      what: `DAMAGE of FILE`; of a place, what it is.
      run: a finished run, to be copied.
    """
    if name == "place":
        return _place(base / "place", what)
    make: dict[str, Callable[[Path], None]] = {
        "idx": _idx, "nouns": _nouns, "snippets": _snippets, "vectors": _vectors, "prepared": _prepared,
        "table": _table,
    }  # fmt: skip
    if name == "run":
        shutil.copytree(run, base / "run")
        config = json.loads((base / "run/config.json").read_text())
        (base / "run/config.json").write_text(json.dumps({**config, "workdir": str(base / "run")}))
    elif name:
        make[name](base)
    if what:
        how, _, file = what.partition(" of ")
        damage(base / file, how)


def _place(path: Path, what: str) -> None:
    if what == "file":
        path.write_text("a file")
    elif what == "link to nothing":
        path.symlink_to(path.parent / "nothing")
    elif what == "link to itself":
        path.symlink_to(path)
    elif what == "within a file":
        (path.parent / "it").write_text("a file")
        path.symlink_to(path.parent / "it" / "place")
    else:
        path.mkdir()
        for name in ("checkpoints", "vectors", "mnist"):
            (path / name).write_text("a file")
        os.symlink("/etc/passwd", path / "config.json")


def _idx(base: Path) -> None:
    rng = np.random.default_rng(0)
    for stem, count in (("train", 40), ("t10k", 20)):
        for kind, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            content = rng.integers(0, 256 if len(shape) > 1 else 10, shape, dtype=np.uint8)
            head = bytes((0, 0, 8, len(shape))) + b"".join(size.to_bytes(4, "big") for size in shape)
            (base / f"{stem}-{kind}-ubyte").write_bytes(head + content.tobytes())


def _nouns(base: Path) -> None:
    lines = [f"{i:08d} {4 + i % 3:02d} n 01 word{i} 0 001 @ 1740 n 0 | kind {i % 7} of thing  " for i in range(90)]
    (base / "data.noun").write_text("\n".join(["  1 This software and database", *lines]) + "\n")


def _snippets(base: Path) -> None:
    rows = [f"{i}\t{(-1) ** i * 1.5}\tA {'fine' if i % 2 == 0 else 'poor'} film, number {i}!" for i in range(60)]
    (base / FILES["snippets"][0]).write_text("\r\n".join(rows))


def _vectors(base: Path) -> None:
    _nouns(base)
    (base / "vectors.txt").write_text("".join(f"{word} 1.5 -0.25 0.125\n" for word in ("kind", "of", "thing")))


def _table(base: Path) -> None:
    (base / "al_depth.json").write_text(json.dumps({"title": "x", "rows": {}}))


def _prepared(base: Path) -> None:
    """A set as tensorflow-datasets prepares it, written without TensorFlow."""
    import tensorflow_datasets as tfds
    from PIL import Image

    class TinyGrey(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        """Random pictures."""

        VERSION = tfds.core.Version("1.2.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(28, 28, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(40), "test": self._generate_examples(12)}

        def _generate_examples(self, count):
            rng = np.random.default_rng(count)
            for i in range(count):
                file = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(file, "PNG")
                file.seek(0)
                yield i, {"image": file, "label": i % 10}

    whole = Path(os.environ.get("LOCALGRAD_PREPARED", base / "whole"))  # made once for all cases
    if not (whole / "tiny_grey").exists():
        TinyGrey(data_dir=str(whole), file_format="array_record").download_and_prepare()
    shutil.copytree(whole / "tiny_grey", base / "tiny_grey")


def files(name: str) -> Sequence[str]:
    """What a setting has in it that may be damaged."""
    return FILES[name]
