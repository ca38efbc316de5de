"""What processes must have in common, and the line that says what differs."""

import json

from localgrad.processes.facts import difference, software


def test_processes_that_agree_differ_in_nothing():
    assert difference({i: {"--seed": 0, "--widths": [3, 4], "--cuts": None} for i in range(3)}) is None


def test_a_difference_names_the_field_the_values_and_the_processes():
    facts = {i: {"--seed": 0, "--widths": [3, 4]} for i in range(4)}
    facts[2] = {"--seed": 0, "--widths": [3, 5]}
    assert difference(facts) == "--widths is [3, 4] in processes 0, 1 and 3, [3, 5] in process 2"


def test_a_field_that_one_does_not_know_differs():
    assert difference({0: {"--new": 1}, 1: {}}) == "--new is 1 in process 0, none in process 1"


def test_values_of_different_types_differ():
    assert difference({0: {"--x": 1}, 1: {"--x": "1"}}) == '--x is 1 in process 0, "1" in process 1'


def test_many_differences_are_counted_and_not_listed():
    facts = {i: {f"--{name}": i for name in "abcde"} for i in range(2)}
    line = difference(facts)
    assert line.startswith("--a is 0 in process 0, 1 in process 1; --b is")
    assert line.endswith("; and 2 more")
    assert "--d" not in line


def test_the_software_can_be_sent_and_agrees_with_itself(monkeypatch):
    ours = software()
    assert json.loads(json.dumps(ours)) == ours
    assert {"the version of jax", "the version of optax", "the source of localgrad", "XLA_FLAGS"} <= set(ours)
    monkeypatch.setenv("XLA_FLAGS", "--xla_b=1 --xla_a=2")
    one = software()
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=2 --xla_dump_to=/tmp/process1 --xla_b=1")
    assert difference({0: one, 1: software()}) is None, "order and where to dump are each process's own"
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=3 --xla_b=1")
    assert "XLA_FLAGS is" in difference({0: one, 1: software()})
