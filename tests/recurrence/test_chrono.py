"""Gates that start with long memories."""

import pytest
import torch

from rstg_pyg import RSTGToVec, TimeStage
from rstg_pyg.models import Forecaster

C, LONGEST = 2000, 50


def keeps(stage):
    """What a stage without input keeps of its state in a frame, and of an LSTM what it lets in."""
    rnn = stage.rnn
    if stage.kind == "linear":
        return rnn.decay.sigmoid(), None
    gates = (rnn.bias_ih_l0 + rnn.bias_hh_l0).chunk(4 if stage.kind == "lstm" else 3)
    return gates[1].sigmoid(), gates[0].sigmoid() if stage.kind == "lstm" else None


@pytest.mark.parametrize("rnn", ["lstm", "gru", "linear"])
def test_memories_last_from_1_to_so_many_frames(rnn):
    stage = TimeStage(C if rnn == "linear" else 300, rnn, chrono=LONGEST)
    for _ in range(2):
        kept, let_in = keeps(stage)
        lengths = 1 / (1 - kept)  # 1 + what is drawn from 1 to 49
        assert lengths.min() >= 1.99 and lengths.max() <= LONGEST * 1.01
        assert lengths.mean().sub(26).abs() < 4 and lengths.std().sub(48 / 12**0.5).abs() < 3
        if let_in is not None:
            torch.testing.assert_close(let_in, 1 - kept)
        first, _ = (
            stage.rnn.decay.clone() if rnn == "linear" else stage.rnn.bias_ih_l0.clone(),
            stage.reset_parameters(),
        )
        again = stage.rnn.decay if rnn == "linear" else stage.rnn.bias_ih_l0
        assert not torch.equal(first, again), "drawn anew"


def test_the_seed_draws_them_and_other_weights_stay():
    def weights(**options):
        torch.manual_seed(5)
        return TimeStage(8, "lstm", **options).state_dict()

    one, other, without = weights(chrono=9), weights(chrono=9), weights()
    assert all(torch.equal(one[name], other[name]) for name in one)
    changed = {name for name in one if not torch.equal(one[name], without[name])}
    assert changed == {"rnn.bias_ih_l0", "rnn.bias_hh_l0"}
    for name in changed:
        assert torch.equal(one[name][16:], without[name][16:]), "the gates of the cell and of the output"


def test_blocks_and_models_hand_it_on():
    for module in (RSTGToVec(4, channels=8, chrono=LONGEST), Forecaster(4, 2, channels=8, chrono=LONGEST, rnn="gru")):
        stages = [stage for stage in module.modules() if isinstance(stage, TimeStage)]
        assert len(stages) == 2 and all(stage.chrono == LONGEST and keeps(stage)[0].min() >= 0.499 for stage in stages)
