"""Pedestrians of ETH and UCY: five scenes, each the test of those who learned from the others.

Shape legend: N people of a window, T frames seen, H frames to come, E edges.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from rstg_pyg.arguments import check_choice, check_flags, check_positive
from rstg_pyg.datasets.data_folder import DATA, read_data_files
from rstg_pyg.datasets.download import DownloadError
from rstg_pyg.datasets.walkers import simulate_walkers
from rstg_pyg.temporal import Series, Windows, from_table
from rstg_pyg.temporal.series import subgraph
from rstg_pyg.temporal.windows import WindowDataset

SCENES = {
    "eth": ("biwi_eth",),
    "hotel": ("biwi_hotel",),
    "univ": ("students001", "students003"),
    "zara1": ("crowds_zara01",),
    "zara2": ("crowds_zara02",),
}
"""The recordings that test a scene."""

RECORDINGS = {
    "biwi_eth": (10240, "cf8d3fd342a15f409ebc2a1fc76b91a0f06390bd21f1e11410f3859331ab082b"),
    "biwi_hotel": (14400, "9caa771bb9153d6b809dd0916b6f86761b641e6bbb15e766c1de3133fbbb7fcf"),
    "crowds_zara01": (7110, "1147a1962a09abfb86f28c6cddcac862e095a0cf129b3016385b69eacdd09d85"),
    "crowds_zara02": (8420, "8a649d0f8c9ae75c87c4d23a85f892786b0aa30266e996c7be03e69dafff22ff"),
    "crowds_zara03": (6030, "16b3e899932c4baacd07f45013d5b921f90bc5a29eb2b0fe42f4d7c904ac3108"),
    "students001": (3550, "a6d87f278d94136fe39b8be91555487a29ac77259ae403b9dba2d5c18caf7b5b"),
    "students003": (4320, "e25798b660634330aa89f8bb259425de720e84d0873902726c1d1f4ccff21d6c"),
    "uni_examples": (5940, "61f432c0ab3070ed0ef150fbeabcd7baf839cab5495a46e6105bd747f0a092a7"),
}
"""Of every recording the time of its first validation frame, and the SHA-256 of its file. What comes before is for
training, as the usual split has it."""

UNTESTED = {"uni_examples": "univ"}
"""Recordings of a scene that do not test it, but would give it away in training."""

STEP = 10
"""Of the clock of the files, 0.4 s."""

ADDRESS = "https://raw.githubusercontent.com/abduallahmohamed/Social-STGCNN/333d3a57/datasets/raw/all_data/"
SPLITS, SOURCES = ("train", "val", "test"), ("auto", "files", "simulated")


class Pedestrians(WindowDataset):
    r"""Where people walked and where they go next: the ETH and UCY recordings, a position in metres every 0.4 s.

    An item is a window of one recording: ``history`` frames to see, ``horizon`` frames to predict. Everyone who is
    there at a moment is a node then, and people less than ``radius`` apart are joined, so edges differ from frame to
    frame. The test of a scene is all of it. Training and validation are the earlier and the later part of all other
    scenes, so that nothing that was learned or chosen has seen the scene.

    The files come from ``data_dir``, or else from ``pedestrians/all_data`` in the folder that the environment variable
    ``RSTG_PYG_DATA`` names, or else from the network, into ``root``. They are held against their checksums. Without
    them, ``source="auto"`` simulates walkers, see :func:`~rstg_pyg.datasets.walkers.simulate_walkers`, and says so.

    Args:
        root: Where downloads go.
        scene: The scene that is left out: ``"eth"``, ``"hotel"``, ``"univ"``, ``"zara1"`` or ``"zara2"``.
        split: ``"train"``, ``"val"`` or ``"test"``.
        history: Number T of frames to see.
        horizon: Number H of frames to predict.
        radius: How far apart two people may be that are joined, in metres.
        paces: For training, take every n-th frame, for each n of these: with 2 people seem to walk twice as fast and to
            turn twice as soon, as some scenes look beside others.
        throughout_only: Leave out everyone who is not there in all T + H frames, as most loaders of this data do.
        source: ``"files"``, ``"simulated"``, or ``"auto"`` for the files where they can be had.
        data_dir: A folder with the eight text files.
        log: Print a line for downloads.

    Shapes:
        - **x:** ``[N, T, 2]``, positions. **y:** ``[N, H, 2]``. **mask:** ``[N, T]`` bool, where a person is there.
        - **y_mask:** ``[N, H]`` bool, the same, False for who is not there in the last frame seen.
        - **scored:** ``[N]`` bool, who counts in ADE and FDE: people there in all frames, where there are two at least.
        - **edge_index:** ``[2, E]``. **edge_time:** ``[E]``. **edge_attr:** ``[E, 2]``, from i to j of an edge j -> i.
        - **node_id:** ``[N]``, the people's numbers in the recording. **first_frame:** the int of the window.

    Raises:
        ValueError: If an argument is out of its range, or a recording is shorter than a window.
        FileNotFoundError: If a folder that was named lacks a file.
        FileError: If a file is damaged, or is another one.
        DownloadError: If files are asked for that are not there and cannot be downloaded.

    Source: S. Pellegrini et al., ICCV 2009 (ETH); A. Lerner et al., Computer Graphics Forum 26, 2007 (UCY); the text
    files are those of github.com/abduallahmohamed/Social-STGCNN; the protocol is that of Social GAN, CVPR 2018.

    Example:
        >>> from torch_geometric.loader import DataLoader
        >>> from rstg_pyg.datasets import Pedestrians
        >>> windows = Pedestrians("data/Pedestrians", "zara1", "test", source="simulated")
        >>> batch = next(iter(DataLoader(windows, batch_size=4)))
        >>> batch.x.shape[1:], batch.y.shape[1:]
        (torch.Size([8, 2]), torch.Size([12, 2]))
    """

    def __init__(
        self,
        root: str | os.PathLike,
        scene: str,
        split: str = "train",
        history: int = 8,
        horizon: int = 12,
        radius: float = 3.0,
        paces: Sequence[int] = (1,),
        throughout_only: bool = False,
        source: str = "auto",
        data_dir: str | os.PathLike | None = None,
        log: bool = True,
    ) -> None:
        check_choice("scene", scene, SCENES)
        check_choice("split", split, SPLITS)
        check_choice("source", source, SOURCES)
        check_positive(history=history, horizon=horizon)
        for pace in paces:
            check_positive(paces=pace)
        check_flags(throughout_only=throughout_only, log=log)
        if not radius > 0:
            raise ValueError(f"expected 'radius' to be positive, got {radius}")
        self.scene, self.split, self.history, self.horizon = scene, split, history, horizon
        self.throughout_only = throughout_only
        files, notice = _read(root, source, data_dir, log)
        if notice is not None:
            warnings.warn(notice, stacklevel=2)
        self.source = "simulated" if files is None else "files"
        others = [name for name in RECORDINGS if name not in SCENES[scene] and UNTESTED.get(name) != scene]
        self.windows: list[Windows] = []
        self.places: list[tuple[int, int]] = []
        self._items: dict[int, Data] = {}
        for name in SCENES[scene] if split == "test" else others:
            rows = _simulated(name) if files is None else torch.from_numpy(np.loadtxt(io.BytesIO(files[name])))
            if split != "test":
                first_val = rows[:, 0].max() * 3 / 4 if files is None else RECORDINGS[name][0]
                rows = rows[(rows[:, 0] < first_val) == (split == "train")]
            for pace in paces if split == "train" else (1,):
                for start in range(pace):
                    self._add(_at_pace(rows, pace, start), radius)

    def _add(self, rows: Tensor, radius: float) -> None:
        windows = Windows(walkers_graph(rows, radius), self.history, self.horizon, present_only=True)
        used = self._used(windows.series.data.mask)
        self.places += [(len(self.windows), int(start)) for start in used.nonzero()]
        self.windows.append(windows)

    def _used(self, mask: Tensor) -> Tensor:
        """Which windows have somebody to learn from, or people who count in the errors."""
        spans = mask.unfold(1, self.history + self.horizon, 1)
        if self.split == "train" and not self.throughout_only:
            return spans[..., self.history - 1 : self.history + 1].all(-1).any(0)
        return spans.all(-1).sum(0) >= (1 if self.split == "train" else 2)

    def __len__(self) -> int:
        return len(self.places)

    def get(self, index: int) -> Data:
        """Window number ``index``."""
        if index not in self._items:
            # To cut a window out takes as long as to train on it.
            self._items[index] = self._window(*self.places[index])
        return self._items[index].clone()

    def _window(self, recording: int, start: int) -> Data:
        window = self.windows[recording][start]
        throughout = window.mask.all(1) & window.y_mask.all(1)
        window.scored = throughout & (throughout.sum() > 1)
        window.y_mask = window.y_mask & window.mask[:, -1:]
        del window.frame_start
        return subgraph(window, Series(window).rows, throughout) if self.throughout_only else window

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)}, scene={self.scene}, split={self.split}, source={self.source})"


def walkers_graph(rows: Tensor, radius: float) -> Data:
    """The people of a recording as a graph that changes, with an edge both ways between any two less than ``radius``
    apart.

    Shapes:
        - **rows:** ``[R, 4]`` of time, person, x, y. **output:** see :func:`~rstg_pyg.temporal.from_table`.
    """
    rows = rows[rows[:, 0].argsort(stable=True)]
    time, person, position = rows[:, 0], rows[:, 1].long(), rows[:, 2:].float()
    _, count = time.unique_consecutive(return_counts=True)
    first, together = ((value).repeat_interleave(count) for value in (count.cumsum(0) - count, count))
    # Every row with every row of its time.
    here = torch.arange(len(rows)).repeat_interleave(together)
    there = torch.arange(len(here)) + (first - together.cumsum(0) + together).repeat_interleave(together)
    offset = position[there] - position[here]
    near = (offset.norm(dim=1) < radius) & (here != there)
    here, there = here[near], there[near]
    edges = person[torch.stack([there, here])]
    return from_table(time, person, position, edges, time[here], offset[near], step=STEP)


def _at_pace(rows: Tensor, pace: int, start: int) -> Tensor:
    """Every ``pace``-th frame from number ``start`` on, as if it were every one."""
    frame = (rows[:, 0] / STEP).round().long()
    rows, frame = rows[frame % pace == start], frame[frame % pace == start]
    return torch.cat([(frame // pace * STEP)[:, None], rows[:, 1:]], 1)


@lru_cache
def _simulated(name: str) -> Tensor:
    """What stands in for a recording: the first of them have few people, the last ones many."""
    number = list(RECORDINGS).index(name)
    rows = simulate_walkers(240, num_walkers=8 + 2 * number, seed=number)
    rows[:, 0] *= STEP
    return rows


def _read(
    root: str | os.PathLike, source: str, data_dir: str | os.PathLike | None, log: bool
) -> tuple[dict[str, bytes] | None, str | None]:
    """The files of the recordings, or None for simulated walkers, with a notice for the user where these stand in."""
    if source == "simulated":
        if data_dir is not None:
            raise ValueError(f"source='simulated' does not read the 'data_dir' {data_dir}: leave out one of the two")
        return None, None
    checksums = {f"{name}.txt": checksum for name, (_, checksum) in RECORDINGS.items()}
    try:
        files = read_data_files("pedestrians/all_data", checksums, ADDRESS, root, data_dir, log)
    except DownloadError as error:
        advice = f"name a folder with its files in 'data_dir', or one with pedestrians/all_data in {DATA}"
        if source == "files":
            raise DownloadError(f"{error}. Connect to the network, or {advice}") from error
        return None, (
            "the recordings of ETH and UCY are not here and could not be downloaded: simulated walkers stand in, so "
            f"results do not compare with those on the recordings ({advice})"
        )
    return {name.removesuffix(".txt"): content for name, content in files.items()}, None
