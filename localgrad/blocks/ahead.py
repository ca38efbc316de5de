"""Whether a network of sequences looks ahead, which must not be where the next token is to be predicted."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import Block


def looks_ahead(network: Sequence[Block], x_spec: jax.ShapeDtypeStruct) -> str | None:
    """The name of the first block whose output at a place depends on a later place of the input; None if none does.

    It is tried and not proved: a few sequences of random ids or numbers are changed in their later half.

    Args:
      network: Blocks that hand on `(B, T, ...)`.
      x_spec: of the inputs, `(B, T)` of token ids or `(B, T, ...)`.

    Raises:
      ValueError: for sequences of a single place.
    """
    length = x_spec.shape[1]
    if length < 2:
        raise ValueError(f"inputs are {x_spec.shape}: a sequence of one place has nothing ahead.")
    rng = np.random.default_rng(0)
    shape, half = (2, *x_spec.shape[1:]), length // 2
    whole = jnp.issubdtype(x_spec.dtype, jnp.integer)
    draw = lambda: rng.integers(1, 3, shape) if whole else rng.normal(size=shape)
    x, other = jnp.asarray(draw(), x_spec.dtype), jnp.asarray(draw(), x_spec.dtype)
    changed = other.at[:, :half].set(x[:, :half])
    for i, block in enumerate(network):
        key = jax.random.fold_in(jax.random.key(0), i)
        spec = jax.ShapeDtypeStruct(x.shape, x.dtype)
        params, model_state = jax.jit(lambda key, block=block, spec=spec: block.init(key, spec))(key)
        apply = jax.jit(lambda *given, block=block: block.apply(*given, key=None, train=False)[0])
        x, changed = (apply(params, model_state, each) for each in (x, changed))
        if not bool(jnp.allclose(x[:, :half], changed[:, :half], rtol=1e-3, atol=1e-5)):
            return block.name
    return None
