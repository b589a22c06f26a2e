"""A graph that changes in motion, read back."""

import numpy as np
import pytest
import torch
from PIL import Image

from rstg_pyg import RSTG
from rstg_pyg.visualize import animate_graph
from rstg_pyg.visualize.changing_graph import _Picture

N, T = 5, 4
EDGES = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 3]])
PLACES = torch.stack([torch.arange(5.0)[:, None].expand(N, T), torch.arange(4.0).expand(N, T)], -1)


def frames_of(path):
    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            yield np.array(image.convert("RGB")).astype(int), image.info["duration"]


def draw(tmp_path, **options):
    animate_graph(PLACES, EDGES, tmp_path / "graph.gif", **{"dpi": 50, "trail": 1, "fps": 4, **options})
    return list(frames_of(tmp_path / "graph.gif"))


def test_it_shows_who_is_there_and_the_frames_edges(tmp_path):
    everyone = draw(tmp_path)
    assert len(everyone) == T and {duration for _, duration in everyone} == {250}
    mask, edge_time = torch.ones(N, T, dtype=torch.bool), torch.tensor([1, 1, 1, 1])
    mask[4, 2] = False
    fewer = draw(tmp_path, mask=mask)
    changed = [(a != b).any() for (a, _), (b, _) in zip(everyone, fewer, strict=True)]
    assert changed == [False, False, True, True]  # in the last frame its way is gone
    timed = draw(tmp_path, edge_time=edge_time)
    changed = [(a != b).any() for (a, _), (b, _) in zip(everyone, timed, strict=True)]
    assert changed == [True, False, True, True]


def test_a_gif_of_a_fast_clip_leaves_frames_out(tmp_path):
    """No delay is below two hundredths of a second, which viewers take for ten; the last frame is there."""
    *_, (last, _) = draw(tmp_path)
    frames = draw(tmp_path, fps=100)
    assert [duration for _, duration in frames] == [20, 20]
    assert (frames[-1][0] == last).all()


def test_more_attention_is_darker(tmp_path):
    rstg = RSTG(2, num_stages=1, heads=2)
    mask = torch.rand(N, T) < 0.8
    _, _, [(_, alpha)] = rstg(PLACES, EDGES, mask=mask, return_attention_weights=True)
    draw(tmp_path, alpha=alpha, mask=mask)
    alpha = torch.tensor([[1.0], [0.1], [0.1], [0.1]])
    edge_time = torch.zeros(4, dtype=torch.int64)
    (one, _), *_ = draw(tmp_path, alpha=alpha, edge_time=edge_time)
    (other, _), *_ = draw(tmp_path, alpha=alpha.flip(0), edge_time=edge_time)
    left = np.s_[:, : one.shape[1] // 3]
    assert one[left].sum() < other[left].sum()


def greens_and_reds(frame):
    red, green, blue = np.moveaxis(frame, -1, 0)
    return int(((green > red + 40) & (green > blue + 20)).sum()), int(((red > green + 60) & (red > blue + 60)).sum())


def test_what_is_believed_is_green_or_red_and_what_is_predicted_a_ring(tmp_path):
    alpha, truth = torch.ones(4, T, 1), torch.tensor([True, True, True, True])
    alpha[:, 0] = 0
    (unknown, _), (right, _), *_ = draw(tmp_path, alpha=alpha, truth=truth)
    (_, _), (wrong, _), *_ = draw(tmp_path, alpha=alpha, truth=~truth)
    assert greens_and_reds(unknown) == (0, 0)
    assert greens_and_reds(right)[0] > 30 and greens_and_reds(right)[1] == 0
    assert greens_and_reds(wrong)[1] > 30 and greens_and_reds(wrong)[0] == 0
    predicted = torch.full_like(PLACES, float("nan"))
    predicted[:, 2:] = PLACES[:, 2:] + 0.1
    changed = [
        (a != b).any() for (a, _), (b, _) in zip(draw(tmp_path), draw(tmp_path, predicted=predicted), strict=True)
    ]
    assert changed == [False, False, True, True]


def test_what_fails_midway_leaves_the_old_picture(tmp_path, monkeypatch):
    (tmp_path / "graph.gif").write_text("from before")
    monkeypatch.setattr(_Picture, "show", lambda picture, t, *edges: [0, 1][t + 1])
    with pytest.raises(IndexError, match="list index out of range"):
        draw(tmp_path)
    assert (tmp_path / "graph.gif").read_text() == "from before"
    assert [path.name for path in tmp_path.iterdir()] == ["graph.gif"]


def test_bad_input(tmp_path):
    for options, message in [
        ({"truth": torch.ones(4)}, r"a bool 'truth' of shape \[4\], got torch.float32 of shape \[4\]"),
        ({"predicted": torch.ones(5, 2)}, r"'predicted' of shape \[5, 4, 2\], got \[5, 2\]"),
        ({"alpha": torch.rand(4, 2)}, r"'alpha' of shape \[4, 4, 'heads'\], got \[4, 2\]"),
        ({"trail": 0}, "'trail' to be a positive int"),
        ({"fps": 0}, "'fps' and 'dpi' to be positive"),
        ({"mask": torch.ones(N, T)}, r"a bool 'mask' of shape \[5, 4\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            draw(tmp_path, **options)
    with pytest.raises(ValueError, match=r"'position' of shape \[N, T, 2\], got \[5, 4\]"):
        animate_graph(PLACES[..., 0], EDGES, tmp_path / "graph.gif")
