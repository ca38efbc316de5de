"""The feedback rules, each pinned by a law that it must obey, in float64."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from localgrad.base import Block, BlockState, Model
from localgrad.blocks import chain, cnn, from_linen, from_nnx, mlp, resnet
from localgrad.methods import METHODS, bp, bp_fc, dfa, dgl, dkp, drtp, fa, kp, usf
from localgrad.methods.feedback import back, feedbacks
from localgrad.pipeline import sequential
from localgrad.pipeline.step import gradients
from localgrad.training.optimizers import make_optimizer

BATCH, WIDTH, CLASSES = 8, 5, 3
SPEC = jax.ShapeDtypeStruct((BATCH, WIDTH), jnp.float64)
IMAGES = jax.ShapeDtypeStruct((BATCH, 4, 5, 2), jnp.float64)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(BATCH, WIDTH)), RNG.integers(0, CLASSES, BATCH).astype(np.int32)

pytestmark = pytest.mark.usefixtures("x64")


def linear(width: int) -> Block:
    return from_linen(linen.Dense(width), name=f"linear{width}")


def gradients_of(model: Model, x=X) -> Callable[[Sequence[BlockState]], list[dict]]:
    """Every block's gradients, as a function of the states that is compiled once."""
    keys = [jax.random.key(i) for i in range(len(model.blocks))]
    run = jax.jit(lambda states: gradients(model, states, model.enter(jnp.asarray(x), jnp.asarray(Y)), keys))
    return lambda states: [grads for _, grads, _ in run(tuple(states))]


def grads_of(model: Model, states: Sequence[BlockState], x=X) -> list[dict]:
    return gradients_of(model, x)(states)


def train(model: Model, states: Sequence[BlockState], steps: int, as_batches: Callable) -> list[tuple[BlockState, ...]]:
    """The states after each of some steps on fresh inputs."""
    engine = sequential(model)
    state, found = engine.load(tuple(states), jax.random.key(0)), []
    for i in range(steps):
        xs = np.random.default_rng(i).normal(size=(1, *model.x_spec.shape))
        state, _ = engine.run(state, as_batches(xs, Y[None], first=i))
        found.append(engine.states(state))
    return found


def with_params(state: BlockState, **groups) -> BlockState:
    return state._replace(params={**state.params, **groups})


def close(ours, theirs) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), ours, theirs)


def kernel_of(params: dict) -> jax.Array:
    """The kernel of the one dense layer of a group."""
    return next(x for x in jax.tree.leaves(params) if x.ndim == 2)


# --- the laws --------------------------------------------------------------------------------------------------------


def test_dfa_with_true_transposes_is_backpropagation_on_a_linear_network(random_states: Callable) -> None:
    """The way from block l to the scores is one matrix there, the product of the weights above it."""
    network = [linear(7), linear(6)]
    ours, theirs = (make(network, SPEC, CLASSES, tx=optax.sgd(0.1)) for make in (dfa, bp))
    first, second, output = random_states(ours)
    w_2, w_3 = kernel_of(second.params["f"]), kernel_of(output.params["head"])
    states = (
        with_params(first, feedback={"kernel": (w_2 @ w_3).T}),
        with_params(second, feedback={"kernel": w_3.T}),
        output,
    )
    top = BlockState({"f": second.params["f"], "head": output.params["head"]}, {"f": {}, "head": {}}, ())
    found, expected = grads_of(ours, states), grads_of(theirs, (first._replace(params={"f": first.params["f"]}), top))
    close(found[0]["f"], expected[0]["f"])
    close(found[1]["f"], expected[1]["f"])
    close(found[2]["head"], expected[1]["head"])


def test_dkp_is_kp_at_the_last_hidden_layer(random_states: Callable, as_batches: Callable) -> None:
    network = mlp((7,), activation="tanh")
    direct, chained = (make(network, SPEC, CLASSES, tx=optax.sgd(0.1, momentum=0.9)) for make in (dkp, kp))
    hidden, output = random_states(direct)
    matrix = hidden.params["feedback"]["kernel"]
    chained_states = (
        random_states(chained)[0]._replace(params={"f": hidden.params["f"]}),
        with_params(random_states(chained)[1], head=output.params["head"], feedback={"kernel": matrix.T}),
    )
    for ours, theirs in zip(
        train(direct, (hidden, output), 3, as_batches), train(chained, chained_states, 3, as_batches), strict=True
    ):
        close(ours[0].params["f"], theirs[0].params["f"])
        close(ours[1].params["head"], theirs[1].params["head"])
        close(ours[0].params["feedback"]["kernel"].T, theirs[1].params["feedback"]["kernel"])


