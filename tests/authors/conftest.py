"""Runs each recorded case once through the package and lines its numbers up with the recording's."""

import functools
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from rstg_pyg.authors import (
    AuthorsRSTG,
    AuthorsSyncMNISTNet,
    AuthorsToMap,
    AuthorsToVec,
    load_variables,
    placements,
)

RECORDINGS = Path(__file__).parent / "recordings"
CASES = sorted(path.stem for path in RECORDINGS.glob("*.npz"))
NORMS = {"none": None, "LN": "layer", "BN": "batch"}
ATTENTIONS = {"simple": "additive", "dot": "dot"}


class Recording:
    """One recorded case: `arrays` by key, its `config`, and the module that it describes."""

    def __init__(self, case):
        with np.load(RECORDINGS / f"{case}.npz", allow_pickle=False) as file:
            self.arrays = {key: file[key] for key in file.files}
        self.config = json.loads(str(self.arrays.pop("config")))
        self.training = bool(self.arrays["in/is_training"])
        self.whole_network = "in/video" in self.arrays
        self.tolerance = 1e-4 if self.training or self.config["use_norm"] != "none" else 1e-5

    def keys(self, prefix):
        return sorted(key for key in self.arrays if key.startswith(prefix))

    def under(self, prefix):
        """The arrays whose keys start with `prefix`, by the rest of the key."""
        return {key.removeprefix(prefix): self.arrays[key] for key in self.keys(prefix)}

    def build(self):
        config = self.config
        if self.whole_network:
            return AuthorsSyncMNISTNet(config["num_filters"], config["num_classes"])
        return AuthorsRSTG(
            in_channels=config["num_filters"],
            scales=[side for side, _ in config["_case"]["scales"]],
            num_stages=config["num_process_iter"],
            attention=ATTENTIONS[config["use_att"]],
            heads=config["_case"]["heads"],
            heatmap_size=config["dim_map"] if config["use_positional_emb"] else None,
            norm=NORMS[config["use_norm"]],
            update_layers=config["update_layers"],
            update_per_scale=config["scalewise_update"],
            input_batch_norm=config["dataset"] == "mnist",
        )


@functools.cache
def recording(case):
    return Recording(case)


@functools.cache
def replay(case):
    """By recorded key of a case: the package's array and the recording's, in one layout."""
    recorded = recording(case)
    module = recorded.build()
    block = module.graph if recorded.whole_network else module
    result = {"out/adj": block.adjacency.expand(recorded.arrays["out/adj"].shape)}
    if block.heatmap is not None:
        result["out/positional_emb"] = block.heatmap.clone()
    load_variables(module, recorded.under("var/"))

    seen = defaultdict(list)
    for name, submodule in block.named_children():
        submodule.register_forward_hook(lambda _, __, out, name=name: seen[name].append(out))
    if recorded.whole_network:
        module.backbone.register_forward_hook(lambda _, __, out: seen["backbone"].append(out))
        module.to_vec.register_forward_hook(lambda _, __, out: seen["to_vec"].append(out))
    module.train(recorded.training)

    feats = torch.from_numpy(recorded.arrays["in/video" if recorded.whole_network else "in/feats"])
    feats.requires_grad_()
    volume = feats.permute(0, 4, 1, 2, 3)
    loss = 0.0
    if recorded.whole_network:
        logits = module(volume)
        (nodes,), (video_feats,) = seen["project_out"], seen["to_vec"]
        conv_feats = seen["backbone"][0].unflatten(0, feats.shape[:2])
        result |= {"out/logits": logits, "out/conv_feats": conv_feats.movedim(2, -1)}
        loss = loss + (logits * torch.from_numpy(recorded.arrays["in/loss_w_logits"])).sum()
    else:
        nodes = block(volume)
        video_feats = AuthorsToVec()(nodes)
        loss = loss + (video_feats * torch.from_numpy(recorded.arrays["in/loss_w_video"])).sum()
    if "in/loss_w_regions" in recorded.arrays:
        to_map = AuthorsToMap([rows for rows, _ in block.pool.scales])
        regions = to_map(nodes, size=tuple(volume.shape[-2:])).permute(0, 2, 3, 4, 1)
        result["out/regions"] = regions
        loss = loss + (regions * torch.from_numpy(recorded.arrays["in/loss_w_regions"])).sum()
    loss.backward()

    result |= stage_outputs(seen)
    result |= {
        "out/final_nodes": nodes.transpose(0, 1),
        "out/frame_feats": torch.stack([AuthorsToVec()(frame) for frame in nodes.split(1, dim=1)]),
        "out/video_feats": video_feats,
        "out/loss": loss.reshape(1),
        "grad/input": feats.grad,
    }
    pairs = {
        key: (ours.detach(), torch.from_numpy(recorded.arrays[key]))
        for key, ours in result.items()
        if key in recorded.arrays
    }
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    pairs |= placed("grad/", module, recorded, gradients)
    return pairs | placed("after_update/", module, recorded, module.state_dict())


def stage_outputs(seen):
    """Outputs of the block's submodules, by the recording's keys, frames first."""
    frames_first = {
        f"out/{key}_k{stage}": out.transpose(0, 1)
        for key, name in (("time", "time"), ("agg", "gather"), ("space", "update"))
        for stage, out in enumerate(seen[name])
    }
    for stage, alpha in enumerate(seen["attention"]):
        assert alpha.size(2) == 1
        frames_first[f"out/att_k{stage}"] = alpha.squeeze(2).transpose(0, 1)
    for stage, messages in enumerate(seen["send"]):
        for frame in range(messages.size(1)):
            frames_first[f"out/messages_k{stage}_t{frame}"] = messages[:, frame]
    return frames_first | {
        "out/patch_feats": seen["pool"][0],
        "out/graph_in": seen["input_norm"][0].transpose(0, 1),
        "out/time_extern": seen["last_time"][0].transpose(0, 1),
    }


def placed(prefix, module, recorded, values):
    """Pairs of the module's and the recording's values, both where the variable's placement puts it."""
    table = placements(module)
    pairs = {}
    for variable, array in recorded.under(prefix).items():
        if variable in table:
            pieces = table[variable].place(torch.from_numpy(array))
            ours = torch.cat([values[piece.name][piece.rows].flatten() for piece in pieces])
            theirs = torch.cat([piece.value.flatten() for piece in pieces])
            pairs[prefix + variable] = (ours.detach(), theirs)
    return pairs


@pytest.fixture
def all_cases():
    return CASES


@pytest.fixture
def recording_of():
    return recording


@pytest.fixture
def recorded(case):
    return recording(case)


@pytest.fixture
def replayed(case):
    return replay(case)


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", CASES)
