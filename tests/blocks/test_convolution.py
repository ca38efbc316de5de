"""The convolution that is fast on a CPU, against jax's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from localgrad.blocks import from_linen, from_nnx
from localgrad.blocks.convolution import _convolve, convolution

ORDER = ("NHWC", "HWIO", "NHWC")


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((2, 0), (1, 3))], ids=str)
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (1, 3)], ids=str)
@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (2, 5)], ids=str)
def test_values_and_gradients_are_those_of_jax(kernel, strides, padding, x64):
    rng = np.random.default_rng(0)
    x, w = jnp.asarray(rng.normal(size=(3, 8, 7, 2))), jnp.asarray(rng.normal(size=(*kernel, 2, 4)))
    numbers = jax.lax.conv_dimension_numbers(x.shape, w.shape, ORDER)

    def run(function):
        y, vjp = jax.vjp(lambda x, w: function(x, w, strides, padding, dimension_numbers=numbers), x, w)
        return y, *vjp(jnp.asarray(np.random.default_rng(1).normal(size=y.shape)))

    for ours, theirs in zip(run(convolution), run(jax.lax.conv_general_dilated), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def taken(function, *args) -> bool:
    return "custom_vjp_call" in str(jax.make_jaxpr(function)(*args))


def test_flax_layers_take_it():
    spec = jax.ShapeDtypeStruct((2, 6, 6, 1), jnp.float32)
    for block in (
        from_linen(linen.Sequential([linen.Conv(3, (3, 3)), linen.relu, linen.Conv(2, (3, 3))])),
        from_nnx(lambda rngs: nnx.Conv(1, 3, (3, 3), rngs=rngs)),
    ):
        params, state = block.init(jax.random.key(0), spec)
        run = lambda params, state, x, block=block: block.apply(params, state, x, key=None, train=True)[0]
        assert taken(run, params, state, jnp.ones(spec.shape))


@pytest.mark.parametrize(
    "conv",
    [linen.Conv(4, (3, 3), feature_group_count=2), linen.Conv(4, (3, 3), kernel_dilation=2), linen.Conv(4, (3,))],
)
def test_others_are_left_to_jax(conv):
    shape = (2, 6, 2) if len(conv.kernel_size) == 1 else (2, 6, 6, 2)
    block = from_linen(conv)
    params, state = block.init(jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    run = lambda params, x: block.apply(params, state, x, key=None, train=True)[0]
    assert not taken(run, params, jnp.ones(shape))


def test_a_layer_with_a_convolution_of_its_own_keeps_it():
    calls = []

    def own(*args, **options):
        calls.append(1)
        return jax.lax.conv_general_dilated(*args, **options)

    block = from_linen(linen.Conv(4, (3, 3), conv_general_dilated=own))
    spec = jax.ShapeDtypeStruct((2, 6, 6, 1), jnp.float32)
    params, state = block.init(jax.random.key(0), spec)
    calls.clear()
    assert not taken(lambda params: block.apply(params, state, jnp.ones(spec.shape), key=None, train=True)[0], params)
    assert calls


def test_trials_may_be_mapped_over(x64):
    rng = np.random.default_rng(0)
    x, w = jnp.asarray(rng.normal(size=(2, 3, 5, 5, 2))), jnp.asarray(rng.normal(size=(2, 3, 3, 2, 4)))
    loss = lambda x, w: jnp.sum(_convolve(x, w, (2, 2), ((1, 1), (1, 1)), ()) ** 2)
    plain = lambda x, w: jnp.sum(
        jax.lax.conv_general_dilated(x, w, (2, 2), ((1, 1), (1, 1)), dimension_numbers=ORDER) ** 2
    )
    ours, theirs = (jax.vmap(jax.grad(f, (0, 1)))(x, w) for f in (loss, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), ours, theirs)
