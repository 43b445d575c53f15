from .grid import grid_points
from .parameters import Choice, Parameter
from .search_space import Space, holds, load_space, space_for
from .sensitivity import Effect, measure_sensitivity, require_effects

__all__ = [
    "Choice",
    "Effect",
    "Parameter",
    "Space",
    "grid_points",
    "holds",
    "load_space",
    "measure_sensitivity",
    "require_effects",
    "space_for",
]
