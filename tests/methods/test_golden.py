"""One training step of AL and of predsim restated in PyTorch: the same parameters in, the same parameters out."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.base import Batches, BlockState, Model
from localgrad.blocks import cnn, mlp
from localgrad.methods import al, predsim
from localgrad.pipeline import sequential

torch = pytest.importorskip("torch", reason="of the dev extra")
BATCH, CLASSES, WIDTH, RATE = 8, 3, 5, 0.01
LABELS = np.array([0, 1, 2, 0, 1, 2, 2, 1], np.int32)


def tensors(tree: Any) -> Any:
    """Arrays as float64 tensors that record gradients, in the same dicts."""
    return jax.tree.map(lambda x: torch.tensor(np.asarray(x), dtype=torch.float64, requires_grad=True), tree)


def dense(x: Any, layer: dict) -> Any:
    return x.flatten(1) @ layer["kernel"] + layer.get("bias", 0)


def assert_same(ours: Any, theirs: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b.detach().numpy(), rtol=0, atol=1e-5), ours, theirs)


def one_step(model: Model, states: tuple[BlockState, ...], x: np.ndarray, as_batches: Callable[..., Batches]):
    engine = sequential(model)
    state, metrics = engine.run(engine.load(states, jax.random.key(0)), as_batches(x[None], LABELS[None]))
    return engine.states(state), [float(values["loss"][0]) for values in metrics.values]


def test_one_step_of_al(x64: None, as_batches: Callable, random_states: Callable) -> None:
    """NECO's profile: two Adams a block, the second at twice the rate."""
    spec = jax.ShapeDtypeStruct((BATCH, 4), jnp.float64)
    tx = {"f+b": optax.adam(RATE), "g+h": optax.adam(RATE)}  # neco: g and h at twice that
    model = al(mlp((7, 6)), spec, CLASSES, tx=tx, profile="neco", target_width=WIDTH)
    states = random_states(model)
    x = np.random.default_rng(1).normal(size=(BATCH, 4))
    found, losses = one_step(model, states, x, as_batches)

    s, t = torch.tensor(x), torch.nn.functional.one_hot(torch.tensor(LABELS).long(), CLASSES).double()
    for i, state in enumerate(states):
        params = tensors(state.params)
        f, b, g, h = (params[group] for group in "fbgh")
        of = lambda *groups: [leaf for group in groups for leaf in jax.tree.leaves(group)]
        optimizers = [torch.optim.Adam(of(f, b), lr=RATE), torch.optim.Adam(of(g, h), lr=2 * RATE)]
        new_s = torch.nn.functional.elu(dense(s, f["Dense_0"]))
        new_t = torch.sigmoid(dense(t, g["Dense_0"]))
        bridged = torch.sigmoid(dense(torch.sigmoid(dense(new_s, b["Dense_0"])), b["Dense_1"]))
        decoded = torch.sigmoid(dense(new_t, h["Dense_0"]))
        loss = torch.nn.functional.mse_loss(bridged, new_t.detach()) + torch.nn.functional.mse_loss(decoded, t)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        np.testing.assert_allclose(losses[i], loss.item(), atol=1e-5)
        assert_same(found[i].params, params)
        s, t = new_s.detach(), new_t.detach()


def similarity(x: Any) -> Any:
    """The released code's: deviation over space (ddof 1) of images, centred rows, cosine, clamped."""
    if x.dim() == 4:
        x = x.flatten(2).std(dim=2)
    x = x - x.mean(dim=1, keepdim=True)
    x = x / (x.norm(dim=1, keepdim=True) + 1e-8)
    return (x @ x.T).clamp(-1, 1)


def test_one_step_of_predsim(x64: None, as_batches: Callable, random_states: Callable) -> None:
    """Two blocks of convolution, batch norm and leaky ReLU, and the output block; beta 0.99, one Adam a block."""
    beta, images = 0.99, (BATCH, 6, 6, 1)
    network = cnn((4, 6), norm=True, activation="leaky_relu")
    spec = jax.ShapeDtypeStruct(images, jnp.float64)
    model = predsim(network, spec, CLASSES, tx=optax.adam(RATE), beta=beta, pool=64)
    states = random_states(model)
    x = np.random.default_rng(1).normal(size=images)
    found, losses = one_step(model, states, x, as_batches)

    channels_first = lambda kernel: kernel.permute(3, 2, 0, 1)
    labels = torch.tensor(LABELS).long()
    target = similarity(torch.nn.functional.one_hot(labels, CLASSES).double())
    h = torch.tensor(x).permute(0, 3, 1, 2)
    for i, (state, stride) in enumerate(zip(states[:-1], (1, 2), strict=True)):
        params = tensors(state.params)
        conv, norm = params["f"]["Conv_0"], params["f"]["BatchNorm_0"]
        optimizer = torch.optim.Adam(jax.tree.leaves(params), lr=RATE)
        padded = torch.nn.functional.pad(h, (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1))  # as XLA's SAME
        h = torch.nn.functional.conv2d(padded, channels_first(conv["kernel"]), stride=stride)
        h = torch.nn.functional.batch_norm(h, None, None, norm["scale"], norm["bias"], training=True, eps=1e-5)
        h = torch.nn.functional.leaky_relu(h, 0.01)
        # pooled until C * H * W <= 64: 144 -> 72 -> 36 of 4 channels; 54 of 6 already fit
        pooled = torch.nn.functional.avg_pool2d(h, 2) if i == 0 else h
        scores = dense(pooled.permute(0, 2, 3, 1), params["pred"]["Dense_0"])
        projected = torch.nn.functional.conv2d(h, channels_first(params["sim"]["Conv_0"]["kernel"]), padding=1)
        loss = (1 - beta) * torch.nn.functional.cross_entropy(scores, labels)
        loss = loss + beta * torch.nn.functional.mse_loss(similarity(projected), target)
        loss.backward()
        optimizer.step()
        np.testing.assert_allclose(losses[i], loss.item(), atol=1e-5)
        assert_same(found[i].params, params)
        h = h.detach()
    params = tensors(states[-1].params)
    optimizer = torch.optim.Adam(jax.tree.leaves(params), lr=RATE)
    scores = dense(h.permute(0, 2, 3, 1), params["head"]["Dense_0"])
    loss = (1 - beta) * torch.nn.functional.cross_entropy(scores, labels)
    loss.backward()
    optimizer.step()
    np.testing.assert_allclose(losses[-1], loss.item(), atol=1e-5)
    assert_same(found[-1].params, params)
