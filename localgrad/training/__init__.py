"""The one loop, its checkpoints and its files."""

from localgrad.base import DivergedError as DivergedError
from localgrad.evaluation.accuracy import make_evaluator as make_evaluator
from localgrad.training.carried_out import run_job as run_job
from localgrad.training.checkpoints import SaveError as SaveError
from localgrad.training.config import Config as Config
from localgrad.training.config_file import read_config as read_config
from localgrad.training.fitting import Fitted as Fitted
from localgrad.training.fitting import fit as fit
from localgrad.training.job import EpochEnd as EpochEnd
from localgrad.training.job import Job as Job
from localgrad.training.job import prepare as prepare
from localgrad.training.json_lines import JsonLines as JsonLines
from localgrad.training.loading import load as load
from localgrad.training.loading import load_states as load_states
from localgrad.training.lock import InUseError as InUseError
from localgrad.training.restoring import restore as restore
from localgrad.training.run import prepare_all as prepare_all
from localgrad.training.run import run as run
from localgrad.training.stopping import Interrupted as Interrupted
from localgrad.training.summary import format_summary as format_summary
from localgrad.training.summary import make_ledger as make_ledger
from localgrad.training.trackers import TensorBoard as TensorBoard
from localgrad.training.trackers import Tracker as Tracker
from localgrad.training.trackers import WeightsAndBiases as WeightsAndBiases
