from .export import SUFFIXES, export_detector
from .files import TABLE, find_images, predict_files, write_table
from .predictor import Predictor

__all__ = [
    "SUFFIXES",
    "TABLE",
    "Predictor",
    "export_detector",
    "find_images",
    "predict_files",
    "write_table",
]
