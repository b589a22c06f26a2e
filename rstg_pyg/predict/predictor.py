"""A trained network that says of videos what happens in them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from rstg_pyg.arguments import check_name, check_positive, whole_number
from rstg_pyg.blocks.region_block import RegionBlock
from rstg_pyg.files import reading
from rstg_pyg.models import VIDEO_ROWS, VideoNetwork, VideoResNet
from rstg_pyg.predict.source import VideoSource, as_rate
from rstg_pyg.predict.stream import FrameByFrame, FrameSampler, LiveStream, Prediction, SlidingWindows
from rstg_pyg.regions import region_graph
from rstg_pyg.training.weights import CheckpointError, SavedWeights
from rstg_pyg.visualize.explanation import AttentionRecording

TASK = "something-something"
"""What ``examples/something_something.py`` writes into its files."""
CLIP_SECONDS = 4
"""About how long the videos of Something-Something are (2 to 6 seconds): a training clip is spread over that."""


class Predictor:
    r"""A network of Something-Something for videos of any length, in constant memory.

    A frame-wise network (``"c2d"`` and ``"c2d+rstg:vec"``) carries its recurrent state from frame to frame. The others
    look at later frames: a window of a clip's frames slides over the video, and the answer is the mean of the windows'
    logits. Videos are sampled at a fixed rate and seen as in the evaluation: the shorter side resized, the central
    square. Use one predictor in one thread at a time; several streams of it may be open.

    Args:
        model: The network, as :func:`~rstg_pyg.models.build_video_row` makes it.
        classes: The names of its M classes.
        num_frames: Number of frames T of the clips that it was trained on, the default of windows.
        size: Height and width S of those clips.
        device: Where it runs.

    Raises:
        ValueError: If an argument does not fit, or there is no such device.

    Source: evaluation and clips are those of "Recurrent Space-time Graph Neural Networks", NeurIPS 2019,
    arXiv:1904.05582; going through a stream by states or windows is this package's.

    Example:
        >>> from rstg_pyg.models import VIDEO_SMALL, build_video_row
        >>> predictor = Predictor(build_video_row("c2d+rstg:vec"), [str(n) for n in range(174)], num_frames=8, size=32)
        >>> video = (torch.zeros(48, 64, 3, dtype=torch.uint8) for _ in range(20))
        >>> last = [prediction for prediction in predictor.stream(video)][-1]
        >>> last.index, last.logits.shape, last.attention.shape
        (19, torch.Size([174]), torch.Size([90]))
    """

    def __init__(
        self,
        model: VideoResNet,
        classes: Sequence[str],
        num_frames: int,
        size: int,
        device: str | torch.device = "cpu",
    ) -> None:
        if len(classes) != model.classifier.out_features:
            raise ValueError(f"expected the names of {model.classifier.out_features} classes, got {len(classes)}")
        self.device = _device(device)
        self.model = model.eval().to(self.device)
        self.classes = tuple(classes)
        self.num_frames = num_frames
        self.size = size
        blocks = [module for module in model.modules() if isinstance(module, RegionBlock)]
        # With graphs at several stages, that of the last.
        self._block = blocks[-1] if blocks else None

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike, device: str | torch.device = "cpu") -> Predictor:
        r"""Load a file of :func:`~rstg_pyg.training.save_weights`, or a run's ``last.ckpt``.

        Raises:
            CheckpointError: If the file is damaged, of another kind, or of another task.
            OSError: If it cannot be read.
        """
        network = load_trained_network(path)
        return cls(network.model, network.classes, network.num_frames, network.size, device)

    @property
    def carries_state(self) -> bool:
        """Whether the network goes from frame to frame; else a window slides."""
        return self.model.form == "c2d"

    @property
    def graph(self) -> Data | None:
        """The region graph whose attention predictions hold, or None."""
        return None if self._block is None else region_graph(self._block.pool.scales)

    def open(
        self,
        source_rate: float | None = None,
        frames_per_second: float | None = None,
        window: int | None = None,
        stride: int | None = None,
    ) -> LiveStream:
        r"""Begin a stream to which frames are given one by one, such as those of a camera.

        Args:
            source_rate: Frames a second that will be given; without it, the network looks at each of them.
            frames_per_second: Frames a second that it looks at (default: such that T of them are 4 seconds, about the
                length of the videos that it was trained on).
            window: Frames of a window (default: T).
            stride: Frames from a window to the next (default: half a window).

        Raises:
            ValueError: If an argument is out of its range, or does not fit the network.
        """
        if self.carries_state:
            if window is not None or stride is not None:
                raise ValueError("expected no 'window' and no 'stride' for a network that carries a state, got one")
            way: FrameByFrame | SlidingWindows = FrameByFrame(self.model)
        else:
            window = self.num_frames if window is None else whole_number("window", window, 2)
            way = SlidingWindows(self.model, window, max(1, window // 2) if stride is None else stride)
        return LiveStream(
            way,
            FrameSampler(self._ratio(source_rate, frames_per_second)),
            self.classes,
            self.size,
            self.device,
            None if self._block is None else AttentionRecording(self._block),
        )

    def stream(self, frames: Iterable[Tensor], **options: float | None) -> Iterator[Prediction]:
        r"""Say after each frame of a video what happens in it.

        It reads one frame ahead, to know the last: the last prediction is that of :meth:`LiveStream.finish`, and the
        best. No frame is kept.

        Args:
            frames: The frames of a video.
            **options: As of :meth:`open`.

        Shapes:
            - **frames:** each ``[H, W, 3]`` uint8, all of one size.

        Raises:
            ValueError: If a frame or an option does not fit.
        """
        live, said = self.open(**options), None
        for frame in frames:
            if said is not None:
                yield said
            said = live.push(frame)
        if said is not None:
            yield live.finish()

    @torch.no_grad()
    def clip(self, video: Tensor) -> tuple[Tensor, Tensor | None]:
        r"""Say of a whole clip what happens in it, as the evaluation does.

        Args:
            video: The clip, such as ``item.video[0]`` of :class:`~rstg_pyg.datasets.SomethingSomething`.

        Shapes:
            - **video:** ``[3, T, S, S]`` uint8. **output:** logits ``[M]`` and attention ``[E, T // 2]`` or None.
        """
        clips = video[None].to(self.device)
        if self._block is None:
            return self.model(clips)[0].float().cpu(), None
        with AttentionRecording(self._block) as attention:
            logits = self.model(clips)[0].float().cpu()
        return logits, None if attention.alpha is None else attention.alpha[:, 0].float().cpu()

    def whole(self, source: VideoSource) -> Iterator[Prediction]:
        r"""Say of each frame what the evaluation says of the whole video, from T frames spread over it.

        All predictions have the same logits: those of the centre clip of
        :class:`~rstg_pyg.datasets.SomethingSomething`, bit for bit in float32. The attention is that at the frame. The
        video is read twice.

        Args:
            source: The video; a stream of unknown length cannot be spread over.

        Raises:
            DamagedVideoError: If it cannot be read.
        """
        video, count = source.centre_clip(self.num_frames, self.size)
        logits, attention = self.clip(video)
        for index, frame in enumerate(source):
            alpha = None
            if attention is not None:
                place = (2 * index + 1) * attention.size(1) // (2 * count)
                alpha = attention[:, min(place, attention.size(1) - 1)]
            yield Prediction(index, frame, logits, alpha, self.classes)

    def _ratio(self, source_rate: float | None, frames_per_second: float | None) -> Fraction:
        """Frames given for each that is looked at."""
        if source_rate is None:
            if frames_per_second is not None:
                raise ValueError("expected 'source_rate' with 'frames_per_second', got none")
            return Fraction(1)
        rate = Fraction(self.num_frames, CLIP_SECONDS) if frames_per_second is None else frames_per_second
        return as_rate("source_rate", source_rate) / as_rate("frames_per_second", rate)


def _device(device: str | torch.device) -> torch.device:
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except Exception as error:
        # Whatever a backend that is missing raises.
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise ValueError(f"expected a device that torch can use, got {str(device)!r}: {reason}") from None
    return found


class TrainedNetwork(NamedTuple):
    r"""A trained network and what it was trained for.

    Attributes:
        model: The network, in evaluation mode.
        row: Its name in :data:`~rstg_pyg.models.VIDEO_ROWS`.
        classes: The names of the classes, in the order of the logits.
        num_frames: Number of frames T of the clips that it was trained on.
        size: Height and width of those clips.
    """

    model: VideoResNet
    row: str
    classes: tuple[str, ...]
    num_frames: int
    size: int


def load_trained_network(path: str | os.PathLike) -> TrainedNetwork:
    r"""Build the network that a file of weights or a checkpoint of a run says it holds, and load it.

    Args:
        path: A file of :func:`~rstg_pyg.training.save_weights`, or a run's ``last.ckpt``.

    Raises:
        CheckpointError: If the file is damaged, of another kind, of another task, or of a version that knows more.
        OSError: If it cannot be read.
    """
    saved = SavedWeights(path)
    config = check_task(saved)
    row, classes, num_frames, size = (config[name] for name in _ENTRIES)
    with reading(path, CheckpointError, _OWN):
        check_name("the name of a row", row, VIDEO_ROWS)
        check_positive(size=size)
        if num_frames < 2:
            raise ValueError(f"expected clips of at least 2 frames, got {num_frames}")
        network = saved.made("network", VideoNetwork)
        if len(classes) != network.num_classes or not all(isinstance(name, str) for name in classes):
            raise ValueError(f"expected the names of {network.num_classes} classes, got {len(classes)} entries")
        model = VIDEO_ROWS[row].build(network)
    saved.put_into(model)
    return TrainedNetwork(model.eval(), row, tuple(classes), num_frames, size)


def check_task(saved: SavedWeights) -> Mapping[str, Any]:
    """Return what weights say of their network and how that was trained; raise
    :class:`~rstg_pyg.training.CheckpointError` unless it is one of Something-Something."""
    config, path = saved.config, saved.path
    if config.get("task") != TASK:
        found = config.get("task") or config.get("model")
        found = f"one of {found!r}" if isinstance(found, str) else "one that does not say of what"
        raise CheckpointError(f"expected {path} to hold a network of the task {TASK!r}, got {found}")
    with reading(path, CheckpointError, _OWN):
        for name, kind in _ENTRIES.items():
            saved.setting(name, kind)
    return config


_ENTRIES = {"model": str, "classes": list, "num_frames": int, "size": int}
_OWN = "of a network that this version can build"
