from . import paths
from .demo_settings import DEMO_DEFAULTS, demo_folders
from .files import atomic_path, make_folder, whole_lines, write_json
from .formatting import format_interval, format_params, format_seconds
from .host_process import preserve_host_process
from .interval import Interval
from .log_file import LOG_NOTE, LogFile
from .objectives import METRIC_OF, PIXEL_OBJECTIVES, TIE_BREAKS, Objective, deciding_tie_break, objective_value, ranking
from .options import Command, Declaration, OptionGroup, declarations
from .paths import DEMO_CATEGORY
from .progress import Progress, no_progress
from .study_spec import (
    LIBRARY_COMMAND,
    MAX_TRIALS,
    MPDD_CATEGORIES,
    REMOTE_SCHEMES,
    Protocol,
    StudySpec,
    Validation,
    model_name,
    plain_name,
    require_study_name,
)
from .train_spec import TrainSpec, known_hyperparameters, tunable_names
from .trial_record import EPOCH_FIELDS, METRICS, SYSTEM_PREFIX, Listener, Status, TrialRecord
from .versions import (
    CONSTRAINTS,
    PACKAGES,
    as_labels,
    from_labels,
    installed_versions,
    pinned_versions,
    require_same_versions,
)

__all__ = [
    "CONSTRAINTS",
    "DEMO_CATEGORY",
    "DEMO_DEFAULTS",
    "EPOCH_FIELDS",
    "LIBRARY_COMMAND",
    "LOG_NOTE",
    "MAX_TRIALS",
    "METRICS",
    "METRIC_OF",
    "MPDD_CATEGORIES",
    "PACKAGES",
    "PIXEL_OBJECTIVES",
    "REMOTE_SCHEMES",
    "SYSTEM_PREFIX",
    "TIE_BREAKS",
    "Command",
    "Declaration",
    "Interval",
    "Listener",
    "LogFile",
    "Objective",
    "OptionGroup",
    "Progress",
    "Protocol",
    "Status",
    "StudySpec",
    "TrainSpec",
    "TrialRecord",
    "Validation",
    "as_labels",
    "atomic_path",
    "deciding_tie_break",
    "declarations",
    "demo_folders",
    "format_interval",
    "format_params",
    "format_seconds",
    "from_labels",
    "installed_versions",
    "known_hyperparameters",
    "make_folder",
    "model_name",
    "no_progress",
    "objective_value",
    "paths",
    "pinned_versions",
    "plain_name",
    "preserve_host_process",
    "ranking",
    "require_same_versions",
    "require_study_name",
    "tunable_names",
    "whole_lines",
    "write_json",
]
