from .curves import plot_roc_curve, plot_training_curves
from .description import WARNINGS, describe_start, describe_study, remarks, warnings
from .gains import GAIN, format_test_gain, gain_rows
from .panel import PANEL_NAME, Array, Panel
from .panel_builder import make_panel, synthesize_examples
from .panel_drawer import PanelDrawer, PanelDrawingError
from .run_summary import FailedStudy, RunSummary, SharedConfiguration
from .study_figures import write_study_figures
from .summary import (
    ByRole,
    CostSummary,
    LeakageGap,
    Promotion,
    RankCorrelation,
    Reference,
    Splits,
    Summary,
    TieBreaks,
    TrialCounts,
    TrialSummary,
    UnsentWrites,
    parse_summary,
    read_summary,
)
from .tensorboard import TensorBoard
from .training_log import TrainingLog

__all__ = [
    "GAIN",
    "PANEL_NAME",
    "WARNINGS",
    "Array",
    "ByRole",
    "CostSummary",
    "FailedStudy",
    "LeakageGap",
    "Panel",
    "PanelDrawer",
    "PanelDrawingError",
    "Promotion",
    "RankCorrelation",
    "Reference",
    "RunSummary",
    "SharedConfiguration",
    "Splits",
    "Summary",
    "TensorBoard",
    "TieBreaks",
    "TrainingLog",
    "TrialCounts",
    "TrialSummary",
    "UnsentWrites",
    "describe_start",
    "describe_study",
    "format_test_gain",
    "gain_rows",
    "make_panel",
    "parse_summary",
    "plot_roc_curve",
    "plot_training_curves",
    "read_summary",
    "remarks",
    "synthesize_examples",
    "warnings",
    "write_study_figures",
]
