"""A plain LAS training loop, as in the reference configuration: the program that las_tune is timed against.

It runs the whole network on both branches, makes masks and augmentations image by image on the CPU with NumPy and PIL,
has two separate linear layers, reads the loss in every step, and evaluates through the network. Two simplifications
favor it: images are decoded before the measurement, and evaluation computes the image AUROC only.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torchvision import models
from torchvision.transforms.functional import adjust_hue, pil_to_tensor

from las_tune.config.train_spec import TrainSpec
from las_tune.las.backbone import IMAGENET_MEAN, IMAGENET_STD
from tests.reference.head import PlainHead

Floats = NDArray[np.float64]
AUGMENTATIONS = ("jitter", "blur", "rotation", "flip", "mirror", "translation", "scaling", "sharpness", "contrast")


class PlainTraining:
    """One training with the plain loop; images (N, 3, S, S) uint8 and labels (N,) bool."""

    def __init__(self, spec: TrainSpec, fit: Tensor, textures: Tensor, test: Tensor, labels: Tensor, device: str):
        self.spec = spec
        self.device = torch.device(device)
        self.fit = [to_pil(image) for image in fit]
        self.foregrounds = [otsu_mask(image) for image in self.fit]
        self.textures = [to_pil(texture) for texture in textures]
        self.test = [to_pil(image) for image in test]
        self.labels = labels.numpy()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the same weights as load_backbone
            self.network = models.get_model(spec.backbone, weights=None).eval().to(self.device)
        self.maps: list[Tensor] = []
        for layer in (self.network.layer2, self.network.layer3):
            layer.register_forward_hook(lambda _module, _inputs, output: self.maps.append(output))
        self.head = PlainHead(self.channels(), spec.hidden_width).to(self.device)
        discriminator = [p for name, p in self.head.named_parameters() if not name.startswith("adaptor")]
        self.adam = torch.optim.Adam(self.head.adaptor.parameters(), spec.adaptor_lr)
        self.adamw = torch.optim.AdamW(discriminator, spec.discriminator_lr, weight_decay=1e-5)
        self.rng = random.Random(spec.seed)
        self.numpy_rng = np.random.default_rng(spec.seed)

    def channels(self) -> list[int]:
        """Return the channels of the two layers."""
        return [m.shape[-1] for m in self.features(torch.zeros(1, 3, 64, 64, device=self.device))]

    @torch.no_grad()
    def features(self, batch: Tensor) -> list[Tensor]:
        """Return the averaged feature maps (B, rows, columns, C) of normalized images (B, 3, S, S)."""
        self.maps.clear()
        self.network(batch)
        pooled = [F.avg_pool2d(m, 3, stride=1, padding=1, count_include_pad=False) for m in self.maps]
        return [m.permute(0, 2, 3, 1) for m in pooled]

    def epoch(self) -> tuple[float, float]:
        """Train and evaluate one epoch. Return mean loss and image AUROC."""
        self.head.train()
        order = list(range(len(self.fit)))
        self.rng.shuffle(order)
        total = 0.0
        for start in range(0, len(order), self.spec.batch_size):
            batch = order[start : start + self.spec.batch_size]
            defective = [self.synthesize(index) for index in batch]
            good = self.normalized([self.fit[index] for index in batch])
            synthetic = self.normalized([image for image, _ in defective])
            masks = torch.stack([torch.from_numpy(mask) for _, mask in defective]).to(self.device)
            on_good, on_synthetic = self.head(self.features(good)), self.head(self.features(synthetic))
            labels = F.adaptive_max_pool2d(masks.float(), on_good.shape[1:])
            loss = F.binary_cross_entropy_with_logits(on_good, torch.zeros_like(on_good))
            loss = loss + self.focal(on_synthetic, labels)
            self.adam.zero_grad()
            self.adamw.zero_grad()
            loss.backward()
            self.adam.step()
            self.adamw.step()
            total += loss.item() * len(batch)
        return total / len(order), self.evaluate()

    def focal(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the focal loss on the hardest half of the patches."""
        wrong = torch.where(labels > 0, 1 - logits.sigmoid(), logits.sigmoid()).flatten()
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").flatten()
        hardest = wrong.topk(max(1, round(self.spec.hard_share * len(wrong)))).indices
        return (wrong[hardest] ** self.spec.focal_gamma * losses[hardest]).mean()

    @torch.no_grad()
    def evaluate(self) -> float:
        """Return the image AUROC of the test images, computed through the network."""
        self.head.eval()
        scores: list[float] = []
        for start in range(0, len(self.test), self.spec.batch_size):
            logits = self.head(self.features(self.normalized(self.test[start : start + self.spec.batch_size])))
            size = (self.spec.image_size, self.spec.image_size)
            maps = F.interpolate(logits.sigmoid().unsqueeze(1), size, mode="bilinear", align_corners=False)
            scores += maps.amax((1, 2, 3)).tolist()
        return float(roc_auc_score(self.labels, scores))

    def normalized(self, images: Sequence[Image.Image]) -> Tensor:
        """Convert PIL images to one normalized batch on the device."""
        mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
        std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
        return torch.stack([(pil_to_tensor(p).float() / 255 - mean) / std for p in images]).to(self.device)

    def synthesize(self, index: int) -> tuple[Image.Image, NDArray[np.bool_]]:
        """Synthesize a defect on one image (steps I to III of the paper). Return image and mask."""
        mask = self.mask(self.foregrounds[index])
        texture = np.asarray(self.augmented(self.rng.choice(self.textures)), np.float64)
        image = np.asarray(self.fit[index], np.float64)
        spec = self.spec
        beta = min(max(self.rng.gauss(spec.beta_mean, spec.beta_std), spec.beta_min), spec.beta_max)
        inside = mask[..., None]
        blended = image * ~inside + ((1 - beta) * texture + beta * image) * inside
        return Image.fromarray(blended.round().astype(np.uint8)), mask

    def mask(self, foreground: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Combine two Perlin masks by the α rule inside the foreground, up to eight times while the result is empty."""
        mask = np.zeros_like(foreground)
        for _ in range(8):
            m1, m2, p = self.noise() > 0.5, self.noise() > 0.5, self.rng.random()
            both = m1 & m2 if p <= self.spec.alpha else m1 | m2 if p <= 2 * self.spec.alpha else m1
            mask = both & foreground
            if mask.any():
                break
        return mask

    def noise(self) -> Floats:
        """Return the Perlin noise of one image, rotated with PIL."""
        size = self.spec.image_size
        cells = [2 ** self.rng.randint(0, self.spec.perlin_max_exponent) for _ in range(2)]
        angles = 2 * math.pi * self.numpy_rng.random((cells[0] + 1, cells[1] + 1))
        position = [(np.arange(size) + 0.5) / size * count for count in cells]
        low = [p.astype(int) for p in position]
        y, x = (position[0] - low[0])[:, None], (position[1] - low[1])[None, :]

        def corner(dy: int, dx: int) -> Floats:
            angle = angles[np.ix_(low[0] + dy, low[1] + dx)]
            dot: Floats = np.sin(angle) * (y - dy) + np.cos(angle) * (x - dx)
            return dot

        def fade(t: Floats) -> Floats:
            return 6 * t**5 - 15 * t**4 + 10 * t**3

        top = corner(0, 0) + fade(x) * (corner(0, 1) - corner(0, 0))
        bottom = corner(1, 0) + fade(x) * (corner(1, 1) - corner(1, 0))
        noise = math.sqrt(2) * (top + fade(y) * (bottom - top))
        turned = Image.fromarray(noise.astype(np.float32)).rotate(self.rng.uniform(-90, 90), Image.Resampling.BILINEAR)
        return np.asarray(turned, np.float64)

    def augmented(self, texture: Image.Image) -> Image.Image:
        """Apply three of nine augmentations with PIL."""
        side = texture.size
        for name in self.rng.sample(AUGMENTATIONS, 3):
            if name == "jitter":
                for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                    texture = enhance(texture).enhance(self.rng.uniform(0.6, 1.4))
                texture = adjust_hue(texture, self.rng.uniform(-0.5, 0.5))
            elif name == "blur":
                texture = texture.filter(ImageFilter.GaussianBlur(self.rng.uniform(0.3, 2.0)))
            elif name == "rotation":
                texture = texture.rotate(self.rng.uniform(-45, 45), Image.Resampling.BILINEAR)
            elif name in ("flip", "mirror"):
                texture = ImageOps.flip(texture) if name == "flip" else ImageOps.mirror(texture)
            elif name == "translation":
                shift = [self.rng.uniform(-0.25, 0.25) * length for length in side]
                texture = texture.transform(side, Image.Transform.AFFINE, (1, 0, shift[0], 0, 1, shift[1]))
            elif name == "scaling":
                scale = self.rng.uniform(0.8, 1.25)
                texture = texture.transform(side, Image.Transform.AFFINE, (scale, 0, 0, 0, scale, 0))
            elif name == "sharpness":
                texture = ImageEnhance.Sharpness(texture).enhance(self.rng.uniform(0.0, 3.0))
            else:
                texture = ImageOps.autocontrast(texture)
        return texture


def to_pil(image: Tensor) -> Image.Image:
    """Convert (3, S, S) uint8 to a PIL image."""
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def otsu_mask(image: Image.Image) -> NDArray[np.bool_]:
    """Return the foreground of an image: the Otsu class that does not contain its corner."""
    gray = np.asarray(image.convert("L"))
    counts = np.bincount(gray.ravel(), minlength=256) / gray.size
    weight, partial = counts.cumsum(), (counts * np.arange(256)).cumsum()
    between = (partial[-1] * weight - partial) ** 2 / np.maximum(weight * (1 - weight), 1e-12)
    bright = gray > int(between.argmax())
    mask: NDArray[np.bool_] = ~bright if bright[0, 0] else bright
    return mask
