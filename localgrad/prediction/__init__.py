"""A trained network on new inputs: what it must be told, prediction at every exit, and files that others read."""

from localgrad.prediction.about import About as About
from localgrad.prediction.about import about_of as about_of
from localgrad.prediction.exporting import export as export
from localgrad.prediction.exporting import open_export as open_export
from localgrad.prediction.predictor import Predictions as Predictions
from localgrad.prediction.predictor import Predictor as Predictor
from localgrad.prediction.predictor import make_predictor as make_predictor
