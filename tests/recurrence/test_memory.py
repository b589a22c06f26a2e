"""Streams whose nodes come and go: a memory by id gives the numbers of a fixed set with a mask."""

import pytest
import torch

from rstg_pyg import RSTG
from rstg_pyg.recurrence import NodeMemory, detach_state

FORMS = ["all-temp", "1-temp", "space-only", "time-only", "homogeneous"]
N, C, CALLS = 6, 4, 8


def make(**options):
    torch.manual_seed(3)
    return RSTG(C, num_stages=2, **options).double()


def series(num_frames=2):
    """Calls of some frames each: features of all nodes, who is there in the whole call, and edges among those."""
    for _ in range(CALLS):
        there = torch.rand(N) < 0.6
        there[0] = True
        ids = there.nonzero().squeeze(1)
        yield torch.randn(N, num_frames, C).double(), ids, ids[torch.randint(len(ids), (2, 9))]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("num_frames", [1, 2])
def test_it_is_a_fixed_set_with_a_mask(form, num_frames):
    rstg = make(stages=form)
    memory, state = NodeMemory(rstg), None
    for x, ids, edges in series(num_frames):
        mask = torch.zeros(N, num_frames, dtype=torch.bool)
        mask[ids] = True
        expected, state = rstg(x, edges, state=state, mask=mask)
        ids = ids[torch.randperm(len(ids))]
        place = torch.empty(N, dtype=torch.int64)
        place[ids] = torch.arange(len(ids))
        names = 1000 - ids  # any numbers, in any order
        out, own = rstg(x[ids], place[edges], state=memory.read(names))
        memory.write(names, own)
        torch.testing.assert_close(out, expected[ids])
        saved = memory.state_dict()
        memory = NodeMemory(rstg)
        memory.load_state_dict(saved)


def test_the_longest_absent_are_forgotten_first():
    rstg = make(stages="time-only")
    memory = NodeMemory(rstg, max_nodes=3)
    kept = {}
    for ids in ([5, 1], [2], [1, 9], [7]):
        ids = torch.tensor(ids)
        _, state = rstg(torch.randn(len(ids), 1, C).double(), torch.empty(2, 0).long(), state=memory.read(ids))
        memory.write(ids, state)
        kept |= {int(name): state[0][0][row] for row, name in enumerate(ids)}
    assert memory.ids.tolist() == [1, 7, 9] and len(memory) == 3
    h = memory.read(torch.tensor([9, 5, 1]))[0][0]
    torch.testing.assert_close(h, torch.stack([kept[9], torch.zeros(C).double(), kept[1]]))
    memory.reset()
    assert len(memory) == 0 and memory.read(torch.tensor([1])) is None


def test_nobody_is_written():
    rstg, nobody, ids = make(), torch.empty(0, dtype=torch.int64), torch.tensor([3])
    memory = NodeMemory(rstg)
    memory.write(nobody, [(torch.zeros(0, 4), torch.zeros(0, 4))] * rstg.num_states)
    assert memory.read(ids) is None
    assert memory.read(nobody) is None


def test_nobody_has_come_yet_to_a_module_of_ones_own():
    class Mean(torch.nn.Module):
        def forward(self, x, state, lengths=None):
            return x, x[:, -1]

    rstg = RSTG(C, num_stages=1, rnn=lambda channels: Mean())
    memory, ids = NodeMemory(rstg), torch.tensor([3, 5])
    edges, nobody = torch.tensor([[0], [1]]), torch.zeros(2, 1, dtype=torch.bool)
    _, state = rstg(torch.randn(2, 1, C), edges, mask=nobody)
    memory.write(ids, detach_state(state))
    _, state = rstg(torch.randn(2, 1, C), edges, state=memory.read(ids))
    memory.write(ids, state)
    torch.testing.assert_close(memory.read(ids), state)


