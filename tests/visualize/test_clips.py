"""Clips as rows of frames."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from rstg_pyg import region_graph
from rstg_pyg.visualize import draw_clips
from rstg_pyg.visualize.sheet import MARK, TRUE

GRAPH = region_graph((3, 2, 1))
VIDEOS = torch.rand(2, 10, 32, 32, generator=torch.Generator().manual_seed(0))
ALPHA = torch.rand(90, 2, 10, generator=torch.Generator().manual_seed(1))


def marks_of(ax):
    return [patch for patch in ax.patches if patch.get_label() == "mark"]


def texts_of(figure):
    return [text.get_text() for text in figure.texts]


def test_frames_are_spread_over_the_clip():
    figure = draw_clips(VIDEOS, GRAPH, ALPHA, ["one", "two"], num_frames=4, title="clips")
    assert texts_of(figure) == ["clips", "one", "frame 1", "frame 4", "frame 7", "frame 10", "two"]
    for ax, (clip, t) in zip(figure.axes, [(c, t) for c in range(2) for t in (0, 3, 6, 9)], strict=True):
        assert torch.equal(torch.from_numpy(np.array(ax.images[0].get_array())), VIDEOS[clip, t])
        assert ax.images[0].get_clim() == (0, 1)
        assert len(ax.patches) == 14
        assert len(ax.texts) == 8


def test_without_graph_and_attention_there_are_only_frames_and_no_more_than_there_are():
    figure = draw_clips(VIDEOS[:1, :3], num_frames=5)
    assert len(figure.axes) == 3
    assert all(len(ax.patches) == len(ax.texts) == 0 for ax in figure.axes)
    assert figure.legends == []


def test_marks_are_at_their_pixels_and_nan_is_none():
    marks = torch.full((2, 10, 2, 4), torch.nan)
    marks[0, :, 0] = torch.tensor([1.0, 2.0, 9.0, 11.0])
    figure = draw_clips(VIDEOS, GRAPH, ALPHA, marks=marks, num_frames=1, marked="things")
    (mark,) = marks_of(figure.axes[0])
    assert mark.get_bbox().bounds == (2, 1, 9, 8)
    assert mark.get_edgecolor()[:3] == to_rgb(MARK)
    assert marks_of(figure.axes[1]) == []
    assert figure.legends[0].get_texts()[0].get_text() == "things"


def test_marks_can_be_seen_on_dark_and_on_bright():
    marks = torch.tensor([8.0, 8.0, 24.0, 24.0]).expand(1, 1, 1, 4)
    for background in (0.0, 1.0):
        figure = draw_clips(torch.full((1, 1, 32, 32), background), marks=marks)
        figure.canvas.draw()
        grey = torch.from_numpy(np.array(figure.canvas.buffer_rgba()))[..., :3].float().mean(-1) / 255
        box = figure.axes[0].get_window_extent()
        row = grey.size(0) - round((box.y0 + box.y1) / 2)
        across = grey[row, round(box.x0) + 3 : round(box.x0 + box.width / 2)]
        assert across.max() - across.min() > 0.5


def test_the_three_most_probable_classes_and_the_true_one_are_listed():
    probabilities = torch.tensor([[0.1, 0.4, 0.3, 0.2, 0.0], [0.0, 0.0, 0.0, 0.1, 0.9]])
    names = ["a", "b", "c", "d", "e"]
    figure = draw_clips(
        VIDEOS, GRAPH, ALPHA, num_frames=1, probabilities=probabilities, labels=torch.tensor([0, 4]), classes=names
    )
    first, second = figure.axes[1], figure.axes[3]
    assert [text.get_text() for text in first.texts] == ["b", "40%", "c", "30%", "d", "20%", "a (true)", "10%"]
    assert [text.get_text() for text in second.texts[:4]] == ["e (true)", "90%", "d", "10%"]
    assert len(second.texts) == 6
    assert [text.get_color() == TRUE for text in first.texts] == [False] * 6 + [True] * 2
    widths = [bar.get_width() for bar in first.patches if isinstance(bar, Rectangle)]
    assert widths == pytest.approx([1, 0.4, 1, 0.3, 1, 0.2, 1, 0.1])
    # Of probabilities over time, the last ones are listed.
    probabilities = torch.rand(2, 10, 4).softmax(-1)
    texts = [
        [text.get_text() for text in draw_clips(VIDEOS, num_frames=1, probabilities=given).axes[1].texts]
        for given in (probabilities, probabilities[:, -1])
    ]
    assert texts[0] == texts[1]
    assert texts[0][0].startswith("class ")


def test_long_names_are_cut():
    names = ["Pushing something from left to right and back again", "No"]
    figure = draw_clips(VIDEOS[:1], num_frames=1, probabilities=torch.tensor([[0.9, 0.1]]), classes=names)
    name, percent = figure.axes[1].texts[:2]
    assert name.get_text().endswith("…")
    figure.canvas.draw()
    assert name.get_window_extent().x1 < percent.get_window_extent().x0


def test_colour_and_wide_frames():
    videos = torch.randint(256, (1, 2, 10, 20, 3), dtype=torch.uint8)
    (ax, _) = draw_clips(videos).axes
    assert torch.equal(torch.from_numpy(np.array(ax.images[0].get_array())), videos[0, 0].float() / 255)
    box = ax.get_window_extent()
    assert box.width / box.height == pytest.approx(2)


def test_a_legend_names_what_is_drawn_and_it_is_saved_without_a_display(tmp_path):
    figure = draw_clips(VIDEOS, GRAPH, ALPHA)
    figure.savefig(tmp_path / "clips.png")
    assert (tmp_path / "clips.png").stat().st_size > 10_000
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "3 x 3 regions",
        "2 x 2 regions",
        "1 x 1 regions",
        "attention, sender to receiver",
    ]


def test_the_legend_fits():
    for num_frames in (1, 2, 5):
        figure = draw_clips(VIDEOS[:1], GRAPH, ALPHA[:, :1], marks=torch.zeros(1, 10, 2, 4), num_frames=num_frames)
        figure.canvas.draw()
        box = figure.legends[0].get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert 0 <= box.y0 < box.y1 <= min(ax.get_window_extent().y0 for ax in figure.axes)


def test_a_long_title_is_wrapped():
    figure = draw_clips(VIDEOS, num_frames=2, title="a title with words " * 8)
    figure.canvas.draw()
    title = figure.texts[0].get_window_extent()
    assert 0 <= title.x0 < title.x1 <= figure.bbox.x1
    assert title.y0 > max(text.get_window_extent().y1 for text in figure.texts[1:])


ERRORS = [
    ({"videos": VIDEOS[0]}, r"videos of shape \[n, T, H, W\] or \[n, T, H, W, 3\], got \[10, 32, 32\]"),
    ({"videos": VIDEOS[:0]}, r"videos of shape \[n, T, H, W\] or \[n, T, H, W, 3\], got \[0, 10, 32, 32\]"),
    ({"alpha": ALPHA[:, :1]}, r"alpha of shape \[90, 2, 10\], got \[90, 1, 10\]"),
    ({"graph": None}, "a 'graph' for the attention weights 'alpha', got None"),
    ({"captions": ["one"]}, "2 captions, got 1"),
    ({"marks": torch.zeros(2, 10, 4)}, r"marks of shape \[2, 10, K, 4\], got \[2, 10, 4\]"),
    ({"marks": torch.zeros(2, 9, 2, 4)}, r"marks of shape \[2, 10, 2, 4\], got \[2, 9, 2, 4\]"),
    ({"num_frames": 0}, "'num_frames' to be at least 1, got 0"),
    ({"labels": [0, 1]}, "'probabilities' with 'labels' or 'classes', got None"),
    (
        {"probabilities": torch.rand(2, 9, 4)},
        r"probabilities of shape \[2, M\] or \[2, 10, M\], got \[2, 9, 4\]",
    ),
    ({"probabilities": torch.rand(2, 4), "classes": ["a"]}, "names of 4 classes, got 1"),
    ({"probabilities": torch.rand(2, 4), "labels": [0, 4]}, r"2 labels within 0 to 3, got \[0, 4\]"),
    ({"probabilities": torch.rand(2, 4), "labels": [0]}, r"2 labels within 0 to 3, got \[0\]"),
]


def test_errors():
    for changes, message in ERRORS:
        with pytest.raises(ValueError, match=f"^expected {message}$"):
            draw_clips(**{"videos": VIDEOS, "graph": GRAPH, "alpha": ALPHA, **changes})


def test_a_picture_of_too_many_frames_is_refused():
    for videos in (torch.rand(300, 2, 8, 8), torch.rand(1, 3000, 8, 8)):
        with pytest.raises(
            ValueError, match=r"^expected a picture of at most 6000 square inches, got .*fewer clips or"
        ):
            draw_clips(videos.repeat(3, 1, 1, 1) if len(videos) > 1 else videos, num_frames=4000)
