"""Reports: the ledger of parameters and costs, digests, figures."""

from localgrad.report.digest import params_sha256 as params_sha256
from localgrad.report.figures import draw_anytime as draw_anytime
from localgrad.report.figures import draw_curves as draw_curves
from localgrad.report.ledger import Ledger as Ledger
from localgrad.report.ledger import format_ledger as format_ledger
from localgrad.report.ledger import ledger as ledger
from localgrad.report.ledger import table as table
