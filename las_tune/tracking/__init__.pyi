from .connection import is_server, preserve_mlflow_state
from .journal import PANELS_NAME, STUDY_RUN, Journal, is_running, require_idle
from .ledger import Ledger
from .packaging import fetch_detector
from .provenance import provenance_tags
from .store import Store, open_to_read
from .study_report import make_report
from .sync import Audit, resend_end, resend_run, sync_study
from .system_metrics import SystemMetrics
from .tables import TextTable, study_table, trial_table
from .ui import running_ui, study_address

__all__ = [
    "PANELS_NAME",
    "STUDY_RUN",
    "Audit",
    "Journal",
    "Ledger",
    "Store",
    "SystemMetrics",
    "TextTable",
    "fetch_detector",
    "is_running",
    "is_server",
    "make_report",
    "open_to_read",
    "preserve_mlflow_state",
    "provenance_tags",
    "require_idle",
    "resend_end",
    "resend_run",
    "running_ui",
    "study_address",
    "study_table",
    "sync_study",
    "trial_table",
]
