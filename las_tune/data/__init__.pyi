from .category import find_categories, images_below, index_category
from .check import CategoryCheck, check_category
from .demo_category import render_demo
from .demo_part import Surfaces, colored_noise, render_image
from .digest import PARTS, TEXTURES, check_digest, digest_of, images_of, pack
from .download import fetch_dtd, fetch_mpdd
from .images import BROKEN, square_image, to_rgb, without_pillow_warnings
from .layout import CategoryLayout, lay_out
from .study_images import Array, LabeledImages, StudyImages, TrialImages, load_images, resolve_objective
from .trial_data import SharedData, share, store_limit_bytes

__all__ = [
    "BROKEN",
    "PARTS",
    "TEXTURES",
    "Array",
    "CategoryCheck",
    "CategoryLayout",
    "LabeledImages",
    "SharedData",
    "StudyImages",
    "Surfaces",
    "TrialImages",
    "check_category",
    "check_digest",
    "colored_noise",
    "digest_of",
    "fetch_dtd",
    "fetch_mpdd",
    "find_categories",
    "images_below",
    "images_of",
    "index_category",
    "lay_out",
    "load_images",
    "pack",
    "render_demo",
    "render_image",
    "resolve_objective",
    "share",
    "square_image",
    "store_limit_bytes",
    "to_rgb",
    "without_pillow_warnings",
]
