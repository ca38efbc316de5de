"""Convolutions of images whose gradients are fast on a CPU.

Inside a loop, XLA's CPU compiler may lay the gradients of a convolution out in an order that its fast path does not
take, and falls back to a plain one: 8.3 s in place of 0.17 s for the weights of one 3x3 layer, 32 to 32 channels, 128
images of 28 x 28 (jax 0.10.2, two cores).  Here they are convolutions of the common order themselves, their operands
transposed before, and a barrier keeps the compiler from undoing that.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax

from localgrad import target

_ORDER = ("NHWC", "HWIO", "NHWC")
Pads = tuple[tuple[int, int], tuple[int, int]]


def convolution(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **options: Any,
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, of which it is a part on a CPU: plain convolutions of images, without groups.

    Flax's `Conv` takes it as `conv_general_dilated`; `from_linen` and `from_nnx` see to that.  There is no forward-mode
    derivative of that part.
    """
    plain = (
        target.platform() == "cpu"
        and lhs.ndim == 4
        and feature_group_count == 1
        and all(d == 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
        and dimension_numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, _ORDER)
    )
    if not plain:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            **options,
        )
    strides = (window_strides[0], window_strides[1])
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], strides, padding)
    (top, bottom), (left, right) = padding
    return _convolve(lhs, rhs, strides, ((top, bottom), (left, right)), tuple(options.items()))


def _plain(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Pads, options: tuple) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=_ORDER, **dict(options))


_convolve = jax.custom_vjp(_plain, nondiff_argnums=(2, 3, 4))


def _forward(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Pads, options: tuple):
    # Not `_convolve`: derivatives of gradients, taken forward, go through here.
    return _plain(x, kernel, strides, pads, options), (x, kernel)


def _backward(strides: tuple[int, int], pads: Pads, options: tuple, kept: tuple, signal: jax.Array):
    x, kernel = kept
    sizes = list(zip(x.shape[1:3], kernel.shape[:2], signal.shape[1:3], strides, pads, strict=True))
    # d x: the signal, spread by the strides, convolved with the kernel turned round.
    turned = lax.optimization_barrier(kernel[::-1, ::-1].swapaxes(2, 3))
    around = [(k - 1 - low, n + low - (m - 1) * s - 1) for n, k, m, s, (low, _) in sizes]
    own = lax.conv_general_dilated(
        signal, turned, (1, 1), around, lhs_dilation=strides, dimension_numbers=_ORDER, **dict(options)
    )
    # d kernel: images and signal exchange their batch for their channels, and the signal is the kernel.
    images, taps = lax.optimization_barrier((x.transpose(3, 1, 2, 0), signal.transpose(1, 2, 0, 3)))
    around = [(low, (m - 1) * s + k - n - low) for n, k, m, s, (low, _) in sizes]
    weights = lax.conv_general_dilated(
        images, taps, (1, 1), around, rhs_dilation=strides, dimension_numbers=_ORDER, **dict(options)
    )
    return own, weights.transpose(1, 2, 0, 3)


_convolve.defvjp(_forward, _backward)
