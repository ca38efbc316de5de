"""What the compiled programs are: a pipeline with its state in place, no collective in a stage, no growing memory."""

import logging
import re
from functools import cache

import jax
import jax.numpy as jnp
import optax
import pytest

from localgrad import al, early_exit, mlp, sequential, spmd
from localgrad.data import batches
from localgrad.methods import METHODS
from localgrad.pipeline import specs
from localgrad.pipeline.partition import state_bytes

from .common import NEWEST

COLLECTIVE = re.compile(r"\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|collective-broadcast)")


def feed(model, count=4):
    xs = jnp.zeros((count, *model.x_spec.shape), model.x_spec.dtype)
    return batches(xs, jnp.zeros((count, model.batch_size), jnp.int32))


@cache
def model_of(widths):
    """Blocks with losses of their own, clipped and with AdamW and a schedule; any method has these programs."""
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(3e-3, 100)))
    return early_exit(mlp(widths), jax.ShapeDtypeStruct((12, 64), jnp.float32), 10, tx=tx)


UNEQUAL, EQUAL = (24, 20, 16, 12), (64, 64)


def zeros(model):
    """States whose numbers are of no account."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tuple(specs(model)[0]))


@cache
def engine_of(widths, stages, **options):
    """An engine, whose program serves several tests; `stages=0` is the sequential one."""
    return spmd(model_of(widths), stages=stages, **options) if stages else sequential(model_of(widths))


@cache
def compiled(widths, stages, **options):
    model, engine = model_of(widths), engine_of(widths, stages, **options)
    state = engine.load(zeros(model), jax.random.key(1))
    return engine.run.lower(state, feed(model)).compile()


def computations(text):
    """The computations of an HLO module: name -> lines."""
    found, name = {}, None
    for line in text.splitlines():
        head = re.match(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line)
        if head:
            name = head.group(1)
            found[name] = []
        elif line.startswith("}"):
            name = None
        elif name:
            found[name].append(line)
    return found


def names(text):
    return [name.strip().lstrip("%") for name in text.split(",")]


CALLS = re.compile(
    r"(?:branch_computations|calls)=\{([^}]+)\}"
    r"|(?:to_apply|calls|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)


def called_by(found, lines, operation):
    """Names of all computations that run inside an operation of some lines, at any depth."""
    called = lambda line: [name for several, one in CALLS.findall(line) for name in names(several or one)]
    todo = [name for line in lines if f" {operation}(" in line for name in called(line)]
    inside = set()
    while todo:
        name = todo.pop()
        if name not in inside:
            inside.add(name)
            todo += [each for line in found.get(name, []) for each in called(line)]
    return inside


def all_lines(found):
    return [line for each in found.values() for line in each]


def lines_in_loops(found):
    """All that runs inside the loop over batches, or any other."""
    return [line for name in called_by(found, all_lines(found), "while") for line in found[name]]


def run_by_some_devices_only(found):
    """Names of all computations inside a conditional, or inside a loop within the loop over batches: the stages."""
    return called_by(found, all_lines(found), "conditional") | called_by(found, lines_in_loops(found), "while")


def loops_over_ticks(found):
    """Names of the computations that hold the stages' loops and what travels after them."""
    inside = called_by(found, all_lines(found), "while")
    travels = lambda name: any(COLLECTIVE.search(line) for line in found[name])
    return [name for name in inside if travels(name) and any(" while(" in line for line in found[name])]


def stages_of(found):
    """How many loops there are within the loop over batches; a stage has its own."""
    return sum(" while(" in line for line in lines_in_loops(found))


@pytest.fixture(scope="module")
def pipelines():
    """Compiled programs: a choice among stages, none, and two data shards."""
    return {
        "choice": compiled(UNEQUAL, 4).as_text(),
        "uniform": compiled(EQUAL, 2).as_text(),
        "data": compiled(UNEQUAL, 2, data_parallel=2).as_text(),
    }


@pytest.mark.parametrize("kind", ["choice", "uniform", "data"])
def test_messages_travel_by_collective_permute(kind, pipelines):
    assert "collective-permute" in pipelines[kind]
    assert ("all-reduce" in pipelines[kind]) == (kind == "data")
    loops = {"choice": 4, "uniform": 0, "data": 2 * 2}[kind]  # with shards each stage has two: gradients, update
    assert stages_of(computations(pipelines[kind])) == loops


@pytest.mark.parametrize("kind", ["choice", "data"])
def test_no_collective_stands_inside_what_some_devices_skip(kind, pipelines):
    found = computations(pipelines[kind])
    inside = run_by_some_devices_only(found)
    assert len(inside) >= 2  # the stages
    assert inside <= set(found)
    assert not [line for name in inside for line in found[name] if COLLECTIVE.search(line)]


@pytest.mark.parametrize("kind", ["conditional", "while"])
def test_the_reader_of_programs_sees_a_collective_there(kind):
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])

    def chosen(x):
        if kind == "conditional":
            return jax.lax.cond(x.sum() > 0, lambda x: jax.lax.psum(x, "i"), lambda x: x, x)
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: 2 * jax.lax.psum(x, "i"), x)

    def body(x):
        return jax.lax.fori_loop(0, 3, lambda _, x: chosen(x), x)

    spec = jax.sharding.PartitionSpec("i")
    function = jax.jit(jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))
    found = computations(function.lower(jnp.ones(2)).compile().as_text())
    assert [line for name in run_by_some_devices_only(found) for line in found[name] if COLLECTIVE.search(line)]


