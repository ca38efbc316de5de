import hashlib
from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import BlockState
from localgrad.report.digest import largest_difference, params_sha256

F32 = jnp.float32


def states(**changes: Any) -> list[BlockState]:
    leaves = {"w": jnp.arange(6, dtype=F32).reshape(2, 3), "b": jnp.ones(3, F32), "n": jnp.int32(4), **changes}
    params = {"f": {"w": leaves["w"], "b": leaves["b"]}, "g": (leaves["b"],)}
    return [BlockState(params, {"f": {"n": leaves["n"]}}, leaves.get("opt", ())), BlockState({"f": {}}, {}, ())]


def test_against_the_definition() -> None:
    """Block by block, by sorted key path: path, dtype, shape, bytes."""
    expected = hashlib.sha256()
    ones = np.ones(3, "<f4")
    for header, array in [
        ("0['model_state']['f']['n'] int32 ()", np.asarray(4, "<i4")),
        ("0['params']['f']['b'] float32 (3,)", ones),
        ("0['params']['f']['w'] float32 (2, 3)", np.arange(6, dtype="<f4")),
        ("0['params']['g'][0] float32 (3,)", ones),
    ]:
        expected.update(header.encode() + array.tobytes())
    assert params_sha256(states()) == expected.hexdigest()


def test_a_key_is_its_numbers() -> None:
    one, two = (params_sha256(states(n=jax.random.key(seed))) for seed in (1, 2))
    assert one == params_sha256(states(n=jax.random.key_data(jax.random.key(1)))) != two


def test_what_it_depends_on() -> None:
    first = params_sha256(states())
    assert params_sha256(states()) == first
    assert params_sha256(states(opt=jnp.ones(2, F32))) == first  # the optimizer is not the network
    nudged = np.arange(6, dtype=np.float32).reshape(2, 3)
    nudged[1, 1] = np.nextafter(nudged[1, 1], 9)
    others = [
        states(w=jnp.asarray(nudged)),
        states(w=jnp.arange(6, dtype=F32).reshape(3, 2)),
        states(b=jnp.zeros(3, F32)),
        states(b=-jnp.zeros(3, F32)),  # another bit
        states(n=jnp.int32(5)),
        states(n=jnp.uint8(4)),
        states()[::-1],
        states()[:1] * 2,
    ]
    assert len({first, *map(params_sha256, others)}) == 1 + len(others)


def test_host_arrays_order_and_byte_order_do_not_matter() -> None:
    plain = states()
    host = [BlockState(*(_to_host(tree) for tree in state)) for state in plain]
    assert params_sha256(host) == params_sha256(plain)


def _to_host(tree: Any) -> Any:
    """Numpy arrays of the other byte order, dicts the other way round."""
    if isinstance(tree, dict):
        return OrderedDict((key, _to_host(tree[key])) for key in reversed(list(tree)))
    if isinstance(tree, tuple):
        return tuple(map(_to_host, tree))
    array = np.asarray(tree)
    return array.astype(array.dtype.newbyteorder(">"))


def test_the_largest_difference_sees_a_nan_anywhere() -> None:
    zeros = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2)), "c": jnp.zeros((0,))}
    assert largest_difference(zeros, zeros) == 0.0
    assert largest_difference(zeros, {**zeros, "b": zeros["b"].at[1, 0].set(-2.0)}) == 2.0
    for leaf in "ab":
        assert np.isnan(largest_difference(zeros, {**zeros, leaf: zeros[leaf].at[-1].set(jnp.nan)}))
