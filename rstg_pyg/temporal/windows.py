"""Windows over a long series: what was seen, and what comes next."""

from typing import Any, overload

import torch
from torch.utils.data import Dataset, Subset
from torch_geometric.data import Data

from rstg_pyg.arguments import check_flags, check_index, check_positive, describe
from rstg_pyg.temporal.series import NODE, Series, subgraph


class WindowDataset(Dataset):
    """What is made when it is asked for by its number, or in part by a slice of numbers, a view."""

    what = "window"

    @overload
    def __getitem__(self, index: int) -> Data: ...

    @overload
    def __getitem__(self, index: slice) -> Subset: ...

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Subset(self, range(len(self))[index])
        check_index(self.what, index, len(self))
        return self.get(index % len(self))


class Windows(WindowDataset):
    r"""Windows over a graph that changes, as a dataset: ``history`` frames to see and ``horizon`` frames to predict.

    Node tensors are views of the series, a set of edges that serves every frame is shared, and edges with a time are
    slices, so the windows of a series take no memory of their own. The stock PyG ``DataLoader`` batches them, and
    those of a slice, ``windows[:100]``.

    Args:
        data: The series, see :class:`Series`. Edges that are not sorted by time are sorted, once.
        history: Number of frames of the input.
        horizon: Number of frames of the target.
        stride: Frames from one window to the next.
        gap: Frames between the input and the target. A negative number moves the target into the input: -1 where
            ``data.y`` of a frame is what the next frame holds, ``-history`` for targets of the same frames.
        present_only: Leave out the nodes that ``data.mask`` says are absent in all frames of the input. Tensors are
            copies then. Worth it where few of all nodes are there at a time, such as people in a long video.

    Shapes:
        Of window i, which starts at frame s = i * stride; everything else is that of its frames:

        - **x:** ``[N, history, C]``, frames s to s + history - 1; **mask** and **edge_time** (from 0) likewise.
        - **y:** ``[N, horizon, ...]`` or ``[1, horizon, ...]``, frames from s + history + gap on of ``data.y``, or of
          ``data.x`` where there is no y.
        - **y_mask:** ``[N, horizon]`` bool, who is there then, of ``data.y_mask`` or ``data.mask``; without either all
          True, and ``[1, horizon]`` for a y of the graph.
        - **first_frame:** the int s.

    Raises:
        ValueError: If ``data`` is not a graph that changes, has too few frames, or a ``y`` without frames.
        IndexError: If there is no such window.

    Example:
        >>> import torch
        >>> from torch_geometric.loader import DataLoader
        >>> data = Data(x=torch.randn(20, 100, 3), edge_index=torch.randint(20, (2, 40)))
        >>> windows = Windows(data, history=12, horizon=6, stride=2)
        >>> len(windows), windows[5]
        (42, Data(x=[20, 12, 3], edge_index=[2, 40], y=[20, 6, 3], y_mask=[20, 6], first_frame=10))
        >>> next(iter(DataLoader(windows, batch_size=8, shuffle=True))).x.shape
        torch.Size([160, 12, 3])
    """

    def __init__(
        self, data: Data, history: int, horizon: int, stride: int = 1, gap: int = 0, present_only: bool = False
    ) -> None:
        check_positive(history=history, horizon=horizon, stride=stride)
        check_flags(present_only=present_only)
        if not isinstance(gap, int) or gap < -history:
            raise ValueError(f"expected 'gap' to be an int of at least {-history}, got {describe(gap)}")
        self.series = Series(data).sorted()
        self.history, self.horizon, self.stride, self.gap = history, horizon, stride, gap
        self.present_only = present_only
        self.span = max(history, history + gap + horizon)
        if self.span > self.series.num_frames:
            raise ValueError(f"expected at least {self.span} frames, got {self.series.num_frames}")
        if present_only and "mask" not in data:
            raise ValueError("expected 'data' with a 'mask' with present_only=True, got none")
        if "y" in data and "y" not in self.series.timed:
            raise ValueError(
                f"expected 'y' of shape [N, T, ...] or [1, T, ...] with T = {self.series.num_frames}, got "
                f"{describe(data.y)}"
            )

    @property
    def rows(self) -> dict[str, str]:
        """What each attribute of a window belongs to, see :class:`Series`."""
        return {"y": NODE, "y_mask": NODE, **self.series.rows}

    def __len__(self) -> int:
        return (self.series.num_frames - self.span) // self.stride + 1

    def get(self, index: int) -> Data:
        """Make window number ``index``."""
        start = index * self.stride
        window = self.series.frames(start, start + self.history)
        ahead = slice(start + self.history + self.gap, start + self.history + self.gap + self.horizon)
        data = self.series.data
        window.y = data["y" if "y" in data else "x"][:, ahead]
        mask = data.get("y_mask", data.get("mask"))
        everywhere = window.y.new_ones(window.y.shape[:2], dtype=torch.bool)
        window.y_mask = everywhere if mask is None else mask[:, ahead]
        if self.present_only:
            window = subgraph(window, self.rows, window.mask.any(1))
        window.first_frame = start
        return window

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)}, history={self.history}, horizon={self.horizon})"