@pytest.mark.parametrize(
    ("make", "times_rate"),
    [
        (kp, False),
        (dkp, True),
        pytest.param(kp, True, marks=pytest.mark.full),
        pytest.param(dkp, False, marks=pytest.mark.full),
    ],
)
def test_feedback_and_weights_approach_by_the_decay_alone(
    make: Callable, times_rate: bool, random_states: Callable, as_batches: Callable
) -> None:
    rate, decay = 0.1, 0.3
    tx = make_optimizer("sgd", rate, schedule="constant", steps=9, weight_decay=decay, decay_times_rate=times_rate)(1.0)
    model = make(mlp((7, 6), activation="tanh"), SPEC, CLASSES, tx=tx)
    states = random_states(model)

    def apart(states: Sequence[BlockState]) -> list[jax.Array]:
        """Feedback less weights, where their shapes agree."""
        if make is dkp:
            return [states[1].params["feedback"]["kernel"].T - kernel_of(states[2].params["head"])]
        own = lambda params: kernel_of(params["f"] if "f" in params else params["head"])
        return [state.params["feedback"]["kernel"] - own(state.params) for state in states[1:]]

    share = 1 - (rate * decay if times_rate else decay)
    before = apart(states)
    for after in train(model, states, 3, as_batches):
        now = apart(after)
        close(now, [share * each for each in before])
        before = now


@pytest.mark.parametrize(
    ("optimizer", "clip"),
    [
        ("momentum", 0.05),
        pytest.param("sgd", None, marks=pytest.mark.full),  # as in the test above
        pytest.param("sgd", 0.05, marks=pytest.mark.full),
        pytest.param("momentum", None, marks=pytest.mark.full),
    ],
)
def test_by_default_feedback_of_kp_learns_as_the_weights_do(
    optimizer: str, clip: float | None, random_states: Callable, as_batches: Callable
) -> None:
    """From the registry, with a decay that is not times the rate: B - W^T shrinks by it alone, clipped or not."""
    decay = 0.2
    given: dict = {"schedule": "stairs", "steps": 9, "epoch": 1, "weight_decay": decay, "decay_times_rate": False}
    make = make_optimizer(optimizer, 0.1, clip_norm=clip, **given)
    model = METHODS["kp"](mlp((7, 6), activation="tanh", norm=True), SPEC, CLASSES, make)
    own = lambda state: kernel_of(state.params["f"] if "f" in state.params else state.params["head"])
    apart = lambda states: [state.params["feedback"]["kernel"] - own(state) for state in states[1:]]
    states = random_states(model)
    before = apart(states)
    for after in train(model, states, 3, as_batches):
        now = apart(after)
        close(now, [(1 - decay) * each for each in before])
        before = now
    moved = np.abs(kernel_of(after[1].params["f"]) - (1 - decay) ** 3 * kernel_of(states[1].params["f"]))
    assert moved.max() > 1e-4  # they do learn


def test_feedback_may_have_an_optimizer_of_its_own(random_states: Callable, as_batches: Callable) -> None:
    model = METHODS["kp"](mlp((7,)), SPEC, CLASSES, lambda s: optax.sgd(s), lambda s: optax.set_to_zero())
    states = random_states(model)
    (after,) = train(model, states, 1, as_batches)
    assert np.array_equal(states[1].params["feedback"]["kernel"], after[1].params["feedback"]["kernel"])
    assert not np.array_equal(kernel_of(states[1].params["head"]), kernel_of(after[1].params["head"]))


def test_drtp_hears_nothing_from_above(random_states: Callable) -> None:
    model = drtp(mlp((7, 6), norm=True), SPEC, CLASSES, tx=optax.sgd(0.1))
    assert {block.signal for block in model.blocks} == {"none"}
    states, others = random_states(model), random_states(model, seed=1)
    run = gradients_of(model)
    before = run(states)
    for changed in range(3):
        after = run((*states[:changed], others[changed], *states[changed + 1 :]))
        same = [all(map(np.array_equal, *map(jax.tree.leaves, pair))) for pair in zip(before, after, strict=True)]
        assert same == [i < changed for i in range(3)]


