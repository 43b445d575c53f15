"""Training step by step, without stored features or a fused head, and with losses from library functions."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from las_tune.config.train_spec import TrainSpec
from las_tune.las.backbone import Backbone
from las_tune.las.features import extract_features
from las_tune.las.head import Head
from las_tune.las.synthesis import synthesize
from las_tune.las.training import TrainData
from tests.reference.head import PlainHead
from tests.reference.masks import grid_labels


def train_losses(spec: TrainSpec, backbone: Backbone, data: TrainData) -> list[tuple[float, float]]:
    """Return the mean losses of normal and of synthesized images for each epoch."""
    head = PlainHead(backbone.channels, spec.hidden_width, spec.use_adaptor)
    drawn = Head(backbone.channels, spec.hidden_width, torch.Generator().manual_seed(spec.seed), spec.use_adaptor)
    head.load_state_dict(drawn.state_dict())
    discriminator = [p for name, p in head.named_parameters() if not name.startswith("adaptor")]
    adaptor = [p for name, p in head.named_parameters() if name.startswith("adaptor")]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(discriminator, spec.discriminator_lr, weight_decay=spec.weight_decay)
    ]
    if adaptor:
        optimizers.append(torch.optim.Adam(adaptor, spec.adaptor_lr, weight_decay=spec.weight_decay))
    generator = torch.Generator().manual_seed(spec.seed)
    epochs = []
    for _ in range(spec.epochs):
        order = torch.randperm(len(data.images), generator=generator).tolist()
        sums = [0.0, 0.0]
        while order:
            batch, order = order[: spec.batch_size], order[spec.batch_size :]
            good = data.images[batch]
            synthesized = synthesize(good, data.foreground[batch], data.textures, spec, generator)
            images = torch.cat([good.float() / 255, synthesized.images])
            logits = head(extract_features(backbone, images))
            on_good, on_synthesized = logits[: len(batch)], logits[len(batch) :]
            rows, columns = logits.shape[1:]
            labels = np.stack([grid_labels(mask[0].numpy(), rows, columns) for mask in synthesized.masks])
            normal = F.binary_cross_entropy_with_logits(on_good, torch.zeros_like(on_good))
            las = focal(on_synthesized.flatten(), torch.from_numpy(labels).flatten(), spec)
            head.zero_grad()
            (normal + las).backward()
            for optimizer in optimizers:
                optimizer.step()
            sums[0] += normal.item() * len(batch)
            sums[1] += las.item() * len(batch)
        epochs.append((sums[0] / len(data.images), sums[1] / len(data.images)))
    return epochs


def focal(logits: Tensor, labels: Tensor, spec: TrainSpec) -> Tensor:
    """Return the mean of -(1 - p)^γ log p over the patches of lowest p, the probability of the true label."""
    probability = torch.sigmoid(logits)
    p = torch.stack([q if label else 1 - q for q, label in zip(probability, labels.tolist(), strict=True)])
    hardest = p.sort().values[: max(1, round(spec.hard_share * len(p)))]
    return (-((1 - hardest) ** spec.focal_gamma) * hardest.log()).mean()
