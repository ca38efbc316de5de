"""Whether the data of a run are those that it was begun with.

A configuration has the data's name, and behind a name there may be other data later: a set that was prepared again,
another folder, a plugin that reads something else.  So each checkpoint's manifest has fingerprints of the splits.  A
run of `localgrad.fit` has them in its configuration.
"""

import json
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

from localgrad.training.checkpoint_reader import CheckpointReader
from localgrad.training.config_file import differences
from localgrad.training.workdir import folder_of


def check_same_data(here: Callable[[], Mapping[str, Any]], workdir: str | PathLike) -> None:
    """Refuses a workdir whose newest checkpoint has learnt from other data, or was evaluated on others.

    Args:
      here: `Job.data` of what is to go on there, or is to be evaluated.
      workdir: the folder of the run; one without a checkpoint, or of a version that wrote no fingerprints, is accepted.

    Raises:
      ValueError: naming the splits and what of them differs.
    """
    there = CheckpointReader(folder_of(workdir) / "checkpoints").newest().get("data")
    if not there:
        return
    found = json.loads(json.dumps(dict(here())))
    if not found or there == found:
        return
    told = "; ".join(differences("data", there, found))
    raise ValueError(
        f"{workdir} holds a run on other data: {told}. Give it the data as they were (another --data_dir, perhaps), or "
        "give this run another --workdir."
    )
