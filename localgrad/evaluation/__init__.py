"""What reads a trained model: accuracy, prediction at every exit, and how updates stand to the true gradient."""

from localgrad.evaluation.accuracy import EvalBatches as EvalBatches
from localgrad.evaluation.accuracy import make_evaluator as make_evaluator
from localgrad.evaluation.accuracy import make_scorer as make_scorer
from localgrad.evaluation.alignment import aligner as aligner
from localgrad.evaluation.probes import linear_probe as linear_probe
from localgrad.evaluation.probes import probe_floors as probe_floors
