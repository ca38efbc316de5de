"""Networks as lists of pure Blocks: Flax inside, plain pytrees outside."""

from localgrad.blocks.flax import from_linen as from_linen
from localgrad.blocks.flax import from_nnx as from_nnx
from localgrad.blocks.networks import NETWORKS as NETWORKS
from localgrad.blocks.networks import cnn as cnn
from localgrad.blocks.networks import mlp as mlp
