"""What a run reads: the three splits of its data, looked at before anything is made of them."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from localgrad import data, processes
from localgrad.training import manifest
from localgrad.training.checkpoint_reader import CheckpointReader
from localgrad.training.config import Config
from localgrad.training.workdir import folder_of

_RANGES = {"symmetric": (-1.0, 1.0), "unit": (0.0, 1.0)}


class Inputs(NamedTuple):
    """The data of a run.

    Attributes:
      splits: `train` (as it is trained on), `validation` and `test`.
      lengths: of texts, the lengths that batches may have; () of all others.
      stats: the pixel statistics that all splits share; None of texts.
      augment: what is done to training images, or None.
      epoch_steps: batches in an epoch.
    """

    splits: dict[str, data.Dataset]
    lengths: tuple[int, ...]
    stats: tuple[np.ndarray, np.ndarray] | None
    augment: data.Augment | None
    epoch_steps: int

    @property
    def train(self) -> data.Dataset:
        return self.splits["train"]


def read_inputs(config: Config) -> Inputs:
    """Reads the data of a run.

    Raises:
      ValueError: no such data, augmentation or batch, a split that is not like the training split, or another process
        of the run reads other data.
      FileNotFoundError: if the data are not there, saying how to get them.
    """
    augment = data.augmentation(config.augment, padding=config.padding or "zeros") if config.augment else None
    get = partial(data.get, data_dir=config.data_dir, max_length=config.max_length, vocabulary=config.vocabulary)
    splits = {split: get(config.dataset, split) for split in data.SPLITS}
    for split in data.SPLITS[1:]:
        splits[split] = _like_training(splits[split], split, splits["train"])
    train = data.with_label_noise(data.first(splits["train"], config.limit), config.label_noise)
    if config.batch_size > len(train.labels):
        raise ValueError(
            f"--batch_size={config.batch_size} is more than the {len(train.labels)} training examples of {train.name}."
        )
    splits["train"] = train
    processes.agree(lambda: _facts(config, splits))
    lengths = () if train.words is None else data.length_groups(train.inputs.shape[1])
    stats = _stats(config, train)
    return Inputs(splits, lengths, stats, augment, data.steps_per_epoch(train, config.batch_size, lengths))


def _like_training(each: data.Dataset, split: str, train: data.Dataset) -> data.Dataset:
    """A split with its columns in the order of training.

    Raises:
      ValueError: it is not like the training split; the message names it.
    """
    named = each._replace(name=f"the {split} split of {each.name}")
    found = data.alike(named, train)
    assert isinstance(found, data.Dataset)
    return found._replace(name=each.name)


def _stats(config: Config, train: data.Dataset) -> tuple[np.ndarray, np.ndarray] | None:
    """By what all splits are scaled; None of texts.

    Raises:
      ValueError: for a range of texts.
    """
    if config.scaling is not None:
        return data.range_stats(train, *_RANGES[config.scaling])
    return data.pixel_stats(train) if train.words is None else None


def _facts(config: Config, splits: dict[str, data.Dataset]) -> dict[str, Any]:
    """What a run reads from the disk, for its processes to compare: each may be on a machine of its own."""
    facts: dict[str, Any] = {
        f"{field} of the {split} split": value
        for split, found in fingerprints(splits).items()
        for field, value in found.items()
    }
    for folder in filter(None, (config.workdir, config.grow_from, config.begin_from)):
        facts[f"the checkpoints in {folder}"] = CheckpointReader(folder_of(folder) / "checkpoints").steps()
        facts[f"the summary in {folder}"] = (folder_of(folder) / "summary.json").exists()
    if config.word_vectors is not None and folder_of(config.word_vectors).is_file():
        facts["the bytes of --word_vectors"] = folder_of(config.word_vectors).stat().st_size
    return facts


def fingerprints(splits: Mapping[str, data.Dataset]) -> dict[str, dict[str, Any]]:
    """What tells other data apart, of each split."""
    return {split: data.fingerprint(dataset) for split, dataset in splits.items()}


def known_by(config: Config, inputs: Inputs) -> dict[str, Any]:
    """By what a run knows its data again: the fingerprints of the splits, and the digest of the word vectors' file."""
    found: dict[str, Any] = fingerprints(inputs.splits)
    if config.word_vectors is not None and (path := folder_of(config.word_vectors)).is_file():
        found["word_vectors"] = manifest.digest(path)[:12]
    return found
