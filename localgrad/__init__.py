"""Networks whose blocks learn from their own losses, and a pipeline that trains all blocks at once.

The pipeline gives the same numbers as training the blocks one after another.
"""

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

from localgrad import data
from localgrad import xla as _xla
from localgrad.base import (
    Backward,
    Batches,
    Block,
    BlockState,
    DivergedError,
    Engine,
    Forward,
    LocalBlock,
    Metrics,
    Model,
    Plan,
    Schedule,
    Source,
)
from localgrad.blocks import (
    alexnet,
    basic_cnn,
    bilstm,
    chain,
    cnn,
    compute_dtype,
    convnet,
    embedding,
    from_linen,
    from_nnx,
    mlp,
    register_network,
    regroup,
    remat,
    resnet,
    transformer,
    two_conv,
    vanilla_cnn,
    vgg,
)
from localgrad.data import register_dataset
from localgrad.machines import compile_for, format_compiled
from localgrad.methods import (
    al,
    auglocal,
    bp,
    bp_fc,
    bp_matched,
    by_group,
    cdni,
    coarse_to_fine,
    critic,
    deep_supervision,
    dfa,
    dgl,
    direct_tp,
    dkp,
    dni,
    double_buffered,
    drtp,
    dtp,
    early_exit,
    ensemble,
    fa,
    ff,
    freeze,
    gim,
    graft,
    heads_alone,
    infopro,
    kernels,
    kp,
    layerwise,
    loco,
    mixed_error,
    mono_forward,
    noprop,
    overlapping,
    predsim,
    rotation,
    scl,
    simclr,
    transfer,
    transforms,
    trial_keys,
    trials,
    usf,
)
from localgrad.methods.heads import classifier
from localgrad.methods.output import error_block
from localgrad.methods.parts import classifying_model, local_block, waiting_block
from localgrad.methods.registry import register_method
from localgrad.methods.relayed import relay_block
from localgrad.pipeline import (
    balance,
    block_seconds,
    delays_of,
    init,
    mpmd,
    register_schedule,
    replayed,
    sequential,
    spmd,
)
from localgrad.report import format_ledger, ledger, params_sha256
from localgrad.tasks import Task, classification, multilabel, regression, tokens

if TYPE_CHECKING:
    from localgrad import evaluation, prediction, testing, training
    from localgrad.prediction.exporting import export as export
    from localgrad.results import write_report
    from localgrad.training import fit, load

__all__ = [  # noqa: RUF022  # grouped by purpose
    # The vocabulary
    "Backward",
    "Batches",
    "Block",
    "BlockState",
    "DivergedError",
    "Engine",
    "Forward",
    "LocalBlock",
    "Metrics",
    "Model",
    "Plan",
    "Schedule",
    "Source",
    # Training, and what comes of it: the trained network, its export, and a page of results
    "export",
    "fit",
    "load",
    "write_report",
    # What is learnt
    "Task",
    "classification",
    "multilabel",
    "regression",
    "tokens",
    # Blocks of modules, and of blocks
    "chain",
    "compute_dtype",
    "from_linen",
    "from_nnx",
    "regroup",
    "remat",
    # Networks
    "alexnet",
    "basic_cnn",
    "bilstm",
    "cnn",
    "convnet",
    "embedding",
    "mlp",
    "resnet",
    "transformer",
    "two_conv",
    "vanilla_cnn",
    "vgg",
    # Methods
    "al",
    "auglocal",
    "bp",
    "bp_fc",
    "bp_matched",
    "cdni",
    "critic",
    "deep_supervision",
    "dfa",
    "dgl",
    "direct_tp",
    "dkp",
    "dni",
    "drtp",
    "dtp",
    "early_exit",
    "fa",
    "ff",
    "gim",
    "infopro",
    "kp",
    "loco",
    "mono_forward",
    "noprop",
    "predsim",
    "rotation",
    "scl",
    "simclr",
    "usf",
    # What a method of your own is made of
    "classifier",
    "classifying_model",
    "error_block",
    "local_block",
    "relay_block",
    "transforms",
    "waiting_block",
    # Optimizers by group, weight decay, and transforms from a model to another model
    "by_group",
    "coarse_to_fine",
    "double_buffered",
    "ensemble",
    "freeze",
    "graft",
    "heads_alone",
    "kernels",
    "layerwise",
    "mixed_error",
    "overlapping",
    "transfer",
    "trial_keys",
    "trials",
    # Engines
    "balance",
    "block_seconds",
    "compile_for",
    "delays_of",
    "init",
    "mpmd",
    "replayed",
    "sequential",
    "spmd",
    # Reports
    "format_compiled",
    "format_ledger",
    "ledger",
    "params_sha256",
    # Names for the command line
    "register_dataset",
    "register_method",
    "register_network",
    "register_schedule",
    # Subpackages; `data` and `tasks` are imported with the library, the others on first use
    "data",
    "evaluation",
    "prediction",
    "tasks",
    "testing",
    "training",
    "__version__",
]

try:
    __version__ = metadata.version("localgrad")
except metadata.PackageNotFoundError:  # a checkout that is on Python's path and not installed
    __version__ = "0+unknown"

_xla.sum_correctly()  # it must come before the first use of a device; nothing above uses one


_LATE = {"fit": "training", "load": "training", "export": "prediction", "write_report": "results"}


def __getattr__(name: str) -> Any:
    """Imports the subpackages that need heavy packages, such as orbax, on first use."""
    if name in ("evaluation", "prediction", "testing", "training"):
        return importlib.import_module(f"localgrad.{name}")
    if name in _LATE:
        return getattr(importlib.import_module(f"localgrad.{_LATE[name]}"), name)
    raise AttributeError(f"module 'localgrad' has no attribute {name!r}")