def test_drtp_descends_its_target(random_states: Callable) -> None:
    """delta = onehot(y) B / batch at the output of f; the released code leaves out the batch."""
    whole, undivided = (drtp([linear(7)], SPEC, CLASSES, tx=optax.sgd(0.1), divide=divide) for divide in (True, False))
    states = random_states(whole)
    delta = np.eye(CLASSES)[Y] @ states[0].params["feedback"]["kernel"]
    close(kernel_of(grads_of(whole, states)[0]["f"]), X.T @ delta / BATCH)
    close(kernel_of(grads_of(undivided, states)[0]["f"]), X.T @ delta)


def test_fa_goes_back_through_its_feedback(random_states: Callable) -> None:
    """Against the equations, written out: two tanh layers and a classifier."""
    model = fa(mlp((7, 6), activation="tanh"), SPEC, CLASSES, tx=optax.sgd(0.1))
    states = random_states(model)
    layer = lambda params: tuple(np.asarray(x) for x in (kernel_of(params), jax.tree.leaves(params)[0]))
    (w1, b1), (w2, b2) = (layer(state.params["f"]) for state in states[:2])
    w3, b3 = layer(states[2].params["head"])
    back2, back3 = (np.asarray(state.params["feedback"]["kernel"]) for state in states[1:])
    a1 = np.tanh(X @ w1 + b1)
    a2 = np.tanh(a1 @ w2 + b2)
    error = (jax.nn.softmax(a2 @ w3 + b3) - np.eye(CLASSES)[Y]) / BATCH
    delta2 = (error @ back3.T) * (1 - a2**2)
    delta1 = (delta2 @ back2.T) * (1 - a1**2)
    found = grads_of(model, states)
    close([kernel_of(found[0]["f"]), kernel_of(found[1]["f"])], [X.T @ delta1, a1.T @ delta2])
    close(kernel_of(found[2]["head"]), a2.T @ error)


def test_kp_learns_in_its_feedback_what_the_weights_learn(random_states: Callable) -> None:
    model = kp(cnn((3, 4), norm=True), IMAGES, CLASSES, tx=optax.sgd(0.1))
    found = grads_of(model, random_states(model), RNG.normal(size=IMAGES.shape))
    assert "feedback" not in found[0]
    conv = next(x for x in jax.tree.leaves(found[1]["f"]) if x.ndim == 4)
    close(found[1]["feedback"]["kernel"], conv)
    close(found[2]["feedback"]["kernel"], kernel_of(found[2]["head"]))
    assert np.any(conv != 0)


@pytest.mark.parametrize("make", [dfa, fa, drtp])
def test_fixed_feedback_stays(make: Callable, random_states: Callable, as_batches: Callable) -> None:
    """Neither decay nor momentum nor Adam's own noise touches it."""
    tx = optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.1))
    model = make(mlp((7,)), SPEC, CLASSES, tx=tx)
    states = random_states(model)
    (after,) = train(model, states, 1, as_batches)
    for old, new in zip(states, after, strict=True):
        if "feedback" in old.params:
            assert np.array_equal(old.params["feedback"]["kernel"], new.params["feedback"]["kernel"])
        learns = "f" if "f" in old.params else "head"
        assert not np.array_equal(kernel_of(old.params[learns]), kernel_of(new.params[learns]))


def test_a_share_of_the_last_gradient_in_greedy_learning(random_states: Callable) -> None:
    """The share is linear: 0 is greedy learning; 1 gives every auxiliary network the top's error."""
    grads, states = {}, None
    for share in (0.0, 0.25, 1.0):
        model = dgl(mlp((7, 6)), SPEC, CLASSES, tx=optax.sgd(0.1), aux="hidden", last_gradient_weight=share)
        assert {block.signal for block in model.blocks[:-1]} == {"top" if share else "none"}
        states = states or random_states(model)  # the same of all three
        grads[share] = grads_of(model, states)
    mixed = jax.tree.map(lambda own, top: 0.75 * own + 0.25 * top, grads[0.0], grads[1.0])
    close(grads[0.25], mixed)
    close(grads[0.0][-1], grads[1.0][-1])
    assert np.any(np.abs(kernel_of(grads[0.0][0]["f"]) - kernel_of(grads[1.0][0]["f"])) > 1e-6)


# --- conv feedback ---------------------------------------------------------------------------------------------------


