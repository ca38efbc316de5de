"""A trainable block from named parts: what the methods are written in.

A block is a dict of Blocks, one a parameter group, and a function that runs them on a message.  It names a loss, or it
names outputs and what becomes of them once the error at the network's output is known.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import (
    Backward,
    Block,
    BlockState,
    Forward,
    Key,
    LocalBlock,
    Message,
    Model,
    PyTree,
    Spec,
    Transforms,
)
from localgrad.blocks.given import check_blocks
from localgrad.methods.groups import Optimizers, check_kernels, first_states, transforms
from localgrad.tasks import Task, as_task

Parts = Mapping[str, Block]  # by parameter group
Run = Callable[[str, jax.Array], jax.Array]  # `run(group, x)` applies a part
Step = Callable[[Run, Message, Key], tuple[dict[str, jax.Array], dict[str, jax.Array]]]  # see `local_block`

_HEADS = 0x68656164  # sets the keys of heads apart from those within the first part


class Answer(NamedTuple):
    """What a block makes of a signal.

    Attributes:
      cotangents: the gradient along the outputs of its step, which the block's own vjp carries to its parameters.
      metrics: a dict of scalars with at least `loss`.
      grads: gradients of groups that the step's outputs do not depend on.
    """

    cotangents: PyTree
    metrics: dict[str, jax.Array]
    grads: Mapping[str, PyTree] = MappingProxyType({})


class MadeOf(NamedTuple):
    """What `local_block` was given: `LocalBlock.made_of` of the blocks that it makes."""

    parts: Parts
    step: Step
    tx: Optimizers
    fixed: Sequence[str]


def local_block(
    name: str,
    parts: Parts,
    step: Step,
    tx: Optimizers,
    *,
    fixed: Sequence[str] = (),
) -> LocalBlock:
    """Makes a LocalBlock with a loss of its own.

    Args:
      name: the name in tables.
      parts: a Block for each parameter group; the first one alone is given the step's own key.
      step: `(run, message, key) -> (message, metrics)`, where `run(group, x)` applies a part and `metrics["loss"]` is
        what the block learns from.  The message it is given, and the one it returns, are detached.
      tx: one optax transform over the groups, or one by groups; see `transforms`.
      fixed: groups that do not learn.
    """
    learning = tuple(group for group in parts if group not in fixed)
    own_tx = transforms(tx, learning)

    def loss(params: dict[str, PyTree], state: BlockState, message: Message, key: Key):
        run, model_state = moving_run(parts, {**state.params, **params}, state, key)
        message, metrics = step(run, jax.lax.stop_gradient(message), key)
        return metrics["loss"], (message, model_state, metrics)

    def forward(state: BlockState, message: Message, key: Key) -> Forward:
        params = {group: state.params[group] for group in learning}
        grads, (message, model_state, metrics) = jax.grad(loss, has_aux=True)(params, state, message, key)
        return Forward(jax.lax.stop_gradient(message), model_state, grads, metrics)

    made_of = MadeOf(parts, step, tx, fixed)
    return LocalBlock(name, "none", init_of(parts, step, own_tx), forward, own_tx, made_of=made_of)


def waiting_block(
    name: str,
    parts: Parts,
    step: Callable[[Run, Message, Key], tuple[dict[str, jax.Array], PyTree, PyTree]],
    answer: Callable[[dict[str, PyTree], PyTree, PyTree, PyTree], Answer],
    tx: Optimizers,
    *,
    through: Sequence[str] | None = None,
    fixed: Sequence[str] = (),
) -> LocalBlock:
    """Makes a LocalBlock that learns from the error at the network's output (`signal='top'`).

    Args:
      name, parts, tx, fixed: as `local_block`.
      step: `(run, message, key) -> (message, outputs, kept)`: outputs that gradients flow through, and other arrays
        that the answer needs.
      answer: `(params, outputs, kept, signal) -> Answer`.
      through: the groups that the outputs depend on, all by default; the others learn from `Answer.grads`, or not at
        all.
    """
    groups = tuple(parts) if through is None else through
    own_tx = transforms(tx, tuple(group for group in parts if group not in fixed))

    def forward(state: BlockState, message: Message, key: Key) -> Forward:
        def outputs_of(params: dict[str, PyTree]):
            run, model_state = moving_run(parts, {**state.params, **params}, state, key)
            passed, outputs, kept = step(run, jax.lax.stop_gradient(message), key)
            return outputs, (passed, kept, model_state)

        params = {group: state.params[group] for group in groups}
        outputs, vjp, (passed, kept, model_state) = jax.vjp(outputs_of, params, has_aux=True)
        stash = {"vjp": vjp, "outputs": outputs, "kept": kept}
        return Forward(jax.lax.stop_gradient(passed), model_state, stash=stash)

    def backward(state: BlockState, stash: PyTree, signal: PyTree) -> Backward:
        found = answer(state.params, stash["outputs"], stash["kept"], signal)
        (own,) = stash["vjp"](found.cotangents)
        return Backward({**own, **found.grads}, found.metrics)

    return LocalBlock(name, "top", init_of(parts, step, own_tx), forward, own_tx, backward)


def init_of(parts: Parts, step: Callable, tx: Transforms) -> Callable[[Key, Spec], BlockState]:
    """`LocalBlock.init` of parts that a step runs: each is drawn for the shape and dtype that the step gives it."""

    known: dict[Hashable, dict[str, jax.ShapeDtypeStruct]] = {}

    def inputs_of(key: Key, message: Spec) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of what the step gives each part."""
        inputs: dict[str, jax.ShapeDtypeStruct] = {}

        def run(group: str, x: jax.Array) -> jax.Array:
            inputs[group] = jax.ShapeDtypeStruct(x.shape, x.dtype)
            params, model_state = parts[group].init(key, inputs[group])
            return parts[group].apply(params, model_state, x, key=key, train=True)[0]

        jax.eval_shape(lambda message: step(run, message, key), message)
        return inputs

    def init(key: Key, message: Spec) -> BlockState:
        keys = dict(zip(parts, jax.random.split(key, len(parts)), strict=True))
        leaves, structure = jax.tree.flatten(message)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        traced_as = structure, shapes, key.dtype, jax.dtypes.canonicalize_dtype(np.float64)
        if traced_as not in known:  # a model is traced for its shapes first, and then to be compiled
            known[traced_as] = inputs_of(key, message)
        variables = {group: parts[group].init(keys[group], x_spec) for group, x_spec in known[traced_as].items()}
        params = {group: variables[group][0] for group in parts}
        return BlockState(params, {group: variables[group][1] for group in parts}, first_states(tx, params, key))

    return init


