"""Every method on every kind of network, compiled for accelerators that need not be here: what a device holds and does.

    pip install 'localgrad[tpu]'
    python -m experiments.benchmarks.compiled                              # tpu:v5e:2x4, 4 stages
    python -m experiments.benchmarks.compiled --target=tpu:v5e:16x16 --stages=16 --data_parallel=16 --nets=mlp \
      --methods=al,scl,dkp

Writes experiments/results/compiled_TARGET.md and .json, row by row; rows that are there are not compiled again.  A row
that cannot be says why.  The numbers are of the compiled program; predictions are a roofline of the data sheet.
"""

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from absl import app, flags

from experiments import tables
from experiments.benchmarks.compiled_rows import cells, kept, markdown
from localgrad.base import Block, Model
from localgrad.blocks import NETWORKS
from localgrad.cli import shell
from localgrad.machines import compile_for
from localgrad.methods import METHODS
from localgrad.report import table
from localgrad.training.workdir import write_json

flags.DEFINE_string("target", "tpu:v5e:2x4", "a chip and how many there are")
flags.DEFINE_integer("stages", 4, "of the pipeline")
flags.DEFINE_integer("data_parallel", 1, "data shards")
flags.DEFINE_integer("batch_size", 128, "examples of a shard")
flags.DEFINE_list("methods", list(METHODS), "which")
flags.DEFINE_list("nets", ["mlp", "cnn", "vgg11", "resnet20", "bilstm", "transformer"], "on which networks")
flags.DEFINE_string("out", "experiments/results", "folder of the result files")
shell.define_process_flags()
FLAGS = flags.FLAGS

CLASSES = 10
# By network: its blocks for so many stages, and the shape and type of an example.
NETS: dict[str, tuple[Callable[[int], list[Block]], tuple[int, ...], Any]] = {
    "mlp": (lambda stages: NETWORKS["mlp"](widths=(512,) * stages), (784,), jnp.float32),
    "cnn": (lambda stages: NETWORKS["cnn"](widths=(32,) * max(4, stages)), (32, 32, 3), jnp.float32),
    "vgg11": (lambda stages: NETWORKS["vgg11"](), (32, 32, 3), jnp.float32),
    "resnet20": (lambda stages: NETWORKS["resnet20"](), (32, 32, 3), jnp.float32),
    "bilstm": (
        lambda stages: NETWORKS["bilstm"](words=5000, widths=(128,) * stages, embed_width=128),
        (64,),
        jnp.int32,
    ),
    "transformer": (lambda stages: NETWORKS["transformer"](words=5000, layers=stages, width=132), (64,), jnp.int32),
}


def model_of(method: str, net: str) -> Model:
    """A method on a network, at the size of these tables.

    Raises:
      ValueError: if the method refuses the network.
    """
    make, shape, dtype = NETS[net]
    spec = jax.ShapeDtypeStruct((FLAGS.batch_size * FLAGS.data_parallel, *shape), dtype)
    return METHODS[method](make(FLAGS.stages), spec, CLASSES, lambda scale: optax.adam(1e-3 * scale))


def row_of(method: str, net: str) -> dict[str, Any]:
    """What one compiled program holds and does, or why there is none."""
    try:
        found = compile_for(model_of(method, net), FLAGS.target, stages=FLAGS.stages, data_parallel=FLAGS.data_parallel)
    except ImportError:
        raise
    except Exception as error:  # of the method, or of the compiler: a row of the table
        return {"refused": f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"}
    return {**found._asdict(), "program": found.program._asdict(), "held": found.held, "fits": found.fits}


def main(argv: list[str]) -> int:
    """Compiles what is not in the file yet."""
    if len(argv) > 1:
        return shell.refuse(f"unexpected arguments {argv[1:]}: every option is a --flag=value.")
    jax.config.update("jax_platforms", "cpu")
    path = tables.place(FLAGS.out, folder=True) / f"compiled_{FLAGS.target.replace(':', '_')}"
    setting = {
        "target": FLAGS.target, "stages": FLAGS.stages, "data_parallel": FLAGS.data_parallel,
        "batch_size": FLAGS.batch_size, "jax": jax.__version__,
    }  # fmt: skip
    before = json.loads(path.with_suffix(".json").read_text()) if path.with_suffix(".json").exists() else None
    result = {"command": shell.command_line(), **setting, "rows": kept(before, setting)}
    try:
        for net in FLAGS.nets:
            for method in FLAGS.methods:
                name = f"{method}, {net}"
                if name not in result["rows"]:
                    result["rows"][name] = row_of(method, net)
                    shell.say(table(["", "", *[""] * 6], [cells(name, result["rows"][name])]).strip())
                    write_json(path.with_suffix(".json"), result)
                    path.with_suffix(".md").write_text(markdown(result))
    except (ImportError, KeyError) as error:
        return shell.refuse(str(error))
    return 0


if __name__ == "__main__":
    app.run(main)
