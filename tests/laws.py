"""Laws that the package keeps, as assertions that any of its modules can be put through."""

import torch
from torch_geometric.data import Batch


def assert_permutation_equivariant(run, x, edge_index, pe=None):
    """Renaming the nodes renames the output: ``run(x, edge_index, pe)`` gives ``[N, ...]``."""
    order = torch.randperm(x.size(0))
    new_name = torch.empty_like(order)
    new_name[order] = torch.arange(x.size(0))
    shuffled_edges = torch.randperm(edge_index.size(1))
    expected = run(x, edge_index, pe)[order]
    permuted = run(x[order], new_name[edge_index][:, shuffled_edges], None if pe is None else pe[order])
    torch.testing.assert_close(permuted, expected)


def assert_batch_equals_singles(run, graphs):
    """A batch of graphs gives what its members give: ``run(data)`` gives ``[N, ...]``."""
    expected = torch.cat([run(graph) for graph in graphs])
    torch.testing.assert_close(run(Batch.from_data_list(graphs)), expected)


def assert_clip_equals_stream(run, x, splits, dim):
    """Pieces of a clip from a carried state give what the clip gives: ``run(x, state)`` gives ``(out, state)``."""
    expected, last = run(x, None)
    state, outs = None, []
    for piece in x.split(splits, dim):
        out, state = run(piece, state)
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs, dim), expected)
    torch.testing.assert_close(state, last)


def assert_stream_owns_its_memory(run, *inputs):
    """What is written over a call's output and inputs afterwards reaches no later call: ``run(state, *inputs)`` gives
    ``(out, state)``, and each of ``inputs`` has a tensor for every call."""
    state, expected = None, []
    for given in zip(*inputs, strict=True):
        out, state = run(state, *given)
        expected.append(None if out is None else out.detach().clone())
    state = None
    for given, wanted in zip(zip(*inputs, strict=True), expected, strict=True):
        given = [value.clone() for value in given]
        out, state = run(state, *given)
        torch.testing.assert_close(out, wanted)
        for value in given if out is None else [*given, out]:
            value.detach().fill_(float("nan"))


def assert_same_with_gradients(one, other, module, *tensors):
    """Two ways to compute a function agree, and so do the gradients of the inputs and of every parameter."""
    results = []
    for function in (one, other):
        module.zero_grad()
        inputs = [tensor.detach().clone().requires_grad_() for tensor in tensors]
        out = function(*inputs)
        torch.manual_seed(0)
        (out * torch.randn_like(out)).sum().backward()
        gradients = [tensor.grad for tensor in inputs] + [parameter.grad for parameter in module.parameters()]
        results.append((out.detach(), [torch.zeros(()) if g is None else g.clone() for g in gradients]))
    torch.testing.assert_close(results[0], results[1])
