"""Accelerators by name: how they are described to the compiler, and what their makers say that they can do."""

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import jax


class Chip(NamedTuple):
    """One kind of device, by its data sheet.

    Attributes:
      flops: a second, dense, in bfloat16 with sums in float32.
      bandwidth: bytes a second of its memory.
      memory: bytes.
      link: bytes a second that it sends to others, all links together.
      source: the data sheet.
    """

    flops: float
    bandwidth: float
    memory: float
    link: float
    source: str


_TPU = "https://cloud.google.com/tpu/docs/"
CHIPS = {
    "tpu:v5e": Chip(197e12, 819e9, 16e9, 200e9, _TPU + "v5e"),
    "tpu:v5p": Chip(459e12, 2765e9, 95e9, 600e9, _TPU + "v5p"),
    "tpu:v6e": Chip(918e12, 1640e9, 32e9, 448e9, _TPU + "v6e"),
    "gpu:h100": Chip(989e12, 3350e9, 80e9, 450e9, "https://www.nvidia.com/en-us/data-center/h100/ (SXM)"),
}
_MISSING = re.compile("not found|Unable to find|not implemented|No module|unknown backend|not installed|libtpu.so")
# libtpu would ask the machine that it stands in about itself, and keep other processes from loading it.
_ALONE = {
    "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}  # fmt: skip
# What XLA wants to know of an H100 to compile for it where there is none.
_H100 = """gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 3352320000000
l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84929347584 shared_memory_per_block_optin: 232448
cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536 }
platform_name: "CUDA" dnn_version_info { major: 9 minor: 28 } runtime_version { major: 13 minor: 0 }
device_description_str: "NVIDIA H100 80GB HBM3" """


def chip_of(target: str) -> tuple[str, Chip, str]:
    """The name, the data sheet and the arrangement of a target such as `tpu:v5e:2x4`.

    Raises:
      ValueError: for what is none, naming the chips that are known.

    Examples:
      >>> chip_of("tpu:v5e:2x4")[0], chip_of("gpu:h100:8")[2]
      ('tpu:v5e', '8')
    """
    name, _, shape = target.rpartition(":")
    if name not in CHIPS or not re.fullmatch(r"\d+(x\d+)*" if name.startswith("tpu") else r"[1-9]\d*", shape):
        known = ", ".join(f"{chip}:{'2x4' if chip.startswith('tpu') else '8'}" for chip in CHIPS)
        raise ValueError(f"target {target!r}: expected a chip and how many there are, such as {known}.")
    return name, CHIPS[name], shape


def devices_of(target: str) -> Sequence[jax.Device]:
    """The devices of a topology, for which programs can be compiled and on which none can run.

    Raises:
      ValueError: for an unknown target, or one that the compiler does not know.
      ImportError: if the compiler is not installed, with the command that installs it.
    """
    from jax.experimental import topologies

    name, _, shape = chip_of(target)
    for variable, value in _ALONE.items():
        os.environ.setdefault(variable, value)
    platform, package = ("tpu", "jax[tpu]") if name.startswith("tpu") else ("cuda", "jax[cuda13]")
    where = {"topology_name": f"{name.partition(':')[2]}:{shape}"}
    if platform == "cuda":
        where = {"topology": f"1x1x{shape}", "target_config": _H100}
    try:
        return topologies.get_topology_desc(platform=platform, **where).devices
    except Exception as error:  # of the plugin, its compiler, or because neither is there
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if _MISSING.search(str(error)) or isinstance(error, KeyError | ImportError):
            raise ImportError(
                f"a compiler for {target} is not installed ({reason}): pip install '{package}'."
            ) from None
        raise ValueError(f"the compiler has no topology {target}: {reason}") from None
