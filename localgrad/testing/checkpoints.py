"""States survive a checkpoint."""

import tempfile

import jax

from localgrad.base import Model
from localgrad.keys import is_key
from localgrad.pipeline import specs
from localgrad.testing.compare import assert_same, kind_of, leaves_of, name_of
from localgrad.testing.examples import States, or_first


def check_round_trip(model: Model, *, states: States | None = None) -> None:
    """The states of a model come back from a checkpoint with every bit, and every leaf of the kind that it was.

    Args:
      model: any model.
      states: by default those of `init`.

    Raises:
      AssertionError: naming the block, the leaf and what became of it.

    Examples:
      >>> import jax.numpy as jnp, localgrad as lg, optax
      >>> model = lg.dgl(lg.mlp((4,)), jax.ShapeDtypeStruct((8, 5), jnp.float32), 3, tx=optax.sgd(0.1))
      >>> check_round_trip(model)
    """
    from localgrad.training.checkpoints import Checkpoints  # brings orbax

    first = or_first(model, states)
    advice = "A state is a tree of arrays, in dicts, lists, tuples and named tuples: put what is not into arrays."
    for i, state in enumerate(first):
        for path, leaf in leaves_of(state):
            plain = isinstance(leaf, jax.Array) and not is_key(leaf)
            assert plain, f"{name_of(model, i)}: {path} is {kind_of(leaf)}, which a checkpoint cannot hold. {advice}"
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(folder)
        try:
            checkpoints.save(1, first, {})
            checkpoints.wait()
            found = checkpoints.restore(specs(model)[0])
        finally:
            checkpoints.close()
    assert found is not None, "the checkpoint that was just written was not found."
    for i, pair in enumerate(zip(found.states, first, strict=True)):
        assert_same(*pair, 0.0, f"{name_of(model, i)}, out of a checkpoint against before", advice)
