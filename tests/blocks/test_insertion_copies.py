"""Networks with blocks that are copied, pickled, compiled or distributed."""

import copy
import io

import pytest
import torch
from inserted_hosts import OPTIONS, clips, example, host, inserted, wake
from torch import nn
from torch.utils.hooks import RemovableHandle

from rstg_pyg.blocks import insert_rstg, remove_rstg


def through_pickle(net):
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize(("dims", "twin_of"), [(2, copy.deepcopy), (3, through_pickle)])
def test_a_copy_runs_blocks_of_its_own(dims, twin_of):
    net, x = wake(inserted(dims)), example(dims)
    twin = twin_of(net)
    before = net(x)
    assert torch.equal(twin(x), before)
    (hook,) = twin.layer1._forward_hooks.values()
    assert hook.func.__self__ is twin.rstg_blocks is not net.rstg_blocks
    assert twin.rstg_blocks["layer1"] is not net.rstg_blocks["layer1"]
    with torch.no_grad():
        for parameter in twin.rstg_blocks.parameters():
            parameter.add_(1)
    assert torch.equal(net(x), before)
    assert not torch.equal(twin(x), before)
    remove_rstg(twin)
    assert not any(module._forward_hooks for module in twin.modules())
    assert torch.equal(net(x), before)


def test_hooks_that_come_after_a_pickle_displace_none(monkeypatch):
    net, x = wake(inserted()), clips()
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    monkeypatch.setattr(RemovableHandle, "next_id", min(net.layer1._forward_hooks))
    twin = torch.load(buffer, weights_only=False)
    twin.layer1.register_forward_hook(lambda module, args, output: None)
    assert len(twin.layer1._forward_hooks) == 2
    assert torch.equal(twin(x), net(x))


def test_compiled_equals_eager():
    torch._dynamo.reset()
    net, x = wake(inserted(2, layer1=OPTIONS)), example(2)
    torch.testing.assert_close(torch.compile(net, backend="eager")(x), net(x))


def test_what_was_compiled_before_is_compiled_anew():
    net, x = host(), clips()
    compiled = torch.compile(net, backend="eager")
    before = compiled(x)
    wake(insert_rstg(net, {"layer1": {"stages": "space-only", **OPTIONS}}, example=x))
    torch.testing.assert_close(compiled(x), net(x))
    assert not torch.equal(net(x), before)
    remove_rstg(net)
    torch.testing.assert_close(compiled(x), before)


@torch._dynamo.config.patch(allow_rnn=True)
def test_the_whole_graph_compiles():
    torch._dynamo.reset()
    net, x = wake(inserted(layer1=OPTIONS)), clips()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), net(x))


@pytest.fixture
def one_process():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_distributed_equals_alone(one_process):
    alone, x = wake(inserted()), clips()
    wrapped = nn.parallel.DistributedDataParallel(copy.deepcopy(alone))
    for net in (alone, wrapped):
        net(x).square().sum().backward()
    for one, other in zip(alone.parameters(), wrapped.module.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    with pytest.raises(ValueError, match="before it is compiled or wrapped, got DistributedDataParallel"):
        insert_rstg(wrapped, {"module.layer1": OPTIONS}, example=x)


def test_autocast():
    net, x = wake(inserted()), clips()
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x)
    torch.testing.assert_close(out.float(), net(x), atol=0.2, rtol=0.1)
