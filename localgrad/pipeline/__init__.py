"""Engines: how a model trains, one block after another or all at once, with the same numbers."""

from localgrad.pipeline.coupling import least_examples as least_examples
from localgrad.pipeline.handover import hand_over as hand_over
from localgrad.pipeline.handover import pipeline_state as pipeline_state
from localgrad.pipeline.mpmd import mpmd as mpmd
from localgrad.pipeline.partition import balance as balance
from localgrad.pipeline.partition import make_plan as make_plan
from localgrad.pipeline.partition import unpadded as unpadded
from localgrad.pipeline.schedules import STALENESS as STALENESS
from localgrad.pipeline.schedules import WEIGHTS as WEIGHTS
from localgrad.pipeline.schedules import delays_of as delays_of
from localgrad.pipeline.schedules import register_schedule as register_schedule
from localgrad.pipeline.sequential import sequential as sequential
from localgrad.pipeline.specs import completed as completed
from localgrad.pipeline.specs import drawn as drawn
from localgrad.pipeline.specs import hollow as hollow
from localgrad.pipeline.specs import init as init
from localgrad.pipeline.specs import signal_of as signal_of
from localgrad.pipeline.specs import specs as specs
from localgrad.pipeline.spmd import check_asynchronous as check_asynchronous
from localgrad.pipeline.spmd import micro_batches_of as micro_batches_of
from localgrad.pipeline.spmd import plan_of as plan_of
from localgrad.pipeline.spmd import spmd as spmd
from localgrad.pipeline.timing import block_seconds as block_seconds
from localgrad.pipeline.timing import completing_seconds as completing_seconds
