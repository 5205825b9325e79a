"""Trained over several processes, a gate has the gradients that it has in one."""

import subprocess
import sys
import textwrap

import pytest
import torch

RUN = """
    import copy, sys, torch, torch.distributed as dist
    from torch import nn
    sys.path.insert(0, {root!r})
    from tests.gate.test_distributed import gradients, model_and_inputs

    rank, store = int(sys.argv[1]), sys.argv[2]
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)

    def sharded(model):
        from torch.distributed import device_mesh, fsdp
        mesh = device_mesh.init_device_mesh("cpu", (2,))
        layers = [layer for block in model[1:] for layer in block.children()]
        for module in (*layers, *model):
            fsdp.fully_shard(module, mesh=mesh)
        return fsdp.fully_shard(model, mesh=mesh)

    reference, inputs = model_and_inputs()
    for _, module in reference.named_modules():
        if hasattr(module, "fc1"):
            module.fc1.register_forward_hook(lambda *_: None)  # then autograd's own way is taken
    expected = gradients(reference, inputs)
    for wrap in (nn.parallel.DistributedDataParallel, *[sharded][: {can_shard}]):
        model, _ = model_and_inputs()
        found = gradients(wrap(model), inputs[rank::2])  # two steps, accumulated
        whole = [g.full_tensor() if hasattr(g, "full_tensor") else g for g in found]
        for ours, g in zip(whole, expected, strict=True):
            torch.testing.assert_close(ours, g / 2)
        print(getattr(wrap, "__name__", ""))
    dist.destroy_process_group()
"""


class Block(torch.nn.Module):
    """A branch whose gate follows a norm, a convolution or stands before layer scale."""

    def __init__(self, kind):
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.BatchNorm2d(8)
        self.gamma = torch.nn.Parameter(torch.rand(8))
        self.kind = kind

    def forward(self, x):
        if self.kind == "norm":
            return (x + self.norm(self.conv(x))).relu()
        branch = self.conv(self.norm(x))
        if self.kind == "scaled":
            return x + branch * self.gamma.view(1, -1, 1, 1)
        return x + branch


def model_and_inputs():
    import se_inject

    torch.manual_seed(0)
    kinds = ("norm", "conv", "scaled")
    blocks = [se_inject.apply(Block(kind), memory="recompute") for kind in kinds]
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), *blocks).double()
    for block in blocks:
        torch.nn.init.normal_(block.se.fc2.weight)
    for unused in (blocks[0].gamma, blocks[1].gamma):
        unused.requires_grad_(False)
    return model, [torch.randn(2, 3, 9, 9, dtype=torch.double) for _ in range(4)]


def gradients(model, inputs):
    for x in inputs:
        model(x).square().sum().backward()
    return [p.grad for p in model.parameters() if p.requires_grad]


CANNOT_SHARD = not hasattr(torch.cpu.Stream, "record_event")
needs_sharding = pytest.mark.skipif(CANNOT_SHARD, reason="this torch cannot shard on a CPU")


def test_gradients_over_two_processes(tmp_path, pytestconfig):
    """Under DDP, and under FSDP2 where this torch has it for a CPU."""
    code = textwrap.dedent(RUN.format(root=str(pytestconfig.rootpath), can_shard=int(not CANNOT_SHARD)))
    command = [sys.executable, "-W", "ignore", "-c", code]
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], stdout=-1, text=True) for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert said == [["DistributedDataParallel", *["sharded"][: not CANNOT_SHARD]]] * 2
