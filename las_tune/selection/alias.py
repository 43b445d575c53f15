"""When the alias champion moves to a study's champion, and when it stays where it is."""

from __future__ import annotations

import json
from collections.abc import Mapping

from las_tune.config.study_spec import StudySpec
from las_tune.selection.promotion import Decision


def settings_tag(spec: StudySpec) -> str:
    """What a champion was trained with besides its hyperparameters, as its version's tag."""
    train = spec.train
    return json.dumps(
        {
            "backbone": train.backbone,
            "backbone_weights": train.backbone_weights,
            "image_size": train.image_size,
            "epochs": train.epochs,
        }
    )


def why_alias_stays(spec: StudySpec, decision: Decision, holder: Mapping[str, str]) -> str:
    """Why the alias does not move to the one handed over; empty where it moves.

    Without a holder it moves, to the baseline as well: something must be the champion. holder: tags of the version that
    has it; empty without one.
    """
    if spec.is_test_selected:
        return "not made champion: it was chosen by the test images"
    if spec.demo and holder.get("demo") == "false":
        return "not made champion: a demo displaces no champion of real images"
    if not holder or (holder.get("demo") == "true" and not spec.demo):
        return ""
    if not decision.promoted:
        return "the earlier champion stays"
    settings = json.loads(holder.get("settings", "{}"))
    ours = json.loads(settings_tag(spec))
    same = all(settings.get(name, ours[name]) == ours[name] for name in ("backbone", "backbone_weights", "image_size"))
    if same and settings.get("epochs", 0) <= ours["epochs"]:
        return ""
    told = ", ".join(f"{name} {value}" for name, value in settings.items())
    return f"not made champion: the old one was trained with other settings ({told}); the alias can be moved in MLflow"
