from .check_tables import print_check, print_diagnosis, print_effects, print_layout
from .demo_story import print_story
from .progress import progress_bar
from .session import plan, search, train_detector
from .tables import print_lines, print_run, print_text_table, print_training

__all__ = [
    "plan",
    "print_check",
    "print_diagnosis",
    "print_effects",
    "print_layout",
    "print_lines",
    "print_run",
    "print_story",
    "print_text_table",
    "print_training",
    "progress_bar",
    "search",
    "train_detector",
]
