from .agreement import leakage_gap, rank_correlation
from .alias import settings_tag, why_alias_stays
from .evaluation import MEMORY_BANK, Evaluation, TrainedHead, evaluate
from .finalists import (
    BASELINE,
    BEST_OF,
    REGISTERED_CHAMPION,
    Finalist,
    Retraining,
    collect_finalists,
    decide_champion,
    make_retrainings,
    pick_finalists,
    require_successful_trial,
    score_heads,
)
from .openings import count_opening
from .promotion import Decision, Scores, paired_bootstrap
from .sealed_test import SealedReport

__all__ = [
    "BASELINE",
    "BEST_OF",
    "MEMORY_BANK",
    "REGISTERED_CHAMPION",
    "Decision",
    "Evaluation",
    "Finalist",
    "Retraining",
    "Scores",
    "SealedReport",
    "TrainedHead",
    "collect_finalists",
    "count_opening",
    "decide_champion",
    "evaluate",
    "leakage_gap",
    "make_retrainings",
    "paired_bootstrap",
    "pick_finalists",
    "rank_correlation",
    "require_successful_trial",
    "score_heads",
    "settings_tag",
    "why_alias_stays",
]
