"""How long the gradients of one 3x3 convolution take inside a loop on a CPU: jax's own against the library's.

    python -m experiments.benchmarks.convolution        # two minutes

A `lax.scan` of one step, as the engines run; in turns, several repetitions.  Expect the library's to be tens of times
faster on a CPU; elsewhere both are the same function.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments import tables
from experiments.benchmarks import turns
from localgrad.blocks.convolution import convolution
from localgrad.cli import shell

flags.DEFINE_integer("batch_size", 128, "images")
flags.DEFINE_integer("size", 28, "height and width of an image")
flags.DEFINE_integer("channels", 32, "channels in and out")
turns.define_flags(5)
FLAGS = flags.FLAGS

ORDER = ("NHWC", "HWIO", "NHWC")


def in_a_loop(function, wanted: str):
    """A jitted scan of one step: the output, or the gradient along the images or the kernel."""

    def run(x: jax.Array, kernel: jax.Array) -> jax.Array:
        numbers = jax.lax.conv_dimension_numbers(x.shape, kernel.shape, ORDER)
        conv = functools.partial(function, window_strides=(1, 1), padding="SAME", dimension_numbers=numbers)

        def step(total: jax.Array, _: None) -> tuple[jax.Array, None]:
            own = x + total
            if wanted == "output":
                return total + conv(own, kernel).sum(), None
            of = (lambda own: conv(own, kernel)) if wanted == "images" else (lambda kernel: conv(own, kernel))
            y, vjp = jax.vjp(of, own if wanted == "images" else kernel)
            return total + vjp(y)[0].sum(), None

        return jax.lax.scan(step, jnp.zeros(()), None, length=1)[0]

    return jax.jit(run)


def main(argv: list[str]) -> int:
    tables.place(FLAGS.out, folder=True)
    shell.devices(1)
    batch, size, channels = (2, 6, 3) if FLAGS.smoke else (FLAGS.batch_size, FLAGS.size, FLAGS.channels)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(batch, size, size, channels)), jnp.float32)
    kernel = jnp.asarray(0.05 * rng.normal(size=(3, 3, channels, channels)), jnp.float32)
    wanted = ("output", "images", "kernel")
    each = (("jax", jax.lax.conv_general_dilated), ("localgrad", convolution))
    programs = {
        f"{name} {what}": functools.partial(in_a_loop(function, what), x, kernel)
        for what in wanted
        for name, function in each
    }
    seconds = turns.in_turns(programs, FLAGS.repetitions)
    cells, rows = [], {}
    for what in wanted:
        ours, theirs = (1e3 * np.array(seconds[f"{name} {what}"]) for name in ("localgrad", "jax"))
        ratio = float(np.median(theirs) / np.median(ours))
        rows[what] = {"jax_ms": theirs.tolist(), "localgrad_ms": ours.tolist(), "ratio": ratio}
        cells.append([what, f"{np.median(theirs):,.1f}", f"{np.median(ours):,.1f}", f"{ratio:.1f}"])
    title = f"One 3x3 convolution, {channels} to {channels} channels, {batch} images of {size} x {size}, inside a loop"
    header = ["wanted", "jax, ms", "localgrad, ms", "ratio"]
    note = f"{title}; median of {FLAGS.repetitions} in turns."
    tables.write("bench_convolution", header, cells, {"title": title, "rows": rows}, note)
    return 0


if __name__ == "__main__":
    app.run(main)
