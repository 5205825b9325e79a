"""Networks sharded block by block over two processes, and distributed checkpoints."""

import subprocess
import sys
import textwrap

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict

from ..gate.test_distributed import needs_sharding
from .networks import gated, images

RUN = """
    import sys, torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
    from torch.distributed import device_mesh, fsdp
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
    sys.path.insert(0, {root!r})
    import se_inject
    from tests.deployment.networks import gated, images, names

    rank, store, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    mesh = device_mesh.init_device_mesh("cpu", (2,))

    def sharded(model):
        for name in names(model):
            fsdp.fully_shard(model.get_submodule(name.rpartition(".")[0]), mesh=mesh)
        return fsdp.fully_shard(model, mesh=mesh)

    whole, model = gated("convnext2").double(), sharded(gated("convnext2").double())
    assert len(names(model)) == len(names(whole))
    x = images(4, 3, 32, 32).double()
    for each, batch in ((whole, x), (model, x[rank::2])):
        se_inject.freeze_backbone(each).train()
        optimizer = torch.optim.SGD(se_inject.gate_parameters(each), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            each(batch).square().sum().div(len(batch)).backward()
            optimizer.step()
    for ours, expected in zip(model.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours.full_tensor(), expected)
    dcp.save(get_model_state_dict(model), checkpoint_id=folder + "checkpoint")
    again = sharded(gated("convnext2", seed=1).double())
    weights = get_model_state_dict(again)
    dcp.load(weights, checkpoint_id=folder + "checkpoint")
    set_model_state_dict(again, weights)
    assert torch.equal(again.eval()(x), model.eval()(x))
    torch.save(whole.state_dict(), folder + "weights.pt") if rank == 0 else None
    dist.destroy_process_group()
"""


@needs_sharding
def test_fsdp2_by_block_and_a_checkpoint_of_it(tmp_path, pytestconfig):
    code = textwrap.dedent(RUN.format(root=str(pytestconfig.rootpath)))
    command = [sys.executable, "-W", "ignore", "-c", code]
    arguments = str(tmp_path / "store"), f"{tmp_path}/"
    processes = [subprocess.Popen([*command, str(rank), *arguments]) for rank in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    expected = torch.load(tmp_path / "weights.pt")
    weights = {name: torch.zeros_like(value) for name, value in expected.items()}
    with pytest.warns(UserWarning, match="single process"):
        dcp.load(weights, checkpoint_id=tmp_path / "checkpoint")  # on one process, as a user who deploys does
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value)


@pytest.mark.filterwarnings("ignore::UserWarning")  # that there is one process
def test_a_distributed_checkpoint_on_one_process(tmp_path):
    model, other = gated("resnet"), gated("resnet", seed=1)
    dcp.save(get_model_state_dict(model), checkpoint_id=tmp_path)
    weights = get_model_state_dict(other)
    dcp.load(weights, checkpoint_id=tmp_path)
    set_model_state_dict(other, weights)
    assert torch.equal(other(images()), model(images()))
