"""las_tune: searches the hyperparameters of LAS anomaly detectors, category by category."""

__version__ = "0.1.0"
