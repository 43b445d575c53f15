from .multi_study import FairScheduler, FairSearcher
from .optuna_storage import mark_failed, optuna_statuses
from .samplers import distribution
from .schedulers import TimeBudget, expected_epoch_fraction, make_scheduler
from .searcher import METRIC, make_searcher
from .trial_faults import FAILED, TRACEBACK, NodeDrainingError, StopOnFailureScheduler, report_permanent_failure
from .warm_start import check_warm_start_names, warm_start_points

__all__ = [
    "FAILED",
    "METRIC",
    "TRACEBACK",
    "FairScheduler",
    "FairSearcher",
    "NodeDrainingError",
    "StopOnFailureScheduler",
    "TimeBudget",
    "check_warm_start_names",
    "distribution",
    "expected_epoch_fraction",
    "make_scheduler",
    "make_searcher",
    "mark_failed",
    "optuna_statuses",
    "report_permanent_failure",
    "warm_start_points",
]