def moving_run(parts: Parts, params: dict[str, PyTree], state: BlockState, key: Key | None) -> tuple[Run, dict]:
    """`run(group, x)` of training, or of prediction where `key` is None; and the model state, which `run` updates."""
    model_state = dict(state.model_state)

    def run(group: str, x: jax.Array) -> jax.Array:
        index = list(parts).index(group)
        own_key = key if key is None or not index else jax.random.fold_in(key, _HEADS + index)
        x, model_state[group] = parts[group].apply(
            params[group], model_state[group], x, key=own_key, train=key is not None
        )
        return x

    return run, model_state


def run_of(parts: Parts, state: BlockState, key: Key | None = None) -> Run:
    """`run(group, x)` of a block whose state stays as it is.

    Args:
      parts: a Block for each parameter group.
      state: of the block.
      key: None runs the parts as prediction does, with running statistics and without dropout; the key of a step runs
        them as that step does, with the statistics of the batch and the same random draws.
    """
    return moving_run(parts, state.params, state, key)[0]


def runs_of(parts: Sequence[Parts], states: Sequence[BlockState], keys: Sequence[Key] | None) -> list[Run]:
    """`run_of` for each of several blocks; `keys` are one a block, or None."""
    own_keys = [None] * len(parts) if keys is None else keys
    return [run_of(*each) for each in zip(parts, states, own_keys, strict=True)]


