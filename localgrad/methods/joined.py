"""Several blocks trained as one: gradients flow between them, up to the sum of their losses."""

from collections.abc import Mapping, Sequence

import jax
import optax

from localgrad.base import Block, BlockState, Forward, Key, LocalBlock, Message, PyTree, Spec
from localgrad.methods.groups import Optimizers, first_states, transforms
from localgrad.methods.parts import Parts, Run, Step, local_block, run_of


def joined_block(parts: Sequence[Parts], steps: Sequence[Step], tx: Optimizers) -> LocalBlock:
    """One LocalBlock of the parts and steps of several; its loss is the sum of theirs.

    Its groups are those of the blocks, each a dict `{"1": of the first block, "2": ...}`, so that one optimizer serves
    a group of all blocks, and norms and clips span them.  Metrics are sums over the blocks.

    Args:
      parts, steps: of each block, as `local_block` takes them.
      tx: one optax transform over the groups, or one by groups; see `transforms`.
    """

    def step(run: Run, message: Message, key: Key):
        total: dict[str, jax.Array] = {}
        for i, one in enumerate(steps):
            message, metrics = one(_of(run, i), message, key)
            total = {name: value + total[name] if name in total else value for name, value in metrics.items()}
        return message, total

    inner = local_block("+".join(part["f"].name for part in parts), _named(parts), step, optax.identity())

    named = dict.fromkeys(group for part in parts for group in part)  # each once, in order
    own_tx = transforms(tx, tuple(named))

    def init(key: Key, message: Spec) -> BlockState:
        state = inner.init(key, message)
        params = _nested(state.params)
        return BlockState(params, _nested(state.model_state), first_states(own_tx, params, key))

    def forward(state: BlockState, message: Message, key: Key) -> Forward:
        own = BlockState(_flat(state.params), _flat(state.model_state), ())
        found = inner.forward(own, message, key)
        return found._replace(model_state=_nested(found.model_state), grads=_nested(found.grads))

    return inner._replace(init=init, forward=forward, tx=own_tx, made_of=None)


def _of(run: Run, index: int) -> Run:
    return lambda group, x: run(f"{group} {index + 1}", x)


def joined_runs_of(parts: Sequence[Parts], state: BlockState, key: Key | None = None) -> list[Run]:
    """`run_of` of each of the blocks that a joined one is made of; all draw from its key."""
    run = run_of(_named(parts), BlockState(_flat(state.params), _flat(state.model_state), ()), key)
    return [_of(run, i) for i in range(len(parts))]


def _named(parts: Sequence[Parts]) -> dict[str, Block]:
    return {f"{group} {i + 1}": block for i, part in enumerate(parts) for group, block in part.items()}


def _nested(tree: Mapping[str, PyTree]) -> dict[str, dict[str, PyTree]]:
    found: dict[str, dict[str, PyTree]] = {}
    for name, value in tree.items():
        group, _, index = name.partition(" ")
        found.setdefault(group, {})[index] = value
    return found


def _flat(tree: dict[str, dict[str, PyTree]]) -> dict[str, PyTree]:
    return {f"{group} {index}": value for group, each in tree.items() for index, value in each.items()}
