"""Every array recorded from the authors' program, reproduced by the package."""

import math

import torch

from rstg_pyg.authors import load_variables

INPUTS = {
    "in/adj_full",
    "in/feats",
    "in/is_training",
    "in/loss_w_logits",
    "in/loss_w_regions",
    "in/loss_w_video",
    "in/video",
}
ARRAYS = {
    "dot_ln_scalewise_map14": 59,
    "full_simpleconv_eval": 57,
    "mnist_simple_eval": 47,
    "mnist_simple_train": 49,
    "scales1_k3": 47,
    "scales2_k1": 39,
    "scales3_k1_map14": 37,
    "simple_k5": 51,
    "simple_upd1_map28": 44,
}
"""How many outputs, gradients and statistics the recording of each case has."""
STATISTICS = 1e-6
"""Closer than the rest: one step with a biased variance would be 3e-6 away."""


def times_allowed(ours, theirs, tolerance):
    """The largest deviation, in shares of what is allowed; infinite for what is not a number."""
    assert ours.shape == theirs.shape
    deviation, allowed = (ours - theirs).abs().max().item(), tolerance * theirs.abs().max().item()
    share = deviation / allowed if allowed else math.inf if deviation else 0.0
    return math.inf if math.isnan(share) else share


def test_every_array_is_reproduced(case, replayed, recorded):
    """Outputs, gradients of all weights and statistics: the array that is furthest off is named."""
    shares = {
        key: times_allowed(*pair, STATISTICS if key.startswith("after_update/") else recorded.tolerance)
        for key, pair in replayed.items()
    }
    worst = max(shares, key=shares.get)
    assert shares[worst] <= 1, f"{worst} is {shares[worst]:.3g} times as far off as is allowed"


def test_no_recorded_array_is_left_out(case, replayed, recorded, all_cases):
    assert all_cases == list(ARRAYS)
    assert len(replayed) == ARRAYS[case]
    assert set(recorded.arrays) == set(replayed) | set(recorded.keys("var/")) | (INPUTS & set(recorded.arrays))
    trainable = {"grad/" + name for name in recorded.config["_case"]["trainable"]}
    assert set(recorded.keys("grad/")) == trainable | {"grad/input"}
    full = torch.from_numpy(recorded.arrays["in/adj_full"])
    assert torch.equal(full[:, :-1, :-1], torch.from_numpy(recorded.arrays["out/adj"]))


def test_evaluation_moves_no_statistics(recording_of):
    for case in ("full_simpleconv_eval", "mnist_simple_eval", "mnist_simple_train"):
        recorded = recording_of(case)
        module = recorded.build().eval()
        load_variables(module, recorded.under("var/"))
        before = {name: buffer.clone() for name, buffer in module.named_buffers()}
        assert any(name.endswith("running_var") for name in before), case
        key = "in/video" if recorded.whole_network else "in/feats"
        module(torch.from_numpy(recorded.arrays[key]).permute(0, 4, 1, 2, 3))
        assert all(torch.equal(before[name], buffer) for name, buffer in module.named_buffers()), case