def test_broadcast_feedback_against_a_loop() -> None:
    """Each place of the image has the error; a transposed convolution adds tap (u, v) of place p to p + (u, v) - 1."""
    (found,) = feedbacks("dfa", cnn((2,)), IMAGES, CLASSES, form="broadcast")
    params, _ = found.block.init(jax.random.key(0), IMAGES)
    kernel, error = params["kernel"], RNG.normal(size=(BATCH, CLASSES))
    assert kernel.shape == (CLASSES, 2, 3, 3)
    expected = np.zeros(IMAGES.shape)
    for i in range(4):
        for j in range(5):
            for u in range(3):
                for v in range(3):
                    to = i + u - 1, j + v - 1
                    if 0 <= to[0] < 4 and 0 <= to[1] < 5:
                        expected[:, to[0], to[1]] += error @ kernel[:, :, u, v]
    close(back(found.expand(params), jnp.asarray(error)), expected)


@pytest.mark.parametrize(("form", "kernel"), [("dense", 3), *(("broadcast", kernel) for kernel in (1, 2, 3, 5, 9))])
def test_feedback_descends_the_gradient_of_its_projection(form: str, kernel: int) -> None:
    """What a way from a_l to the scores through the same parameters would learn: d sum(e * a B^T) / d parameters."""
    output, error = jnp.asarray(RNG.normal(size=IMAGES.shape)), jnp.asarray(RNG.normal(size=(BATCH, CLASSES)))
    (found,) = feedbacks("dkp", cnn((2,)), IMAGES, CLASSES, form=form, kernel=kernel)
    params, state = found.block.init(jax.random.key(0), IMAGES)

    def way_forward(params: dict) -> jax.Array:
        return jnp.sum(error * found.block.apply(params, state, output, key=None, train=True)[0])

    close(found.descend(error, output), jax.grad(way_forward)(params))


def test_what_each_form_of_feedback_descends() -> None:
    """Written out: e^T a at each place; of a tap the sum over the places that it reaches from inside the image."""
    output, error = RNG.normal(size=IMAGES.shape), RNG.normal(size=(BATCH, CLASSES))
    (dense,), (spread,) = (feedbacks("dkp", cnn((2,)), IMAGES, CLASSES, form=form) for form in ("dense", "broadcast"))
    by_place = np.einsum("bn,bhwc->nhwc", error, output)
    close(dense.descend(error, output)["kernel"], by_place)
    expected = np.zeros((CLASSES, 2, 3, 3))
    for i in range(4):
        for j in range(5):
            for u in range(3):
                for v in range(3):
                    to = i + u - 1, j + v - 1
                    if 0 <= to[0] < 4 and 0 <= to[1] < 5:
                        expected[:, :, u, v] += by_place[:, to[0], to[1]]
    close(spread.descend(jnp.asarray(error), jnp.asarray(output))["kernel"], expected)


def test_slice_feedback_is_one_matrix() -> None:
    wide, narrow = feedbacks("dfa", [*cnn((2,)), *mlp((7,))], IMAGES, CLASSES, form="slice")
    ours, theirs = (each.expand(each.block.init(jax.random.key(i), IMAGES)[0]) for i, each in enumerate((wide, narrow)))
    assert ours.shape == (CLASSES, 4, 5, 2)
    assert theirs.shape == (CLASSES, 7)
    close(ours.reshape(CLASSES, -1)[:, :7], theirs)
    assert float(jnp.abs(ours).max()) <= 1 / 40**0.5
    assert float(jnp.abs(ours).max()) > 0.9 / 40**0.5


@pytest.mark.parametrize(("fan", "size"), [("in", CLASSES), ("out", 2000)])
def test_the_fan_of_the_feedback(fan: str, size: int) -> None:
    (found,) = feedbacks("dfa", [linear(2000)], SPEC, CLASSES, fan=fan)
    params, _ = found.block.init(jax.random.key(0), jax.ShapeDtypeStruct((BATCH, 2000), jnp.float64))
    np.testing.assert_allclose(params["kernel"].std(), (2 / size) ** 0.5, rtol=0.05)


# --- what is refused -------------------------------------------------------------------------------------------------


def nnx_block() -> Block:
    return from_nnx(lambda rngs: nnx.Linear(WIDTH, 4, rngs=rngs), name="nnx")


