"""The reader of compiled programs, and the data sheets that programs are held against."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import localgrad as lg
from localgrad import target
from localgrad.blocks.convolution import convolution
from localgrad.machines.chips import CHIPS, chip_of, devices_of
from localgrad.machines.compile_for import predicted_tick
from localgrad.machines.program import read, size_of
from localgrad.report import largest_difference

TEXT = """HloModule jit_call

%inner.1 (a: f32[4]) -> f32[4] {
  %c = f32[4]{0} copy(%a)
  ROOT %r = f32[4]{0} add(%c, %c)
}

%body.2 (s: (s32[], f32[4])) -> (s32[], f32[4]) {
  %s = (s32[], f32[4]{0}) parameter(0)
  %p = (f32[8,4]{1,0}, f32[8,4]{1,0}) collective-permute-start(%x), source_target_pairs={{0,1}}
  %q = f32[8,4]{1,0} collective-permute-done(%p)
  %k = f32[4]{0} call(%y), to_apply=%inner.1
  %big = f32[16,4]{1,0:T(8,128)} copy(%z)
  %fetched = f32[32,4]{1,0:T(8,128)S(1)} copy(%z)
  %f = (f32[64,4]{1,0:T(8,128)}, f32[64,4]{1,0:T(8,128)S(1)}, u32[]) copy-start(%fetched)
  ROOT %t = (s32[], f32[4]{0}) tuple(%i, %k)
}

%cond.3 (s: (s32[], f32[4])) -> pred[] {
  ROOT %l = pred[] compare(%i, %n), direction=LT
}

ENTRY %main.4 (a: f32[4]) -> f32[4] {
  %w = (s32[], f32[4]{0}) while(%init), condition=%cond.3, body=%body.2
  %g = f32[2,4]{1,0} all-gather(%b), dimensions={0}
  %o = token[] outfeed(%g, %tok)
  ROOT %d = f32[4]{0} copy(%e)
}
"""


def test_what_stands_in_the_loop_and_what_does_not():
    found = read(TEXT)
    assert found.in_loop == {"collective-permute-start": 1, "copy": 3, "copy-start": 1}
    assert found.outside == {"all-gather": 1, "copy": 1}
    assert (found.copied, found.host) == (16 * 4 * 4, 1)


def test_a_program_of_this_machine_is_read():
    def call(x):
        return jax.lax.fori_loop(0, 3, lambda i, x: jnp.sin(x) @ x, x)

    text = jax.jit(call).lower(jnp.ones((4, 4))).compile().as_text()
    assert read(text).in_loop.get("all-gather", 0) == 0 and read(text).host == 0


@pytest.mark.parametrize(("shape", "size"), [("pred[3]", 3), ("bf16[2,2]{1,0}", 8), ("f64[]", 8), ("token[]", 0)])
def test_sizes(shape, size):
    assert size_of(shape) == size


@pytest.mark.parametrize("wrong", ["tpu", "tpu:v5e", "tpu:v1:2x4", "tpu:v5e:two", "gpu:h100:0", "", "cpu:8"])
def test_what_is_no_target_is_refused(wrong):
    with pytest.raises(ValueError, match="expected a chip and how many there are, such as tpu:v5e:2x4"):
        devices_of(wrong)


def test_the_dearest_of_arithmetic_memory_and_links_is_the_tick():
    chip = CHIPS["tpu:v5e"]
    assert chip_of("tpu:v5e:16x16")[1] == chip
    assert predicted_tick(chip, (chip.flops, 0.0), (0, 0), (0,)) == 1.0
    assert predicted_tick(chip, (1.0, 1.0), (0, int(chip.bandwidth)), (0,)) == 2.0
    assert predicted_tick(chip, (1.0, 1.0), (0, 0), (int(3 * chip.link),)) == 3.0


def test_the_platform_is_that_of_the_program_and_not_of_the_machine():
    """The convolution that is fast on a CPU is of programs for a CPU alone."""
    gradient = jax.grad(lambda k, x: jnp.sum(convolution(x, k, (1, 1), "SAME", dimension_numbers=orders(x, k))))
    of = lambda: str(jax.make_jaxpr(lambda k, x: gradient(k, x))(jnp.ones((3, 3, 2, 2)), jnp.ones((1, 8, 8, 2))))
    assert target.platform() == "cpu" and "optimization_barrier" in of()
    with target.traced_for("tpu"):
        assert target.platform() == "tpu" and "optimization_barrier" not in of()
    assert target.platform() == "cpu"


def orders(x, k):
    return jax.lax.conv_dimension_numbers(x.shape, k.shape, ("NHWC", "HWIO", "NHWC"))


@cache
def images():
    """A model of dkp of two convolutions, batches for it, and how it begins and ends in one program."""
    spec, rng = jax.ShapeDtypeStruct((6, 8, 8, 2), jnp.float64), np.random.default_rng(0)
    model = lg.dkp(lg.cnn((2, 3)), spec, 3, tx=optax.sgd(0.05))
    fed = lg.data.batches(rng.normal(size=(3, *spec.shape)), rng.integers(0, 3, (3, 6)).astype(np.int32))
    states = lg.init(model, jax.random.key(0))
    return model, fed, states, trained(lg.sequential(model), states, fed)


def trained(engine, states, fed):
    state, _ = engine.run(engine.load(states, jax.random.key(1)), fed)
    return jax.device_get(engine.states(state, fed))


@pytest.mark.parametrize("make", [lg.spmd, lg.mpmd])
def test_a_pipeline_is_made_for_its_mesh_where_the_default_devices_are_others(make, x64):
    """What dkp keeps of a convolution for its way back is not the same on all platforms."""
    model, fed, states, expected = images()
    with target.traced_for("tpu"):  # as on a machine that has one
        engine = make(model, stages=2, devices=jax.devices("cpu"), staleness="locked")
    assert largest_difference(trained(engine, states, fed), expected) < 1e-12
