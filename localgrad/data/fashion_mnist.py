"""Fashion-MNIST: 70,000 pictures of clothes, 28x28 grey, ten classes, from IDX files or tensorflow-datasets.

Source: Xiao, Rasul and Vollgraf, https://arxiv.org/abs/1708.07747
"""

from pathlib import Path

from localgrad.data import idx, tfds
from localgrad.data.dataset import Dataset, checked, part

NAME = "fashion_mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
PREFIXES = {"train": "train", "test": "t10k"}


def load(split: str, data_dir: str | Path | None) -> Dataset:
    """Reads a split; validation is the last 5,000 training examples.

    Args:
      split: `train`, `validation` or `test`.
      data_dir: a folder with the four IDX files (plain or `.gz`), or with the set as tensorflow-datasets prepares it.
        None looks where Debian's `dataset-fashion-mnist` puts the files, then where tensorflow-datasets does.

    Returns:
      Images uint8 `(N, 28, 28, 1)`.

    Raises:
      FileNotFoundError: it is in none of these places.
      ValueError: a file is damaged, or is not what its name says.
    """
    folder = DEBIAN if data_dir is None else Path(data_dir).expanduser()
    if any(folder.glob("*-idx[13]-ubyte*")):
        return _from_idx(folder, split)
    if tfds.find(NAME, data_dir) is not None:
        return tfds.load(NAME, split, data_dir)
    looked = folder if data_dir is not None else f"{folder} or {tfds.root(None) / NAME}"
    raise FileNotFoundError(f"no Fashion-MNIST in {looked}. {_remedy(data_dir)}")


def _from_idx(folder: Path, split: str) -> Dataset:
    files = {
        published: (_file(folder, f"{prefix}-images-idx3-ubyte"), _file(folder, f"{prefix}-labels-idx1-ubyte"))
        for published, prefix in PREFIXES.items()
    }
    labels = {published: idx.read_labels(path) for published, (_, path) in files.items()}
    chosen = part(NAME, split, {published: len(values) for published, values in labels.items()})
    images_file, labels_file = files[chosen.published]
    images = idx.read_images(images_file, (28, 28))[..., None]
    whole = checked(NAME, images, labels[chosen.published], 10, where=f"{images_file} and {labels_file.name}")
    rows = slice(chosen.start, chosen.stop)
    return whole._replace(inputs=whole.inputs[rows], labels=whole.labels[rows])


def _file(folder: Path, stem: str) -> Path:
    for name in (f"{stem}.gz", stem):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} holds neither {stem}.gz nor {stem}. {_remedy(folder)}")


def _remedy(data_dir: str | Path | None) -> str:
    return (
        "Do one of these: `apt-get install dataset-fashion-mnist`; pass --data_dir with the folder of its four IDX "
        f"files; or `{tfds.command(NAME, data_dir)}`"
    )
