"""The one loop, its checkpoints and its files."""

from localgrad.base import DivergedError as DivergedError
from localgrad.evaluation.accuracy import make_evaluator as make_evaluator
from localgrad.training.checkpoints import SaveError as SaveError
from localgrad.training.config import Config as Config
from localgrad.training.config_file import read_config as read_config
from localgrad.training.job import Job as Job
from localgrad.training.job import prepare as prepare
from localgrad.training.lock import InUseError as InUseError
from localgrad.training.loop import fit as fit
from localgrad.training.restoring import restore as restore
from localgrad.training.run import prepare_all as prepare_all
from localgrad.training.run import run as run
from localgrad.training.stopping import Interrupted as Interrupted
from localgrad.training.summary import format_summary as format_summary
from localgrad.training.summary import make_ledger as make_ledger
