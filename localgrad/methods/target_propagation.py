"""Difference target propagation (`dtp`): a block learns to make what would have suited the blocks above.

    h_l = f_l(h_{l-1})      G_l is learnt to undo f_l      B: examples of a batch; L: blocks without the classifier
    hhat_L = h_L - eta B d loss / d h_L                            the top target, from each example's own loss
    hhat_{l-1} = h_{l-1} + G_l(hhat_l) - G_l(h_l)                  on the way down, from block to block
    G_l descends 1/B sum |G_l(f_l(h_{l-1} + eps)) - (h_{l-1} + eps)|^2        at once, in the pass
    f_l descends 1/B sum |f_l(h_{l-1}) - sg(hhat_l)|^2             when its target has come

The classifier on top learns by its own gradient.  Sums are over units.  Targets are made by the inverses that have
learnt from the batch, at the features that its pass has made.

References:
  Lee et al., Difference Target Propagation, https://arxiv.org/abs/1412.7525, section 2.3, Eqs. 15 to 17
  Meulemans et al., A Theoretical Framework for Target Propagation, https://arxiv.org/abs/2006.14331, section 2
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from localgrad.base import Backward, Block, BlockState, Forward, Key, LocalBlock, Message, Model, PyTree
from localgrad.blocks import output_spec
from localgrad.blocks.flax import from_linen
from localgrad.blocks.sequences import summarised
from localgrad.methods.groups import Optimizers, transforms
from localgrad.methods.heads import classifier
from localgrad.methods.inverses import Inverse, check_numbers, squares, undone
from localgrad.methods.parts import Parts, Run, check, classifying_model, init_of, moving_run, run_of
from localgrad.tasks import Task

_NOISE = 0x6E6F6973  # sets the key of the noise apart from those of parts


def dtp(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    activation: str = "tanh",
    eta: float = 0.3277,
    noise: float = 0.36,
) -> Model:
    """Difference target propagation: targets come down block by block through learnt inverses.

    Args:
      network: Blocks `(B, ...) -> (B, ...)` of vectors or images, without a classifier.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs.
      classes: number of classes C, of labels 0 .. C - 1; or another task, see `localgrad.tasks`.
      tx: any optax transform over the groups f and inverse, of which each gets a state of its own, and head in the
        output block; the first block has no inverse.  Published: RMSprop for all (Lee), or Adam at 6.2e-5 for f and
        2.0e-3 for inverse (Meulemans).
      activation: of the inverses: the network's own, tanh as published; or `linear`.
      eta: how far the top target is from the output, times an example's own gradient.
      noise: deviation of what is added to a block's input while its inverse learns.

    Returns:
      A `Model` of `len(network) + 1` blocks whose only exit is the last.

    Raises:
      ValueError: for an unknown activation, numbers out of range, or blocks of sequences.
    """
    network, task = check(network, classes, "dtp")
    check_numbers("dtp", activation, eta, noise)
    parts: list[dict[str, Block]] = []
    given = x_spec
    for i, f in enumerate(network):
        made = output_spec(f, given)
        if any(len(spec.shape) not in (2, 4) for spec in (made, *([given] if i else []))):
            raise ValueError(
                f"method 'dtp' inverts blocks of vectors and images, and block {f.name!r} makes {made.shape} of "
                f"{given.shape}: use direct_tp."
            )
        inverse = from_linen(Inverse(given.shape[1:], activation), name="inverse")
        parts.append({"f": f, "inverse": inverse} if i else {"f": f})
        given = made
    parts.append({"head": summarised(network[-1], classifier(task.outputs))})
    blocks = [_targeted_block(part, tx, noise) for part in parts[:-1]]
    blocks.append(_output_block(parts[-1], task, tx, eta))
    return classifying_model("dtp", blocks, parts, [None] * len(network) + ["head"], x_spec, task)


def _targeted_block(parts: Parts, tx: Optimizers, noise: float) -> LocalBlock:
    """A block of `dtp`; the first one has nobody below, and no inverse."""
    inverts = "inverse" in parts
    own_tx = transforms(tx, ("inverse",) if inverts else (), ("f",))

    def step(run: Run, message: Message, key: Key) -> jax.Array:
        h = run("f", message["x"])
        return run("inverse", h) if inverts else h

    def reconstruct(state: BlockState, x: jax.Array, key: Key) -> tuple[dict[str, PyTree], dict[str, jax.Array]]:
        """The gradient of the inverse as a denoiser of the block's input, and what is reported of it."""
        noisy = x + noise * jax.random.normal(jax.random.fold_in(key, _NOISE), x.shape, x.dtype)
        seen = jax.lax.stop_gradient(run_of(parts, state, key)("f", noisy))
        away = lambda params: squares(undone(parts, params, seen) - noisy)
        loss, grads = jax.value_and_grad(away)(state.params["inverse"])
        return {"inverse": grads}, {"loss": loss, "inverse": loss}

    def forward(state: BlockState, message: Message, key: Key) -> Forward:
        message = jax.lax.stop_gradient(message)

        def features(params: PyTree):
            run, model_state = moving_run(parts, {**state.params, "f": params}, state, key)
            return run("f", message["x"]), model_state

        h, vjp, model_state = jax.vjp(features, state.params["f"], has_aux=True)
        grads, metrics = reconstruct(state, message["x"], key) if inverts else ({}, {})
        stash = {"vjp": vjp, "h": h, **({"x": message["x"]} if inverts else {})}
        return Forward({**message, "x": jax.lax.stop_gradient(h)}, model_state, grads, metrics, stash)

    def backward(state: BlockState, stash: PyTree, signal: PyTree) -> Backward:
        h, target = stash["h"], signal["target"]
        loss, away = jax.value_and_grad(lambda h: squares(h - target))(h)
        (own,) = stash["vjp"](away)
        below = None
        if inverts:  # with the inverse of now, which has learnt from this batch
            undo = lambda h: undone(parts, state.params["inverse"], h)
            below = {"target": stash["x"] + undo(target) - undo(h)}
        return Backward({"f": own}, {"loss": loss, "target": loss}, below)

    return LocalBlock(parts["f"].name, "above", init_of(parts, step, own_tx), forward, own_tx, backward)


def _output_block(parts: Parts, task: Task, tx: Optimizers, eta: float) -> LocalBlock:
    """The classifier of `dtp`, with which the way back begins."""
    own_tx = transforms(tx, ("head",))

    def step(run: Run, message: Message, key: Key) -> jax.Array:
        return run("head", message["x"])

    def forward(state: BlockState, message: Message, key: Key) -> Forward:
        message = jax.lax.stop_gradient(message)

        def loss(params: PyTree, x: jax.Array):
            run, model_state = moving_run(parts, {"head": params}, state, key)
            scores = run("head", x)
            return task.loss(scores, message["y"]), (scores, model_state)

        value, vjp, (scores, model_state) = jax.vjp(loss, state.params["head"], message["x"], has_aux=True)
        stash = {"vjp": vjp, "loss": value, "x": message["x"]}
        return Forward({**message, "x": jax.lax.stop_gradient(scores)}, model_state, stash=stash)

    def backward(state: BlockState, stash: PyTree, signal: PyTree) -> Backward:
        own, gradient = stash["vjp"](jnp.ones_like(stash["loss"]))
        target = stash["x"] - eta * len(gradient) * gradient
        return Backward({"head": own}, {"loss": stash["loss"]}, {"target": target})

    return LocalBlock("output", "above", init_of(parts, step, own_tx), forward, own_tx, backward)
