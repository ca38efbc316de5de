"""Networks as lists of pure Blocks: Flax inside, plain pytrees outside."""

from localgrad.blocks.ahead import looks_ahead as looks_ahead
from localgrad.blocks.compose import chain as chain
from localgrad.blocks.compose import output_spec as output_spec
from localgrad.blocks.compose import regroup as regroup
from localgrad.blocks.compose import remat as remat
from localgrad.blocks.deep import alexnet as alexnet
from localgrad.blocks.deep import resnet as resnet
from localgrad.blocks.deep import vgg as vgg
from localgrad.blocks.flax import from_linen as from_linen
from localgrad.blocks.flax import from_nnx as from_nnx
from localgrad.blocks.networks import basic_cnn as basic_cnn
from localgrad.blocks.networks import cnn as cnn
from localgrad.blocks.networks import convnet as convnet
from localgrad.blocks.networks import mlp as mlp
from localgrad.blocks.networks import two_conv as two_conv
from localgrad.blocks.networks import vanilla_cnn as vanilla_cnn
from localgrad.blocks.precision import compute_dtype as compute_dtype
from localgrad.blocks.registry import NETWORKS as NETWORKS
from localgrad.blocks.registry import Network as Network
from localgrad.blocks.registry import networks_of as networks_of
from localgrad.blocks.registry import register_network as register_network
from localgrad.blocks.sequences import bucketed as bucketed
from localgrad.blocks.text import Vectors as Vectors
from localgrad.blocks.text import bilstm as bilstm
from localgrad.blocks.text import embedding as embedding
from localgrad.blocks.text import transformer as transformer
