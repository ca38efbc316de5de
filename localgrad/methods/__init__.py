"""Methods: each turns a network of Blocks into a Model of LocalBlocks."""

from localgrad.methods.al import al as al
from localgrad.methods.backprop import bp as bp
from localgrad.methods.backprop import bp_fc as bp_fc
from localgrad.methods.backprop import bp_matched as bp_matched
from localgrad.methods.chained import fa as fa
from localgrad.methods.chained import kp as kp
from localgrad.methods.chained import usf as usf
from localgrad.methods.feedback import dfa as dfa
from localgrad.methods.feedback import dkp as dkp
from localgrad.methods.feedback import drtp as drtp
from localgrad.methods.greedy import dgl as dgl
from localgrad.methods.greedy import early_exit as early_exit
from localgrad.methods.groups import by_group as by_group
from localgrad.methods.groups import kernels as kernels
from localgrad.methods.groups import transforms as transforms
from localgrad.methods.growth import freeze as freeze
from localgrad.methods.growth import graft as graft
from localgrad.methods.predsim import predsim as predsim
from localgrad.methods.registry import METHODS as METHODS
from localgrad.methods.scl import scl as scl
from localgrad.methods.trials import trial_keys as trial_keys
from localgrad.methods.trials import trials as trials
