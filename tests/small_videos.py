"""A data set of a few made videos in the form of Something-Something, and training runs on it."""

from fractions import Fraction

import av
import torch

from rstg_pyg.datasets.made_videos import make_videos
from rstg_pyg.models import VideoNetwork
from rstg_pyg.training import ClipClassifier, VideoData, VideoRecipe, open_run, run_trainer, train_and_test

TRAINING, VALIDATION = 10, 7
RECIPE = VideoRecipe(
    12, num_frames=4, size=32, scale=(1.0, 1.2), batch_size=4, chunk=6, val_clips=5, optimizer="nesterov", lr=0.05
)
"""Two chunks of two steps, beyond the first round through the videos."""
NETWORK = VideoNetwork(depth=18, width=4, num_classes=6, channels=8, num_stages=1, dropout=0.2)


def make_small_videos(folder, clips=TRAINING):
    make_videos(folder, clips=clips, validation_clips=VALIDATION, height=32, frames=(6, 9))
    return folder


def write_recording(path, frames, times):
    """Write a WebM file as a browser does: milliseconds when each frame is shown, no duration and no rate."""
    with av.open(str(path), "w", format="webm", options={"live": "1"}) as container:
        stream = container.add_stream("libvpx", rate=30)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    # The time from frame to frame, four bytes in an element of eight, becomes a void of the same length.
    content = path.read_bytes()
    place = content.index(bytes.fromhex("23e38384"))
    path.write_bytes(content[:place] + bytes.fromhex("ec86") + bytes(6) + content[place + 8 :])
    return path


def damage(root, *numbers):
    """Spoil the first frames of some videos; return their names."""
    for number in numbers:
        first = min((root / "20bn-something-something-v1" / str(number)).iterdir())
        first.write_bytes(b"no picture")
        for path in first.parent.iterdir():
            path.write_bytes(b"no picture")
    return [f"{number} (unreadable)" for number in numbers]


class Plain(torch.nn.Module):
    """A network whose answers for a clip do not depend on the others of the batch."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv3d(3, 6, 3, stride=2),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool3d((1, 2, 2)),
            torch.nn.Flatten(),
            torch.nn.Dropout(0.0),
            torch.nn.Linear(24, 6),
        )

    def forward(self, video):
        return self.layers(video.float() / 255)


def go(folder, root, recipe=RECIPE, model=None, views="centre", **options):
    """Begin or go on with a run; return what it came to, its classifier and its clips."""
    module = ClipClassifier(Plain() if model is None else model, recipe)
    data = VideoData(root, recipe, views=views)
    checkpoint = open_run(folder, module)
    trainer = run_trainer(folder, recipe, "cpu", progress=False, **options)
    return train_and_test(module, data, trainer, checkpoint), module, data
