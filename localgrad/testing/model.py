"""All of the law that applies to a model."""

from localgrad.base import Batches, Model
from localgrad.registry import check_known
from localgrad.testing.checkpoints import check_round_trip
from localgrad.testing.engines import check_bubbles, check_engines
from localgrad.testing.examples import States, or_first, or_random
from localgrad.testing.isolation import check_isolation
from localgrad.testing.keys import check_keys
from localgrad.testing.tasks import check_task
from localgrad.testing.traces import check_traces
from localgrad.testing.variants import check_trials, check_variants

PARTS = ("task", "traces", "keys", "isolation", "variants", "round_trip", "engines", "bubbles", "trials")


def check_model(
    model: Model,
    batches: Batches | None = None,
    *,
    stages: int = 2,
    states: States | None = None,
    without: tuple[str, ...] = (),
    tolerance: float | None = None,
) -> None:
    """A model keeps the whole law; the cheapest parts come first, so that a fault is named soon.

    Args:
      model: any model; small, and made in float64 for the law to be exact.
      batches: random ones by default, made from `x_spec` and the task.
      stages: of the pipeline; there must be as many devices, see jax's `jax_num_cpu_devices`.
      states: to begin with; by default those of `init`.
      without: parts to leave out, of `task`, `traces`, `keys`, `isolation`, `variants`, `round_trip`, `engines`,
        `bubbles` and `trials`.
      tolerance: see `check_engines`.

    Raises:
      AssertionError: naming the block, the leaf and the difference, and saying what to do.
      ValueError: for an unknown part.

    Examples:
      >>> import jax, jax.numpy as jnp, localgrad as lg, optax
      >>> model = lg.early_exit(lg.mlp((4,)), jax.ShapeDtypeStruct((8, 5), jnp.float32), 3, tx=optax.sgd(0.1))
      >>> check_model(model, without=("round_trip", "engines", "bubbles", "variants", "trials"))
    """
    for part in sorted(without):
        check_known("part", part, PARTS)
    if "task" not in without and batches is None:
        check_task(model.task)
    given = or_random(model, batches)
    first = or_first(model, states)
    if "traces" not in without:
        check_traces(model, given, states=first)
    if "keys" not in without:
        check_keys(model, given, states=first)
    if "isolation" not in without:
        check_isolation(model, given, states=first)
    if "variants" not in without:
        check_variants(model, given, states=first)
    if "round_trip" not in without:
        check_round_trip(model, states=first)
    if "engines" not in without:
        check_engines(model, given, stages=stages, states=first, tolerance=tolerance)
    if "bubbles" not in without:
        check_bubbles(model, given, stages=stages, states=first)
    if "trials" not in without and model.trials is None:
        check_trials(model, given, states=first)
