"""A remedy for a fault of XLA's CPU compiler, which this package puts in place when it is imported.

Since jaxlib 0.10.1 the option `xla_cpu_experimental_ynn_fusion_type` has `reduce` on by default, and with it the
compiler sums some products wrongly and says nothing: `sum((A @ B) * A, -1)` is NaN, or off by twenty orders of
magnitude.  The option is read once, when jax makes its first backend, from the environment variable `XLA_FLAGS`.
"""

import os
import warnings
from collections.abc import MutableMapping

import jax
import jaxlib
from jax._src import xla_bridge  # nothing public tells whether there is a backend without making one

OPTION = "xla_cpu_experimental_ynn_fusion_type"
REMEDY = f"--{OPTION}=-reduce"
_LAST_TRIED = (0, 12)  # the last jaxlib whose option and fault were seen; XLA stops at an option that it does not know
_LIBRARY = "libjax_common.so"


def sum_correctly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Adds the remedy to `XLA_FLAGS`, unless the user has set that option or this jaxlib does not know it.

    Args:
      environment: where `XLA_FLAGS` stands.

    Warns:
      RuntimeWarning: where it is too late, because jax has made a CPU backend without the remedy.
    """
    flags = environment.get("XLA_FLAGS", "")
    if OPTION in flags or not _knows_option():
        return
    if not xla_bridge.backends_are_initialized():
        environment["XLA_FLAGS"] = f"{flags} {REMEDY}".strip()
    elif jax.default_backend() == "cpu":
        warnings.warn(
            "jax was used before localgrad was imported, and its CPU compiler sums some products wrongly. Import "
            f"localgrad before the first use of jax, or start Python with XLA_FLAGS={REMEDY}.",
            RuntimeWarning,
            stacklevel=3,
        )


def _knows_option() -> bool:
    """Whether this jaxlib has the option: by its number where it was tried, else by looking into its library."""
    version = tuple(int(part) for part in jaxlib.__version__.split(".")[:2])
    return version <= _LAST_TRIED or _stands_in_library()


def _stands_in_library() -> bool:
    """Whether the option's name stands in jaxlib's compiled library; False where there is no such file."""
    library = os.path.join(os.path.dirname(jaxlib.__file__), _LIBRARY)
    if not os.path.exists(library):
        return False
    import mmap

    with open(library, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(OPTION.encode()) >= 0
