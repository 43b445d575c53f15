from .doctor import Diagnosis, diagnose, repair, studies_in
from .launch import launch_plan, launch_search, launch_training
from .single import SingleResult

__all__ = [
    "Diagnosis",
    "SingleResult",
    "diagnose",
    "launch_plan",
    "launch_search",
    "launch_training",
    "repair",
    "studies_in",
]
