"""Methods: each turns a network of Blocks into a Model of LocalBlocks."""

from localgrad.methods.al import al as al
from localgrad.methods.groups import by_group as by_group
from localgrad.methods.registry import METHODS as METHODS
from localgrad.methods.trials import trial_keys as trial_keys
from localgrad.methods.trials import trials as trials
