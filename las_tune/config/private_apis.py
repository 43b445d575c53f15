"""The private names of third-party packages that las_tune uses, each with the reason.

A new version of a package may drop these names without notice. tests/config/test_private_apis.py checks that all of
them exist in the installed versions, and that las_tune uses no others.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PrivateAPI:
    """A private name of a third-party package."""

    path: str
    """Dotted path: the module, then attributes. Attributes of a class include those of its instances."""
    reason: str
    """Why the public API is not sufficient."""
    used_in: str
    """Module that uses the name."""

    @property
    def name(self) -> str:
        """The first private part of the path. It occurs in the module that uses the name."""
        return next(part for part in self.path.split(".") if part.startswith("_"))


_EFFICIENTNET = "efficientnet_lite_pytorch.EfficientNet"
_EFFICIENTNET_REASON = "The package has no public access to the layers, and the features are taken between two blocks."

PRIVATE_APIS = (
    PrivateAPI(
        "ray._raylet.GcsClient",
        "Ray has no public way to read the labels of a cluster's nodes before this machine has joined the cluster.",
        "las_tune.execution.nodes",
    ),
    PrivateAPI(
        "ray._private.state.state.get_draining_nodes",
        "Ray has no public API for the draining state of a node.",
        "las_tune.execution.nodes",
    ),
    PrivateAPI(
        "ray._raylet.Config.initialize",
        "Ray has no public way to read RAY_AUTH_MODE again after it has been restored.",
        "las_tune.execution.cluster",
    ),
    PrivateAPI(
        "ray._raylet.AuthenticationTokenLoader.reset_cache",
        "See Config: the token is cached separately.",
        "las_tune.execution.cluster",
    ),
    PrivateAPI(
        "ray.tune.schedulers.ASHAScheduler._brackets",
        "ASHAScheduler draws brackets from NumPy's global generator. Here they depend on the seed of the study.",
        "las_tune.search.schedulers",
    ),
    PrivateAPI(
        "ray.tune.schedulers.ASHAScheduler._trial_info",
        "See _brackets: the bracket of a trial is replaced after Ray has drawn it.",
        "las_tune.search.schedulers",
    ),
    PrivateAPI(
        "ray.tune.schedulers.MedianStoppingRule._stopped_trials",
        "The rule raises an error when a trial that it decided to stop reports again, as the baseline does.",
        "las_tune.search.schedulers",
    ),
    PrivateAPI(
        "optuna._gp.batched_lbfgsb",
        "The GP sampler warns without greenlet, and Optuna's public verbosity would hide all other warnings as well.",
        "las_tune.search.optuna_storage",
    ),
    PrivateAPI(
        "mlflow.environment_variables._MLFLOW_IS_IN_SERVING_ENVIRONMENT",
        "MLflow has no public way to detect that a model is served. A served model must not read paths.",
        "las_tune.tracking.mlflow_model",
    ),
    *(
        PrivateAPI(f"{_EFFICIENTNET}.{name}", _EFFICIENTNET_REASON, "las_tune.las.backbone")
        for name in ("_conv_stem", "_bn0", "_swish", "_blocks")
    ),
)
