"""The space stage written as the paper states it: one message per edge, one node at a time, no shortcut.

The reference that the package's layer is held against. Slow on purpose.
"""

import torch
import torch.nn.functional as F


def plain_messages(conv, v, edge_index, edge_attr=None, pe=None):
    """MLP([v_j | p_j | v_i | p_i | e_ji]) for every edge j -> i: ``[E, *, O]``."""
    send, (j, i) = conv.send, edge_index
    source, destination = [v[j]], [v[i]]
    weight_src, weight_dst = [send.lin_src.weight], [send.lin_dst.weight]
    if pe is not None:
        pe = _inner(pe, v).expand(*v.shape[:-1], -1)
        source.append(pe[j])
        destination.append(pe[i])
        weight_src.append(send.lin_pe_src.weight)
        weight_dst.append(send.lin_pe_dst.weight)
    inputs, weights = source + destination, weight_src + weight_dst
    if edge_attr is not None:
        inputs.append(_inner(edge_attr, v).expand(len(j), *v.shape[1:-1], -1))
        weights.append(send.lin_edge.weight)

    layers = [(torch.cat(weights, dim=1), send.lin_dst.bias)]
    layers += [(lin.weight, lin.bias) for lin in send.lins]
    if send.lin_last is not None:
        layers.append((send.lin_last.weight, send.lin_last.bias))
    h = torch.cat(inputs, dim=-1)
    for number, (weight, bias) in enumerate(layers):
        h = F.linear(h, weight, bias)
        if number < len(layers) - 1 or send.act_last:
            h = send.act(h)
    return h


def plain_scores(conv, v, edge_index):
    """Attention scores s(v_j, v_i): ``[E, *, heads]``."""
    j, i = edge_index
    score = conv.pair_score
    if score.attention == "mean":
        return v.new_zeros(len(j), *v.shape[1:-1], conv.heads)
    if score.attention == "additive":
        return F.leaky_relu(v[i] @ score.lin_dst.weight.t() + v[j] @ score.lin_src.weight.t(), 0.2)
    query = (v[i] @ score.lin_dst.weight.t()).unflatten(-1, (conv.heads, -1))
    key = (v[j] @ score.lin_src.weight.t()).unflatten(-1, (conv.heads, -1))
    return (query * key).sum(-1) / query.size(-1) ** 0.5


def plain_conv(conv, x, edge_index, edge_attr=None, pe=None):
    """Return what the layer computes, and its attention weights."""
    v = x if conv.norm is None else conv.norm(x)
    message = plain_messages(conv, v, edge_index, edge_attr, pe).unflatten(-1, (conv.heads, -1))
    score = plain_scores(conv, v, edge_index)
    alpha = torch.empty_like(score)
    gathered = []
    for node in range(x.size(0)):
        incoming = edge_index[1] == node
        alpha[incoming] = score[incoming].softmax(dim=0)
        gathered.append((alpha[incoming].unsqueeze(-1) * message[incoming]).sum(0).flatten(-2))
    out = conv.update_mlp(torch.cat([v, torch.stack(gathered)], dim=-1))
    return (x + out if conv.residual else out), alpha


def _inner(value, like):
    if value.dim() == 2:
        return value.view(value.size(0), *[1] * (like.dim() - 2), value.size(-1))
    return value
