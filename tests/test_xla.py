import subprocess
import sys

import pytest

from localgrad import xla

# XLA's own fault: without the remedy the first sum is off by its own size in float64, and NaN in float32.
SUMS = """
{first}
import jax, jax.numpy as jnp, numpy as np
{second}
jax.config.update("jax_enable_x64", True)
x = np.random.default_rng(0).normal(size=(5, 60, 60))
right = np.sum((x @ np.full_like(x, 0.3)) * x, -1)
for dtype, bound in ((jnp.float64, 1e-14), (jnp.float32, 1e-6)):
    found = jax.jit(lambda x: jnp.sum((x @ jnp.full_like(x, 0.3)) * x, -1))(jnp.asarray(x, dtype))
    error = float(jnp.max(jnp.abs(found - right)) / np.max(np.abs(right)))
    assert error < bound, (dtype, error)
"""


def run(program: str, **environment: str) -> subprocess.CompletedProcess:
    own = {"PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu", **environment}
    return subprocess.run([sys.executable, "-W", "default", "-c", program], env=own, capture_output=True, text=True)


@pytest.mark.parametrize("first, second", [("import localgrad", ""), ("", "import localgrad")])
def test_products_are_summed_correctly_after_the_import(first, second):
    found = run(SUMS.format(first=first, second=second))
    assert found.returncode == 0, found.stderr


def test_the_fault_is_there_without_the_remedy():
    """If this fails, XLA has mended it: raise `_LAST_TRIED` no further, and let the remedy go with the last version."""
    assert run(SUMS.format(first="", second="")).returncode == 1


def test_a_user_who_was_too_late_is_told_what_to_do():
    found = run("import jax; jax.numpy.ones(3); import localgrad")
    assert "RuntimeWarning" in found.stderr and xla.REMEDY in found.stderr


def test_what_the_user_has_set_stays():
    given = {"XLA_FLAGS": f"--{xla.OPTION}=dot"}
    xla.sum_correctly(given)
    assert given == {"XLA_FLAGS": f"--{xla.OPTION}=dot"}


def test_the_remedy_joins_other_flags(monkeypatch):
    monkeypatch.setattr(xla.xla_bridge, "backends_are_initialized", lambda: False)
    given = {"XLA_FLAGS": "--xla_dump_to=/nowhere"}
    xla.sum_correctly(given)
    assert given == {"XLA_FLAGS": f"--xla_dump_to=/nowhere {xla.REMEDY}"}


def test_a_jaxlib_that_does_not_know_the_option_is_left_alone(monkeypatch):
    monkeypatch.setattr(xla.jaxlib, "__version__", "99.0.0")
    monkeypatch.setattr(xla, "_stands_in_library", lambda: False)
    monkeypatch.setattr(xla.xla_bridge, "backends_are_initialized", lambda: False)
    given: dict[str, str] = {}
    xla.sum_correctly(given)
    assert given == {}


def test_this_jaxlib_knows_the_option():
    assert xla._stands_in_library()
