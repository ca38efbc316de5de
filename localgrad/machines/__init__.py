"""Programs for accelerators that are not here: compiled for a topology, read, and held against a chip's data sheet."""

from localgrad.machines.chips import CHIPS as CHIPS
from localgrad.machines.chips import Chip as Chip
from localgrad.machines.compile_for import Compiled as Compiled
from localgrad.machines.compile_for import compile_for as compile_for
from localgrad.machines.compile_for import format_compiled as format_compiled
