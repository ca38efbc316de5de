"""A network that no machine holds is refused by its shapes."""

import pytest

from localgrad.training import Config, prepare
from localgrad.training.memory import check_memory


@pytest.mark.parametrize(
    "change",
    [
        {"method": "al", "target_width": 8, "widths": (10**9,)},
        {"trials": 10**6, "widths": (2048,)},
        {"widths": (10**6, 10**6)},
        {"net": "cnn", "widths": (10**7,), "batch_size": 512},  # its images, not its kernels
    ],
)
def test_a_network_larger_than_memory(change, tmp_path):
    job = prepare(Config(**{"method": "early_exit", "workdir": str(tmp_path / "run"), **change}))
    with pytest.raises(ValueError, match=r"take [\d,]+ GiB, and .*; this machine has \d+: choose smaller --widths"):
        check_memory(job.model, job.config)


@pytest.mark.parametrize("change", [{"target_width": 2 * 10**9}, {"widths": (10**9, 10**9)}])
def test_an_array_beyond_what_the_compiler_counts(change, tmp_path):
    with pytest.raises(ValueError, match=r"an array of shape \(\d+, \d+\), [\d,]+ TiB: choose smaller --widths"):
        prepare(Config(**{"target_width": 8, "widths": (8,), "workdir": str(tmp_path / "run"), **change}))


def test_one_that_fits():
    job = prepare(Config(method="early_exit", widths=(8,)))
    check_memory(job.model, job.config)
