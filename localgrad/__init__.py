"""Networks whose blocks learn from their own losses, and a pipeline that trains all blocks at once.

The pipeline gives the same numbers as training the blocks one after another.
"""

from localgrad import data as data
from localgrad import xla as _xla
from localgrad.base import Batches as Batches
from localgrad.base import Block as Block
from localgrad.base import BlockState as BlockState
from localgrad.base import DivergedError as DivergedError
from localgrad.base import Engine as Engine
from localgrad.base import LocalBlock as LocalBlock
from localgrad.base import Metrics as Metrics
from localgrad.base import Model as Model
from localgrad.base import Plan as Plan
from localgrad.base import Source as Source
from localgrad.blocks import chain as chain
from localgrad.blocks import cnn as cnn
from localgrad.blocks import from_linen as from_linen
from localgrad.blocks import from_nnx as from_nnx
from localgrad.blocks import mlp as mlp
from localgrad.blocks import regroup as regroup
from localgrad.blocks import remat as remat
from localgrad.methods import al as al
from localgrad.methods import bp as bp
from localgrad.methods import bp_fc as bp_fc
from localgrad.methods import bp_matched as bp_matched
from localgrad.methods import dfa as dfa
from localgrad.methods import dgl as dgl
from localgrad.methods import dkp as dkp
from localgrad.methods import drtp as drtp
from localgrad.methods import early_exit as early_exit
from localgrad.methods import fa as fa
from localgrad.methods import freeze as freeze
from localgrad.methods import graft as graft
from localgrad.methods import kernels as kernels
from localgrad.methods import kp as kp
from localgrad.methods import predsim as predsim
from localgrad.methods import scl as scl
from localgrad.methods import trials as trials
from localgrad.pipeline import init as init
from localgrad.pipeline import sequential as sequential
from localgrad.pipeline import spmd as spmd
from localgrad.report import format_ledger as format_ledger
from localgrad.report import ledger as ledger
from localgrad.report import params_sha256 as params_sha256

_xla.sum_correctly()  # nothing above has used a device yet
