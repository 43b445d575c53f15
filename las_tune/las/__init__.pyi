from .backbone import EFFICIENTNET_LITE0, Backbone, load_backbone
from .checkpoint import CHECKPOINT_NAME, load_checkpoint, load_detector, save_checkpoint, save_detector
from .features import FeatureStore, bytes_per_image, extract_features, store_features
from .head import Head
from .image_metrics import LabeledFeatures, metrics_of, threshold_of
from .masks import grid_labels, otsu_foreground
from .memory import keep_freed_memory
from .memory_bank import build_bank, score_bank
from .metrics import PixelTargets, aupro_by_image, pixel_targets
from .scoring import Detector, image_scores, score_features, smoothing_matrix
from .synthesis import Synthesized, synthesize
from .training import EpochResult, TrainData, Training, TrainingDivergedError, pick_device, train, train_epoch

__all__ = [
    "CHECKPOINT_NAME",
    "EFFICIENTNET_LITE0",
    "Backbone",
    "Detector",
    "EpochResult",
    "FeatureStore",
    "Head",
    "LabeledFeatures",
    "PixelTargets",
    "Synthesized",
    "TrainData",
    "Training",
    "TrainingDivergedError",
    "aupro_by_image",
    "build_bank",
    "bytes_per_image",
    "extract_features",
    "grid_labels",
    "image_scores",
    "keep_freed_memory",
    "load_backbone",
    "load_checkpoint",
    "load_detector",
    "metrics_of",
    "otsu_foreground",
    "pick_device",
    "pixel_targets",
    "save_checkpoint",
    "save_detector",
    "score_bank",
    "score_features",
    "smoothing_matrix",
    "store_features",
    "synthesize",
    "threshold_of",
    "train",
    "train_epoch",
]
