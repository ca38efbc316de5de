"""The law of this library as functions that you call on a block, model, task or schedule of your own.

Each raises an AssertionError that names the block, the leaf and the difference, and says what to do.  `check_model`
runs all that apply to a model.  Make models in float64 (`with jax.enable_x64(True)`): there the law is exact to
rounding.
"""

from localgrad.testing.blocks import check_block as check_block
from localgrad.testing.checkpoints import check_round_trip as check_round_trip
from localgrad.testing.engines import check_bubbles as check_bubbles
from localgrad.testing.engines import check_engines as check_engines
from localgrad.testing.engines import engine_pairs as engine_pairs
from localgrad.testing.examples import random_batches as random_batches
from localgrad.testing.isolation import check_isolation as check_isolation
from localgrad.testing.keys import check_keys as check_keys
from localgrad.testing.model import check_model as check_model
from localgrad.testing.padding import check_padding as check_padding
from localgrad.testing.schedules import check_schedule as check_schedule
from localgrad.testing.tasks import check_task as check_task
from localgrad.testing.traces import check_traces as check_traces
from localgrad.testing.variants import check_trials as check_trials
from localgrad.testing.variants import check_variants as check_variants
