"""Engines: how a model trains, one block after another or all at once, with the same numbers."""

from localgrad.pipeline.partition import balance as balance
from localgrad.pipeline.partition import make_plan as make_plan
from localgrad.pipeline.sequential import sequential as sequential
from localgrad.pipeline.spmd import spmd as spmd
from localgrad.pipeline.step import init as init
from localgrad.pipeline.step import specs as specs
