"""Muon and AdamW as one optimiser: what each trains, and that both do what they do alone."""

import copy
import pickle

import pytest
import torch
from cases import case
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from rstg_pyg import FrameCNN, RSTGToVec, VideoClassifier
from rstg_pyg.training import MuonAdamW
from rstg_pyg.training.optimizer import graph_matrices, hidden_matrices


@pytest.fixture(autouse=True)
def torch_in_float32(monkeypatch):
    """torch's Muon orthogonalises in bfloat16, ours on CPUs in float32: with one type they take the same steps."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)


def model(**options):
    torch.manual_seed(0)
    return VideoClassifier(FrameCNN(1, (4,), **options), RSTGToVec(4, scales=(2, 1), num_stages=1), num_classes=46)


def names_of(parameters, net):
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    return [names[id(parameter)] for parameter in parameters]


def test_muon_takes_the_matrices_of_the_graph():
    net = model()
    matrices, others = graph_matrices(net)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    assert len(matrices) + len(others) == len(names)
    assert all(names[id(p)].startswith("block.rstg") and p.dim() == 2 for p in matrices)
    assert "block.rstg.last_time_stage.rnn.weight_hh_l0" in {names[id(p)] for p in matrices}
    with pytest.raises(ValueError, match=r"parameters of at least two dimensions, got shapes \[\[4\]\]"):
        MuonAdamW([torch.nn.Parameter(torch.ones(4))], [torch.nn.Parameter(torch.ones(4))])
    with pytest.raises(ValueError, match="at least one parameter, got none: has the model no RSTG"):
        MuonAdamW(*graph_matrices(torch.nn.Linear(2, 2)))


def test_muon_and_adamw_do_what_they_do_alone():
    torch.manual_seed(0)
    one, two = (torch.nn.Linear(4, 4) for _ in range(2))
    two.load_state_dict(one.state_dict())
    together = MuonAdamW([one.weight], [one.bias], lr=0.1, muon_lr=0.2, weight_decay=0.01)
    apart = [
        torch.optim.Muon([two.weight], lr=0.2, weight_decay=0.01),
        torch.optim.AdamW([two.bias], lr=0.1, weight_decay=0.01),
    ]
    schedule = torch.optim.lr_scheduler.LambdaLR(together, lambda step: 1 / (step + 1))
    for step in range(3):
        x = torch.randn(2, 4)
        for layer, optimizers in ((one, [together]), (two, apart)):
            layer.zero_grad()
            layer(x).square().sum().backward()
            for optimizer in optimizers:
                optimizer.step()
        schedule.step()
        apart[0].param_groups[0]["lr"], apart[1].param_groups[0]["lr"] = 0.2 / (step + 2), 0.1 / (step + 2)
    torch.testing.assert_close(one.state_dict(), two.state_dict())


def test_matrices_of_all_sizes_step_as_torch_has_them_step():
    torch.manual_seed(0)
    shapes = [(64, 144), (64, 64), (64, 36), (36, 64), (192, 64), (192, 64), (3, 5), (70, 2)]
    for adjust in (None, "match_rms_adamw"):
        ours, theirs = ([torch.nn.Parameter(torch.zeros(shape)) for shape in shapes] for _ in range(2))
        together = MuonAdamW(ours, [torch.nn.Parameter(torch.zeros(1))], muon_lr=1.0)
        together.param_groups[0]["adjust_lr_fn"] = adjust
        alone = torch.optim.Muon(theirs, lr=1.0, weight_decay=0.01, adjust_lr_fn=adjust)
        for one, other in zip(ours, theirs, strict=True):
            one.grad = other.grad = torch.randn(one.shape)
        together.step()
        alone.step()
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
        for one, other in zip(ours, theirs, strict=True):
            state = together.state[one]["momentum_buffer"]
            torch.testing.assert_close(state, alone.state[other]["momentum_buffer"])


def test_adamw_steps_rightly_with_a_state_in_another_order():
    found = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        kernel = torch.nn.Parameter(torch.randn(3, 2, 3, 3))
        optimizer = MuonAdamW([torch.nn.Parameter(torch.zeros(2, 2))], [kernel])
        for _ in range(3):
            kernel.grad = torch.randn(3, 2, 3, 3)
            optimizer.step()
            state = optimizer.state[kernel]
            state["exp_avg"] = state["exp_avg"].contiguous(memory_format=memory_format)
        found.append(kernel.detach())
    torch.testing.assert_close(*found)


def test_muon_takes_the_matrices_and_kernels_of_the_hidden_layers():
    net = model(batch_norm=True, refine=True)
    matrices, others = hidden_matrices(net)
    assert len(matrices) + len(others) == len(list(net.parameters()))
    hidden, rest = names_of(matrices, net), names_of(others, net)
    assert "backbone.layers.4.weight" in hidden
    assert {"backbone.layers.0.weight", "classifier.1.weight"} < set(rest)
    assert all(net.get_parameter(name).dim() < 2 for name in rest[1:-2])
    in_graph = names_of(graph_matrices(net)[0], net)
    assert set(in_graph) == {name for name in hidden if name.startswith("block.rstg")}


def test_muon_takes_the_hidden_layers_of_a_network_without_a_graph():
    net = torch.nn.Sequential(
        torch.nn.Embedding(5, 6),
        torch.nn.Conv3d(1, 4, 3),
        torch.nn.BatchNorm3d(4),
        torch.nn.Conv3d(4, 6, (3, 1, 1)),
        torch.nn.LSTM(6, 6),
        torch.nn.Linear(6, 1),
        torch.nn.Linear(6, 46),
    )
    assert names_of(hidden_matrices(net)[0], net) == ["3.weight", "4.weight_ih_l0", "4.weight_hh_l0"]


def convolutions(memory_format):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3), torch.nn.ReLU(), torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 5, 3)
    )
    return net.to(memory_format=memory_format)


def muon_of(net):
    return MuonAdamW(*hidden_matrices(net), lr=0.1, muon_lr=0.2)


def descend(net, optimizer, steps):
    for step in steps:
        x = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()


def test_a_kernel_steps_as_the_matrix_of_its_rows():
    for memory_format in [torch.contiguous_format, torch.channels_last]:
        with case(memory_format):
            net = convolutions(memory_format)
            kernel = net[2].weight
            matrix = torch.nn.Parameter(kernel.detach().flatten(1).clone())
            reference = torch.optim.Muon([matrix], lr=0.2, weight_decay=0.01)
            optimizer = muon_of(net)
            storage, stride = kernel.data_ptr(), kernel.stride()
            for step in range(3):
                descend(net, optimizer, [step])
                matrix.grad = kernel.grad.flatten(1).clone()
                reference.step()
                torch.testing.assert_close(kernel.flatten(1), matrix, rtol=0, atol=1e-4)
            assert (kernel.data_ptr(), kernel.stride()) == (storage, stride)


def test_muon_goes_on_from_its_state_in_any_memory_format():
    for memory_format in [torch.contiguous_format, torch.channels_last]:
        with case(memory_format):
            net = convolutions(torch.contiguous_format)
            optimizer = muon_of(net)
            descend(net, optimizer, range(3))
            optimizer.param_groups[0]["lr"] = 0.05
            weights, state = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
            descend(net, optimizer, range(3, 6))

            again = convolutions(memory_format)
            resumed = muon_of(again)
            again.load_state_dict(weights)
            resumed.load_state_dict(state)
            assert [group["lr"] for group in resumed.param_groups] == [0.05, 0.1]
            descend(again, resumed, range(3, 6))
            exact = {"rtol": 0, "atol": 0} if memory_format is torch.contiguous_format else {}
            torch.testing.assert_close(again.state_dict(), net.state_dict(), **exact)


def by_state_dicts(net, optimizer):
    other = convolutions(torch.channels_last)
    resumed = muon_of(other)
    weights, state = copy.deepcopy(get_state_dict(net, optimizer))
    set_state_dict(other, resumed, model_state_dict=weights, optim_state_dict=state)
    return other, resumed


def test_a_copy_goes_on_as_the_original():
    for copied in [lambda *pair: copy.deepcopy(pair), lambda *pair: pickle.loads(pickle.dumps(pair)), by_state_dicts]:
        with case(copied):
            net = convolutions(torch.channels_last)
            optimizer = muon_of(net)
            descend(net, optimizer, range(3))
            optimizer.param_groups[0]["lr"] = 0.05
            other, resumed = copied(net, optimizer)
            for pair in ((net, optimizer), (other, resumed)):
                descend(*pair, range(3, 6))
            torch.testing.assert_close(other.state_dict(), net.state_dict(), rtol=0, atol=0)
            assert len(resumed.state) == len(list(net.parameters()))


def test_groups_that_come_later_train_too():
    for group, alone in [({"use_muon": True}, torch.optim.Muon), ({}, torch.optim.AdamW)]:
        with case(group, alone):
            net = convolutions(torch.contiguous_format)
            optimizer = muon_of(net)
            one, two = (torch.nn.Parameter(torch.eye(3)) for _ in range(2))
            optimizer.add_param_group({"params": [one], "lr": 0.3, **group})
            reference = alone([two], lr=0.3, weight_decay=0.01)
            descend(net, optimizer, range(2))
            assert torch.equal(one, two)
            for step in range(2):
                one.grad, two.grad = torch.full((2, 3, 3), step + 1.0)
                optimizer.step()
                reference.step()
            torch.testing.assert_close(one, two)
            assert not torch.equal(one, torch.eye(3))


def test_a_group_of_vectors_is_not_for_muon():
    optimizer = muon_of(convolutions(torch.contiguous_format))
    with pytest.raises(ValueError, match=r"at least two dimensions, got shapes \[\[4\]\]"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(4))], "use_muon": True})
    assert len(optimizer.param_groups) == 2


def test_muon_follows_parameters_that_are_replaced_by_others():
    net = convolutions(torch.channels_last)
    before = muon_of(net)
    net.to(torch.float64)
    after = convolutions(torch.channels_last).to(torch.float64)
    reference = muon_of(after)
    for module, optimizer in ((net, before), (after, reference)):
        for step in range(2):
            optimizer.zero_grad()
            x = torch.randn(2, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
            module(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(net.state_dict(), after.state_dict(), rtol=0, atol=0)


def test_the_groups_hold_the_parameters_of_the_model():
    """What clips gradients, sets them to none and changes learning rates goes by the groups."""
    net = convolutions(torch.channels_last)
    optimizer = muon_of(net)
    muon, adamw = optimizer.param_groups
    assert [id(p) for p in muon["params"]] == [id(net[2].weight)]
    assert {id(p) for group in (muon, adamw) for p in group["params"]} == {id(p) for p in net.parameters()}
    assert (muon["lr"], adamw["lr"]) == (0.2, 0.1)


def test_others_must_not_be_empty():
    with pytest.raises(ValueError, match="expected 'others' to hold at least one parameter, got none"):
        MuonAdamW([torch.nn.Parameter(torch.ones(4, 4))], [])
