"""Pipelines compiled for chips that are not here, where their compiler is installed."""

import importlib.util

import jax
import jax.numpy as jnp
import optax
import pytest

import localgrad as lg
from localgrad.machines import compile_for, format_compiled
from localgrad.machines.chips import devices_of

TPU = "tpu:v5e:2x4"
SPEC = jax.ShapeDtypeStruct((16, 8, 8, 1), jnp.float32)
compiler = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


@compiler
@pytest.mark.slow
@pytest.mark.bits
def test_local_methods_send_beside_their_work_and_gather_nothing_in_the_loop():
    model = lg.al(lg.cnn((4, 4)), SPEC, 3, tx=optax.sgd(0.1), target_width=8)
    found = compile_for(model, TPU, stages=2, batches=3)
    assert found.fits and found.program.host == 0 and found.held > 0
    assert found.program.in_loop["collective-permute-start"] > 0
    for waited_for in ("collective-permute", "all-gather", "all-reduce"):
        assert waited_for not in found.program.in_loop
    text = format_compiled(found)
    assert "2 stages, 1 data shards" in text and "fits" in text and "predicted by the data sheet" in text


@compiler
@pytest.mark.slow
@pytest.mark.bits
def test_what_a_device_holds_does_not_grow_with_depth_and_no_weights_are_copied():
    held, width = [], 128
    for depth in (2, 4):
        spec = jax.ShapeDtypeStruct((8, width), jnp.float32)
        found = compile_for(lg.early_exit(lg.mlp((width,) * depth), spec, 3, tx=optax.adam(1e-3)), TPU, stages=depth)
        held.append(found.arguments)
        assert found.program.copied < width * width * 4
    assert held[1] <= 1.1 * held[0]


@compiler
def test_too_few_chips_and_no_such_topology_are_refused():
    model = lg.early_exit(lg.mlp((4,) * 9), jax.ShapeDtypeStruct((8, 4), jnp.float32), 3, tx=optax.sgd(0.1))
    with pytest.raises(ValueError, match="needs 9 devices; tpu:v5e:2x4 has 8"):
        compile_for(model, TPU, stages=9)
    with pytest.raises(ValueError, match="the compiler has no topology tpu:v5e:3x5"):
        compile_for(model, "tpu:v5e:3x5", stages=2)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_the_compiler_one_line_says_how_to_get_it():
    with pytest.raises(ImportError, match=r"a compiler for tpu:v5e:2x4 is not installed .* pip install 'jax\[tpu\]'"):
        devices_of(TPU)
