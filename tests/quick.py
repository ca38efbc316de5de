"""An environment in which jax compiles in a third of the time, for tests that compare no bits of two programs.

Without its optimizations the compiler rounds a block differently in programs of different stages.
"""

import os
from importlib.metadata import version

import localgrad  # noqa: F401  # puts its remedy into XLA_FLAGS

# Later compilers do not know the second option, and stop at one that they do not know.
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
if version("jax").startswith("0.10."):
    QUICK["XLA_FLAGS"] = f"{os.environ['XLA_FLAGS']} --xla_cpu_use_fusion_emitters=false"
