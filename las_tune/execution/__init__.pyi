from .checkpoint_storage import CheckpointStorage
from .cluster import Resources, check_storage, ray_cluster, resources_of
from .history import History
from .jobs import Jobs, jobs_at
from .nodes import check_against_head
from .observer import TuneInput, TuneResult
from .plan import Plan
from .remote import evaluate_remotely, measure_remotely, prepare_remotely, score_remotely
from .trainable import SharedStudy
from .tuner import load_trained, run_finalists, run_trials

__all__ = [
    "CheckpointStorage",
    "History",
    "Jobs",
    "Plan",
    "Resources",
    "SharedStudy",
    "TuneInput",
    "TuneResult",
    "check_against_head",
    "check_storage",
    "evaluate_remotely",
    "jobs_at",
    "load_trained",
    "measure_remotely",
    "prepare_remotely",
    "ray_cluster",
    "resources_of",
    "run_finalists",
    "run_trials",
    "score_remotely",
]
