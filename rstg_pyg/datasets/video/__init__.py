r"""Video files and what is made of them: Something-Something, read as published, and small data sets of its form."""

from rstg_pyg.datasets.video.annotations import AnnotationError, Annotations, class_of_template, read_annotations
from rstg_pyg.datasets.video.augment import (
    FLIPS,
    change_colours,
    crop_offsets,
    mirror_classes,
    resize,
    short_side_to,
    spread_crops,
)
from rstg_pyg.datasets.video.damage import Damage, DamagedVideoError, DamagedVideoWarning, TooManyDamagedVideosError
from rstg_pyg.datasets.video.frame_folders import read_frame_folder, write_frame_folder
from rstg_pyg.datasets.video.moving_shapes import TEMPLATES, MadeClip, draw_clip
from rstg_pyg.datasets.video.sampling import VIEWS, average_views, every_frame, random_indices, spread_indices
from rstg_pyg.datasets.video.something_something import ClipSequence, SomethingSomething
from rstg_pyg.datasets.video.video_files import read_video_file, stream_video_file, write_video_file

__all__ = [
    "FLIPS",
    "TEMPLATES",
    "VIEWS",
    "AnnotationError",
    "Annotations",
    "ClipSequence",
    "Damage",
    "DamagedVideoError",
    "DamagedVideoWarning",
    "MadeClip",
    "SomethingSomething",
    "TooManyDamagedVideosError",
    "average_views",
    "change_colours",
    "class_of_template",
    "crop_offsets",
    "draw_clip",
    "every_frame",
    "mirror_classes",
    "random_indices",
    "read_annotations",
    "read_frame_folder",
    "read_video_file",
    "resize",
    "short_side_to",
    "spread_crops",
    "spread_indices",
    "stream_video_file",
    "write_frame_folder",
    "write_video_file",
]
