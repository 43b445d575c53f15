"""Rules for moving the alias `champion` to the champion of a study."""

from __future__ import annotations

import json
from collections.abc import Mapping

from las_tune.config import StudySpec
from las_tune.selection.promotion import Decision


def settings_tag(spec: StudySpec) -> str:
    """Return the training settings of a champion, in addition to its hyperparameters, as a tag of its model version."""
    train = spec.train
    return json.dumps(
        {
            "backbone": train.backbone,
            "backbone_weights": train.backbone_weights,
            "image_size": train.image_size,
            "epochs": train.epochs,
        }
    )


def why_alias_stays(spec: StudySpec, decision: Decision, registered: Mapping[str, str]) -> str:
    """Return why the alias does not move to the champion of a study; empty if it moves.

    Without a registered champion the alias always moves, also to the baseline.

    Args:
        spec: the study.
        decision: its decision.
        registered: tags of the registered champion's model version; empty if there is none.
    """
    if spec.is_test_selected:
        return "the alias champion was not moved: this study selected on the test images"
    if spec.demo and registered.get("demo") == "false":
        return "the alias champion was not moved: a demo does not replace a champion of real images"
    if not registered or (registered.get("demo") == "true" and not spec.demo):
        return ""
    if not decision.promoted:
        return "the registered champion stays"
    settings = json.loads(registered.get("settings", "{}"))
    own = json.loads(settings_tag(spec))
    compared = ("backbone", "backbone_weights", "image_size")
    is_comparable = all(settings.get(name, own[name]) == own[name] for name in compared)
    if is_comparable and settings.get("epochs", 0) <= own["epochs"]:
        return ""
    shown = ", ".join(f"{name} {value}" for name, value in settings.items())
    return (
        f"the alias champion was not moved: the registered champion has other settings ({shown}); "
        "to replace it, move the alias in MLflow"
    )
