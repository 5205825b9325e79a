"""Gates whose weights are shared out over processes."""

import subprocess
import sys
import textwrap

import torch

import se_inject

from ..gate.test_distributed import needs_sharding
from ..support.blocks import network

RUN = """
    import sys, torch, torch.distributed as dist
    sys.path.insert(0, {root!r})
    import se_inject
    from tests.support.blocks import network
    from torch.distributed import device_mesh, fsdp

    rank, store, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    torch.manual_seed(0)
    model = se_inject.apply(network())
    mesh = device_mesh.init_device_mesh("cpu", (2,))
    for block in model[1:4]:
        fsdp.fully_shard(block, mesh=mesh)
    fsdp.fully_shard(model, mesh=mesh)
    se_inject.load_gates(model, path)
    se_inject.save_gates(model, f"{{path}}.{{rank}}.safetensors", include="0.weight")
    dist.destroy_process_group()
"""


@needs_sharding
def test_sharded_gates_are_gathered_and_shared_out(tmp_path, request):
    model = se_inject.apply(network())
    for parameter in se_inject.gate_parameters(model):
        torch.nn.init.normal_(parameter)
    path = str(tmp_path / "gates.safetensors")
    se_inject.save_gates(model, path)
    script = textwrap.dedent(RUN).format(root=str(request.config.rootpath))
    command = [sys.executable, "-c", script]
    runs = [subprocess.Popen([*command, str(rank), str(tmp_path / "store"), path], stderr=-1) for rank in range(2)]
    for run in runs:
        _, errors = run.communicate(timeout=120)
        assert run.returncode == 0, errors.decode()
    for rank in range(2):
        loaded = se_inject.load_gates(se_inject.apply(network()), f"{path}.{rank}.safetensors")
        for ours, theirs in zip(se_inject.gate_parameters(loaded), se_inject.gate_parameters(model), strict=True):
            assert torch.equal(ours, theirs)
