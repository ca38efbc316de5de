"""Losses: arrays in, a scalar out."""

from localgrad.losses.contrastive import normalised as normalised
from localgrad.losses.contrastive import supervised_contrastive as supervised_contrastive
from localgrad.losses.elementwise import cross_entropy as cross_entropy
from localgrad.losses.elementwise import mean_absolute_error as mean_absolute_error
from localgrad.losses.elementwise import mean_squared_error as mean_squared_error
from localgrad.losses.elementwise import unless_known as unless_known
from localgrad.losses.similarity import similarity_matching as similarity_matching
from localgrad.losses.similarity import similarity_matrix as similarity_matrix