def test_a_state_of_ones_own_is_kept_for_the_absent_whatever_its_type():
    class Seen(torch.nn.Module):
        def forward(self, x, state, lengths=None):
            seen = x.new_zeros(len(x), 1, dtype=torch.bool) if state is None else state
            return seen[:, None].to(x.dtype).expand_as(x), torch.ones_like(seen)

    rstg = RSTG(C, stages=("time",), rnn=lambda channels: Seen())
    memory, none = NodeMemory(rstg), torch.empty(2, 0).long()
    for ids, expected in (([7, 8], [0, 0]), ([8], [1]), ([7, 8], [1, 1])):
        out, state = rstg(torch.zeros(len(ids), 1, C), none, state=memory.read(torch.tensor(ids)))
        memory.write(torch.tensor(ids), state)
        assert out[:, 0, 0].tolist() == expected


def test_what_is_loaded_keeps_to_the_bound_and_wider_types_widen():
    rstg, none = make().float(), torch.empty(2, 0).long()
    whole, small = NodeMemory(rstg), NodeMemory(rstg, max_nodes=2)
    for ids in ([1, 2], [3], [2]):
        _, state = rstg(torch.randn(len(ids), 1, C), none)
        whole.write(torch.tensor(ids), state)
    small.load_state_dict(whole.state_dict())
    assert small.ids.tolist() == [2, 3]
    torch.testing.assert_close(small.read(small.ids), whole.read(small.ids))
    half = tuple(tuple(part.bfloat16() for part in entry) for entry in state)
    memory = NodeMemory(rstg)
    memory.write(torch.tensor([1]), half)
    memory.write(torch.tensor([2]), state)
    torch.testing.assert_close(memory.read(torch.tensor([2])), state)


def test_pieces_of_a_long_series_train_alone():
    rstg, edges = make(), torch.tensor([[0, 1], [1, 2]])
    x = torch.randn(3, 6, C).double()
    _, state = rstg(x[:, :3], edges)
    assert state[0][0].requires_grad and not detach_state(state)[0][0].requires_grad
    out, _ = rstg(x[:, 3:], edges, state=detach_state(state))
    torch.testing.assert_close(out, rstg(x, edges)[0][:, 3:])


def test_bad_input():
    rstg = make()
    memory, ids = NodeMemory(rstg, max_nodes=2), torch.tensor([4, 2])
    _, state = rstg(torch.randn(2, 1, C).double(), torch.empty(2, 0).long())
    for wrong, message in [
        (torch.tensor([4.0, 2.0]), r"'ids' as int64 of shape \[num_nodes\], got torch.float32 of shape \[2\]"),
        (torch.tensor([4, 4]), "each id once, got 4 more than once"),
        (torch.arange(3), "at most max_nodes=2 ids, got 3"),
        (torch.arange(1), r"a state of 1 nodes, as there are ids, got \[2, 4\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            memory.write(wrong, state)
    memory.write(ids, state)
    with pytest.raises(ValueError, match=r"a state like those that are kept, .*\[2, 4\].* got .*\[2, 5\]"):
        memory.write(ids, [(torch.zeros(2, 5), torch.zeros(2, 5))] * len(state))
    with pytest.raises(ValueError, match="a state on cpu, as 'ids', got meta"):
        memory.write(ids, [(torch.zeros(2, C, device="meta"),) * 2] * len(state))
    with pytest.raises(ValueError, match="'rstg' to be an RSTG, got Linear"):
        NodeMemory(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="a state of 3 entries, got 2"):
        memory.write(ids, state[:2])
    with pytest.raises(ValueError, match="the state dict of a NodeMemory, got one without ids"):
        memory.load_state_dict({})
    with pytest.raises(ValueError, match="'max_nodes' to be a positive int, got 0"):
        NodeMemory(rstg, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_follows_the_ids_to_their_device():
    rstg, ids = make(), torch.tensor([4, 2])
    memory = NodeMemory(rstg)
    memory.write(ids, rstg(torch.randn(2, 1, C).double(), torch.empty(2, 0).long())[1])
    expected = memory.read(ids)
    torch.testing.assert_close(memory.read(ids.cuda()), expected, check_device=False)
