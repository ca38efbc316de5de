"""Every method on every network: three batches on one and on three stages, in float64.

    python -m experiments.check_pairs

Thin networks of three blocks on 8 x 8 images, SGD with momentum, bubbles full of NaN.  Writes the largest difference of
any parameter, statistic or optimizer state to `experiments/results/check_pairs.json` and `.md`.  Expect at most 1e-12;
methods that need a signal from above are refused by the pipeline, with the reason.  Two cores, half an hour.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from experiments import setup, study
from experiments.pairs import THIN, thin
from localgrad import Model, init, sequential, spmd
from localgrad.data import batches
from localgrad.methods import METHODS
from localgrad.report import largest_difference

flags.DEFINE_list("methods", list(METHODS), "methods to check")
flags.DEFINE_list("nets", list(THIN), "networks to check")
flags.DEFINE_string("out", "experiments/results", "folder of the JSON and the markdown table")
setup.define_process_flags()
FLAGS = flags.FLAGS

BATCH, CLASSES, STAGES, LAW = 6, 3, 3, 1e-12


def apart(method: str, net: str) -> float | str:
    """The largest difference between one and three stages, or why the pipeline refuses."""
    spec = jax.ShapeDtypeStruct((BATCH, 8, 8, 1), jnp.float64)
    model = METHODS[method](thin(net), spec, CLASSES, lambda scale: optax.sgd(0.1 * scale, momentum=0.9))
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.normal(size=(3, *spec.shape)))
    fed = batches(xs, jnp.asarray(rng.integers(0, CLASSES, (3, BATCH)).astype(np.int32)))
    states, found = init(model, jax.random.key(0)), []
    if any(block.signal != "none" for block in model.blocks):
        return refusal(model)
    for engine in (sequential(model), spmd(model, stages=STAGES, bubble=float("nan"))):
        state, _ = engine.run(engine.load(states, jax.random.key(1)), fed)
        found.append(jax.device_get(engine.states(state, fed)))
    return largest_difference(*found)


def refusal(model: Model) -> str:
    """Why the pipeline refuses a model that needs a signal from above."""
    try:
        spmd(model, stages=STAGES)
    except ValueError as error:
        return str(error)
    raise AssertionError(f"the pipeline took {model.method!r}, which needs a signal from above.")


def main(argv: list[str]) -> int:
    for flag, given, known in (("methods", FLAGS.methods, METHODS), ("nets", FLAGS.nets, THIN)):
        if not set(given) <= set(known):
            return setup.refuse(f"--{flag}={','.join(given)}: there are {', '.join(known)}.")
    setup.devices(STAGES, x64=True)
    jax.config.update("jax_disable_most_optimizations", True)  # the law holds with and without; compiles faster
    table: dict[str, dict[str, float | str]] = {}
    for net in FLAGS.nets:
        table[net] = {}
        for method in FLAGS.methods:
            table[net][method] = apart(method, net)
            setup.say(f"{net} {method}: {table[net][method]}")
        jax.clear_caches()
    numbers: list[float] = [value for row in table.values() for value in row.values() if not isinstance(value, str)]
    show = lambda value: "refused" if isinstance(value, str) else f"{value:.0e}"
    cells = [[net, *map(show, row.values())] for net, row in table.items()]
    note = (
        f"Largest difference after three batches between one and {STAGES} stages, float64; {len(numbers)} pairs, the "
        f"largest {np.max(numbers):.1e}. Refused: the pipeline trains blocks with a loss of their own."
    )
    study.write("check_pairs", ["network", *FLAGS.methods], cells, {"rows": table}, note)
    return 0 if np.max(numbers) <= LAW else 1  # a NaN is neither


if __name__ == "__main__":
    app.run(main)
