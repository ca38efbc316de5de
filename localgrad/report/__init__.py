"""Reports: the ledger of parameters and costs, digests, figures."""

from localgrad.report.alignment import cosine as cosine
from localgrad.report.alignment import projection_cosines as projection_cosines
from localgrad.report.alignment import true_gradients as true_gradients
from localgrad.report.alignment import weight_cosines as weight_cosines
from localgrad.report.digest import largest_difference as largest_difference
from localgrad.report.digest import params_sha256 as params_sha256
from localgrad.report.distances import class_distances as class_distances
from localgrad.report.figures import draw_anytime as draw_anytime
from localgrad.report.figures import draw_curves as draw_curves
from localgrad.report.figures import draw_embeddings as draw_embeddings
from localgrad.report.figures import draw_lines as draw_lines
from localgrad.report.figures import draw_panels as draw_panels
from localgrad.report.figures import shows_curves as shows_curves
from localgrad.report.ledger import Ledger as Ledger
from localgrad.report.ledger import format_ledger as format_ledger
from localgrad.report.ledger import format_seconds as format_seconds
from localgrad.report.ledger import ledger as ledger
from localgrad.report.ledger import table as table
from localgrad.report.scores import EXITS as EXITS
from localgrad.report.scores import form_of as form_of
from localgrad.report.scores import goodness as goodness
from localgrad.report.scores import score_of as score_of
from localgrad.report.scores import unit_of as unit_of
