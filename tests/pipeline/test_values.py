"""Equal results are seen to be equal, and no others are."""

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.pipeline.values import Argument, Fill, values_of

X = jnp.ones((2, 3))


def names(function, *args):
    return values_of(jax.make_jaxpr(function)(*args))


def test_what_is_worked_out_twice_has_one_name():
    a, b, c = names(lambda x: (jnp.sin(x) + 1, jnp.sin(x) + 1, jnp.cos(x) + 1), X)
    assert a == b
    assert a != c


def test_what_differs_in_an_input_or_a_parameter_differs():
    found = names(lambda x, y: (x + y, y + x, x.sum(0), x.sum(1), x + 1, x + 2, x > 0, x > 0.5), X, X)
    assert len(set(found)) == len(found)


def test_numbers_differ_by_their_last_bit(x64):
    number = 0.1234567890123456
    a, b = names(lambda x: (x + number, x + np.nextafter(number, 1)), X.astype(jnp.float64))
    assert a != b


def test_arguments_and_constants_are_told():
    same, stopped, zeros, one = names(lambda x: (x, jax.lax.stop_gradient(x), jnp.zeros((4,)), 1.0), X)
    assert same == stopped == Argument(0)
    assert isinstance(zeros, Fill)
    assert (float(zeros.value), zeros.shape) == (0.0, (4,))
    assert isinstance(one, Fill)


def test_it_looks_into_calls_and_tells_their_inputs_apart():
    inner = jax.jit(lambda x: jnp.sin(x) * 2)
    a, b, c = names(lambda x, y: (inner(x), inner(x), inner(y)), X, X)
    assert a == b != c


def test_loops_and_branches_equal_nothing():
    once = lambda x: jax.lax.fori_loop(0, 3, lambda i, x: x * 2, x)
    twice = jax.jit(once)  # one program, called with two inputs
    found = names(lambda x, y: (once(x), once(x), twice(x), twice(y)), X, X)
    assert len(set(found)) == 4


def test_arrays_that_a_program_holds_are_told_apart():
    a, b = np.arange(2000.0), np.arange(2000.0)
    b[1000] = 0
    found = names(lambda x: (x[0, 0] + a, x[0, 0] + b), X)
    assert found[0] != found[1]
