"""las_tune: distributed hyperparameter search for LAS anomaly detectors, category by category.

As a library: `from las_tune import tune, train, load_champion`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from las_tune.api import load_champion, train, tune

__version__ = "0.1.0"
__all__ = ["__version__", "load_champion", "train", "tune"]


def __getattr__(name: str) -> Any:
    """Import the functions of the library on first use, so that importing the package stays fast."""
    if name in __all__:
        from las_tune import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