@pytest.mark.parametrize(
    ("make", "network", "options", "says"),
    [
        (dkp, mlp((4,)), {"form": "slice"}, "form='slice' is one that all share"),
        (dfa, mlp((4,)), {"form": "sparse"}, "unknown form 'sparse' of method 'dfa'; there are dense"),
        (drtp, mlp((4,)), {"fan": "both"}, "unknown fan 'both' of method 'drtp'"),
        (dfa, mlp((4,)), {"kernel": 0}, "kernel must be at least 1; got 0"),
        (kp, resnet("resnet20", width_factor=1 / 8, blocks=3), {}, "one dense or convolutional layer of Flax linen"),
        (fa, mlp((4, 4), blocks=1), {}, "'dense4\\+dense4' has 2. Cut the network finer"),
        (fa, [nnx_block()], {}, "'nnx' has none"),
        (usf, [nnx_block()], {}, r"'nnx' has kernels that are not of these: \['kernel'\]"),
        (bp_fc, mlp((4,)), {}, "this network has none: use bp"),
        (bp_fc, [chain([*cnn((3,)), *mlp((4,))])], {}, "has both: cut the network finer"),
        (
            bp_fc,
            cnn((3,)),
            {"statistics": "last"},
            "unknown statistics 'last' of method 'bp_fc'; there are moving, first",
        ),
        (dgl, mlp((4, 4)), {"last_gradient_weight": 2}, r"a share in \[0, 1\]; got 2"),
        (dfa, [], {}, "at least one block"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals(make: Callable, network: list, options: dict, says: str) -> None:
    spec = IMAGES if "conv" in "".join(block.name for block in network) or make is kp else SPEC
    with pytest.raises(ValueError, match=says):
        make(network, spec, CLASSES, tx=optax.sgd(0.1), **options)


@pytest.mark.parametrize("statistics", ["moving", "first"])
def test_bp_fc_moves_dense_layers_alone(statistics: str, random_states: Callable, as_batches: Callable) -> None:
    """Of a frozen block no parameter moves, its norm's scale neither; its running statistics where they may."""
    network = [*cnn((3,), norm=True), *mlp((4,), norm=True)]
    model = bp_fc(network, IMAGES, CLASSES, tx=optax.sgd(0.1), statistics=statistics)
    states = random_states(model)
    (after,) = train(model, states, 1, as_batches)
    moved = lambda of: [
        not all(map(np.array_equal, *(jax.tree.leaves(of(s)) for s in pair)))
        for pair in zip(states, after, strict=True)
    ]
    assert moved(lambda state: state.params) == [False, True, True]
    assert moved(lambda state: state.model_state) == [statistics == "moving", True, False]


def test_frozen_convolutions_are_normed_by_their_batch_or_by_their_first_statistics(random_states: Callable) -> None:
    network, x = cnn((3,), norm=True), jnp.asarray(RNG.normal(size=IMAGES.shape))
    states = random_states(bp_fc(network, IMAGES, CLASSES, tx=optax.sgd(0.1)))
    for statistics in ("moving", "first"):
        model = bp_fc(network, IMAGES, CLASSES, tx=optax.sgd(0.1), statistics=statistics)
        passed = model.blocks[0].forward(states[0], model.enter(x, jnp.asarray(Y)), jax.random.key(0)).message
        params, state = states[0].params["f"], states[0].model_state["f"]
        theirs = network[0].apply(params, state, x, key=jax.random.key(0), train=statistics == "moving")[0]
        close(passed["x"], theirs)


def test_convolutions_are_fast_on_their_way_back_too(random_states: Callable) -> None:
    """Every convolution that kp differentiates is the library's own, of its feedback as of its kernel."""
    model = kp(cnn((3, 4)), IMAGES, CLASSES, tx=optax.sgd(0.1))
    block, state = model.blocks[1], random_states(model)[1]
    message = {"x": jnp.ones((BATCH, 4, 5, 3)), "y": jnp.asarray(Y)}

    def grads(state: BlockState) -> dict:
        stash = block.forward(state, message, jax.random.key(0)).stash
        return block.backward(state, stash, {"x": jnp.ones((BATCH, 2, 3, 4)), "loss": jnp.ones(())})[::2]

    program = str(jax.make_jaxpr(grads)(state))
    # jax's own derivative along an input goes through a dilated one with dimensions out of order
    assert program.count("conv_general_dilated") > 0
    assert "lhs_spec=(3, 0, 1, 2)" not in program
