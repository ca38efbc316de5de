"""What is read of runs that were trained: figures of their networks, facts for a page, and comparisons."""

from localgrad.results.gather import gather as gather
from localgrad.results.gather import names_of as names_of
from localgrad.results.measure import THRESHOLDS as THRESHOLDS
from localgrad.results.measure import measure as measure
from localgrad.results.opened import Given as Given
from localgrad.results.opened import leaves_early as leaves_early
from localgrad.results.opened import open_run as open_run
from localgrad.results.page_file import write_report as write_report