def classifying_model(
    method: str,
    blocks: Sequence[LocalBlock],
    parts: Sequence[Parts],
    heads: Sequence[str | None],
    x_spec: jax.ShapeDtypeStruct,
    task: Task,
    *,
    views: int = 1,
    image: bool = False,
    handed: Callable[[jax.Array, Key], jax.Array] | None = None,
    entered: Callable[[jax.Array, bool], jax.Array] | None = None,
) -> Model:
    """A Model of blocks `f`, some of which a classifier reads: `predict(exit=k)` is head k of f_k(...f_1(x)).

    The message is `{"x": features, "y": labels (B,)}`.

    Args:
      method: the method's name.
      blocks, parts: what each block is made of; a block without an `f` passes its input on.
      heads: for each block the group that gives scores of the classes, or None where there is none; the last has one.
      x_spec, task: as for every method.
      views: number of views of each example; with two, x is `(B, 2, ...)` and the message holds 2 B examples.
      image: the message carries the input of the network to every block, as `image`.
      handed: `(output of f, key of its block) -> what the block hands on in training`, where that is not the output.
      entered: `(inputs, train) -> what the first block sees of them`, where that is not the inputs; where an example
        becomes several rows, they follow each other.
    """
    exits = tuple(i + 1 for i, head in enumerate(heads) if head is not None)

    def seen(x: jax.Array, train: bool = True) -> jax.Array:
        """Inputs as the first block sees them."""
        x = x.reshape(-1, *x.shape[2:]) if train and views > 1 else x
        return x if entered is None else entered(x, train)

    def enter(x: jax.Array, y: jax.Array) -> Message:
        x = seen(x)
        message = {"x": x, "y": jnp.repeat(y, views, axis=0) if views > 1 else y}
        return {**message, "image": x} if image else message

    def path(states: tuple[BlockState, ...], x: jax.Array, top: int, keys: Sequence[Key] | None = None):
        """The outputs of f up to block `top`, and the scores that its head makes of the last."""
        outputs = []
        runs = runs_of(parts[:top], states[:top], None if keys is None else keys[:top])
        for i, (part, run) in enumerate(zip(parts, runs, strict=False)):
            if i and handed is not None and keys is not None:
                x = handed(x, keys[i - 1])
            if "f" in part:
                x = run("f", x)
                outputs.append(x)
        return outputs, runs[-1](str(heads[top - 1]), x)

    def predict(states: tuple[BlockState, ...], x: jax.Array, exit: int | None = None) -> jax.Array:
        return task.shaped(path(states, seen(x, False), checked_exit(exits, exit))[1], x)

    def features(states: tuple[BlockState, ...], x: jax.Array, keys: Sequence[Key] | None = None) -> list[jax.Array]:
        outputs, scores = path(states, seen(x, keys is not None), len(parts), keys)
        return [*summaries_of(parts, outputs), scores]

    used = [frozenset({"f"} & set(part)) for part in parts]
    used[-1] |= {str(heads[-1])}
    if views > 1:
        x_spec = jax.ShapeDtypeStruct((x_spec.shape[0], views, *x_spec.shape[1:]), x_spec.dtype)
    y_spec = task.y_spec(x_spec)
    names = (*names_of(parts), "scores")
    learning = {group for block in blocks for groups in block.tx for group in groups.split("+")}
    check_kernels(blocks, learning.union(*parts))
    return Model(method, tuple(blocks), x_spec, y_spec, task, enter, predict, features, exits, tuple(used), path=names)


def names_of(parts: Sequence[Parts]) -> list[str]:
    """Names in `Model.path` of the outputs of every part `f`, after the number of its block from 1."""
    return [f"f {i + 1}" for i, part in enumerate(parts) if "f" in part]


def summaries_of(parts: Sequence[Parts], outputs: Sequence[jax.Array]) -> list[jax.Array]:
    """What heads read of the outputs of every part `f`."""
    return [f.summary(y) for f, y in zip([part["f"] for part in parts if "f" in part], outputs, strict=True)]


def checked_exit(exits: Sequence[int], exit: int | None) -> int:
    """An exit that exists; the last for None.

    Raises:
      ValueError: naming those that do.
    """
    exit = exits[-1] if exit is None else exit
    if exit not in exits:
        raise ValueError(f"exit {exit} does not exist: this model has exits {', '.join(map(str, exits))}.")
    return exit


def check(
    network: Sequence[Block], task: Task | int, method: str, pool: int | None = None
) -> tuple[Sequence[Block], Task]:
    """The network as heads are to read it, and the task.

    Raises:
      ValueError: for an empty network, fewer than two classes, or a pool that is no number of features.
      TypeError: for a network of anything but Blocks, such as bare Flax modules, or what is no task.
    """
    check_blocks(network, "network")
    if not network:
        raise ValueError(f"method {method!r} needs a network of at least one block; got none.")
    task = as_task(task)
    if pool is not None and (not isinstance(pool, int) or pool < 1):
        raise ValueError(f"pool is a positive number of features, or None; got {pool!r}.")
    return ([_read_by_place(block) for block in network] if task.per_token else network), task


def needs_classes(task: Task, method: str, why: str) -> None:
    """Refuses a task without classes.

    Raises:
      ValueError: with the reason.
    """
    if task.classes is None or task.per_token:
        raise ValueError(f"method {method!r} is for classification, not for {task.name}: {why}.")


def _read_by_place(block: Block) -> Block:
    """A block of sequences whose every place is read by heads as an example of its own."""
    return block._replace(summary=lambda y: y.reshape(-1, y.shape[-1]))