WIDTH = 72  # an array of this size squared is a weight, or one of the optimizer's; batches are smaller


@pytest.fixture(scope="module", params=["al", "dkp", "bp"])
def three_dense(request):
    """The computations of a pipeline of two stages over three dense layers with Adam."""
    spec = jax.ShapeDtypeStruct((8, WIDTH), jnp.float32)
    narrow = {"al": {"target_width": 8, "bridge": ()}}.get(request.param, {})  # the weights of layers are watched
    model = METHODS[request.param](mlp((WIDTH,) * 3), spec, 10, lambda scale: optax.adam(1e-3 * scale), **narrow)
    engine = spmd(model, stages=2, uniform=False, micro_batches=2 if request.param == "bp" else None)
    state = engine.load(zeros(model), jax.random.key(1))
    return computations(engine.run.lower(state, feed(model)).compile().as_text())


@pytest.mark.parametrize("three_dense", ["al", "dkp"], indirect=True)
def test_no_weights_are_copied_on_a_tick(three_dense):
    """The loop over batches carries the state; an update in place is what keeps its traffic that of plain jax."""
    ticks = lines_in_loops(three_dense)
    weights = re.compile(rf"= f32\[({WIDTH * WIDTH}|{WIDTH},{WIDTH})\]\S* (copy|copy-start)\(")
    assert [line for line in ticks if f"[{WIDTH},{WIDTH}]" in line]
    assert not [line for line in ticks if weights.search(line)]


def test_stages_wait_for_each_other_only_between_ticks(three_dense):
    """A collective that is scheduled between the loops of two stages makes the second wait for the first's work."""
    of_tick = re.compile(rf" while\(|{COLLECTIVE.pattern}")
    ticks = [[line for line in three_dense[name] if of_tick.search(line)] for name in loops_over_ticks(three_dense)]
    assert ticks
    for lines in ticks:
        works = [" while(" in line for line in lines]
        assert works.count(False) >= 1
        first = works.index(True)
        assert all(works[first : first + works.count(True)])


@pytest.mark.parametrize("stages", [pytest.param(0, marks=pytest.mark.full), 4])
def test_all_of_the_state_is_donated(stages):
    model, engine = model_of(UNEQUAL), engine_of(UNEQUAL, stages)
    state = engine.load(zeros(model), jax.random.key(1))
    memory = compiled(UNEQUAL, stages).memory_analysis()
    held = state.slots if stages else state.blocks
    assert memory.alias_size_in_bytes >= state_bytes(held) // max(stages, 1)
    engine.run(state, feed(model))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(held))


def test_a_device_holds_the_state_of_its_own_stage_and_no_other():
    model, engine = model_of(UNEQUAL), engine_of(UNEQUAL, 4)
    states = zeros(model)
    loaded = engine.load(states, jax.random.key(1))
    loaded, _ = engine.run(loaded, feed(model))
    for slot in loaded.slots:
        assert [shard.data.shape[0] for shard in slot.addressable_shards] == [1] * 4
        assert sorted(shard.index[0].start for shard in slot.addressable_shards) == [0, 1, 2, 3]
    per_device = sum(slot.addressable_shards[0].data.nbytes for slot in loaded.slots)
    assert per_device == engine.plan.slot_bytes
    assert per_device < state_bytes(states)


def test_later_calls_compile_nothing_of_the_pipeline(caplog):
    model = model_of(EQUAL)
    engine, fed = spmd(model, stages=2), feed(model)
    state = engine.load(zeros(model), jax.random.key(1))
    counts = []
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for _ in range(3):
            state, _ = engine.run(state, fed)
            engine.drain(state, fed)
            counts.append(sum("XLA compilation of jit(call)" in record.message for record in caplog.records))
    assert counts == [1, 1, 1]


def footprint(depth, count=2):
    """Bytes of the sequential program of `depth` equal blocks but for its batches, and bytes of their state."""
    spec = jax.ShapeDtypeStruct((256, 64), jnp.float32)
    model = al(mlp((64,) * depth), spec, 10, tx=optax.adam(1e-3), profile="neco", bridge=(), target_width=64)
    states = zeros(model)
    engine, fed = sequential(model), feed(model, count)
    memory = engine.run.lower(engine.load(states, jax.random.key(1)), fed).compile().memory_analysis()
    total = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    return total - memory.alias_size_in_bytes - state_bytes(fed), state_bytes(states)


@pytest.mark.slow
@pytest.mark.bits
def test_memory_grows_with_depth_by_the_state_alone():
    """1 % on the newest jax.  On 0.10.2 each block adds what its temporaries add to the arena: at most MARGIN bytes."""
    (small, small_state), (large, large_state) = footprint(3), footprint(8)
    growth, state = large - small, large_state - small_state
    if NEWEST:
        assert abs(growth - state) <= 0.01 * state
    else:
        assert state <= growth <= state + 5 * MARGIN


MARGIN = 128 * 1024  # two (256, 64) float32 arrays: the messages s and t


@pytest.mark.slow
@pytest.mark.bits
def test_memory_does_not_grow_with_the_number_of_batches():
    (few, _), (many, _) = footprint(2, 2), footprint(2, 64)
    assert many - few <= 64 * 64  # the metrics of each batch
