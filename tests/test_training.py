"""Gates for an optimizer, and a backbone that holds still."""

import copy
import pickle

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

import se_inject

from .support.blocks import network
from .support.promises import assert_same

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def backbone_state(model):
    return {k: v.clone() for k, v in model.state_dict().items() if ".se." not in k}


def train(model, steps=3):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize(
    "build",
    [
        network,
        lambda: torchvision.models.resnet18(),
        lambda: timm.create_model("resnet18", zero_init_last=False),
        lambda: nn.SyncBatchNorm.convert_sync_batchnorm(network()),
    ],
)
def test_only_gates_train_also_after_train(build):
    model = se_inject.freeze_backbone(se_inject.apply(build()))
    model.train()
    if any(isinstance(m, nn.SyncBatchNorm) for m in model.modules()):
        assert not any(m.training for m in model.modules() if isinstance(m, nn.SyncBatchNorm))
        return
    before, gates = backbone_state(model), [p.clone() for p in se_inject.gate_parameters(model)]
    train(model)
    after = backbone_state(model)
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert not all(map(torch.equal, gates, se_inject.gate_parameters(model)))
    model.eval()
    model.train()
    model(X)
    assert all(torch.equal(backbone_state(model)[k], v) for k, v in before.items())


def test_frozen_train_mode_equals_eval_mode():
    plain = network().eval()
    expected = plain(X)
    model = se_inject.freeze_backbone(se_inject.apply(plain)).train()
    assert_same(model(X), expected)


def test_dropout_follows_the_mode():
    model = se_inject.freeze_backbone(se_inject.apply(nn.Sequential(network(), nn.Dropout())))
    assert model.train()[1].training and not model.eval()[1].training


def test_frozen_model_copies_and_pickles():
    model = se_inject.freeze_backbone(se_inject.apply(network()))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin.train()
        before = backbone_state(twin)
        train(twin)
        assert all(torch.equal(backbone_state(twin)[k], v) for k, v in before.items())
        assert isinstance(twin[1].bn1, nn.BatchNorm2d)
    assert se_inject.freeze_backbone(model) is model  # twice does no harm


@pytest.mark.filterwarnings("ignore")
def test_frozen_model_compiles():
    model = se_inject.freeze_backbone(se_inject.apply(network())).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(X), model(X), atol=1e-5)


def test_gate_parameters_are_all_of_the_gates():
    model = se_inject.apply(network())
    names = {id(p): name for name, p in model.named_parameters()}
    assert all(".se." in names[id(p)] for p in se_inject.gate_parameters(model))
    assert len(se_inject.gate_parameters(model)) == 3 * 4


def test_spectral_norm_and_fused_layers():
    body = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 16, 3)), network(16)[1:3])
    model = se_inject.freeze_backbone(se_inject.apply(nn.Sequential(*body)))
    before = backbone_state(model)
    model.train()(X)
    assert all(torch.equal(backbone_state(model)[k], v) for k, v in before.items())


def test_dropout_in_a_held_layer_follows_the_mode():
    fused = timm.layers.BatchNormAct2d(16)
    fused.drop = nn.Dropout()
    model = se_inject.freeze_backbone(se_inject.apply(nn.Sequential(fused, network(16)[1])))
    assert not model.train()[0].training and model[0].drop.training
    assert not model.eval()[0].drop.training


def named_groups(model, **options):
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = se_inject.param_groups(model, lr=0.1, **options)
    return {group["name"]: {names[parameter] for parameter in group["params"]} for group in groups}


@pytest.mark.parametrize(
    "build",
    [
        lambda: network(),
        lambda: timm.create_model("convnext_atto"),
        lambda: ConvNeXt([CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 1)]),
        lambda: timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32, embed_dim=48),
    ],
)
def test_groups_have_each_parameter_once_and_decay_weights_alone(build):
    model = build()
    vit = not se_inject.find_sites(model)
    model = nn.Sequential(model, network()) if vit else model
    se_inject.apply(model)
    groups = named_groups(model, gate_lr=1.0, weight_decay=0.05)
    names = [name for group in groups.values() for name in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    for group, members in groups.items():
        assert all((".se." in name) == group.startswith("gates") for name in members)
    undecayed = groups["backbone, no decay"] | groups["gates, no decay"]
    assert undecayed >= {name for name, p in model.named_parameters() if name.endswith("bias") or p.ndim == 1}
    assert not any(
        isinstance(model.get_submodule(n.rpartition(".")[0]), nn.Conv2d) and n.endswith("weight") for n in undecayed
    )
    assert not any(n.endswith("layer_scale") for n in groups["backbone"])


def test_groups_work_with_an_optimizer():
    model = se_inject.apply(network())
    groups = se_inject.param_groups(model, lr=0.1, gate_lr=0.5, weight_decay=0.01)
    assert [(group["lr"], group["weight_decay"]) for group in torch.optim.SGD(groups, lr=1.0).param_groups] == [
        (0.1, 0.01),
        (0.1, 0.0),
        (0.5, 0.01),
        (0.5, 0.0),
    ]
    assert {group["lr"] for group in se_inject.param_groups(model, lr=0.1)} == {0.1}
    train_before = [p.clone() for p in model.parameters()]
    optimizer = torch.optim.AdamW(groups)
    model(X).square().mean().backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(train_before, model.parameters(), strict=True) if b.grad.any())


def test_frozen_parameters_are_in_no_group():
    model = se_inject.freeze_backbone(se_inject.apply(network()))
    assert named_groups(model).keys() == {"gates", "gates, no decay"}


class OddParameters(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = network()
        self.norm = nn.LayerNorm((5, 4))
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.bias = nn.Parameter(torch.zeros(5, 4))
        self.position = nn.Parameter(torch.zeros(1, 4, 8))
        self.head, self.depthwise = nn.Linear(8, 1), nn.Conv2d(8, 8, 1, groups=8)
        self.tied = nn.Linear(5, 4, bias=False)
        self.tied_again = nn.Linear(5, 4, bias=False)
        self.tied_again.weight = self.tied.weight
        self.tau = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.block(x)


def test_groups_of_odd_parameters():
    model = se_inject.apply(OddParameters())
    groups = named_groups(model)
    decayed = {"position", "head.weight", "depthwise.weight", "tied.weight"}
    assert {name for name in groups["backbone"] if not name.startswith("block")} == decayed
    others = {"norm.weight", "norm.bias", "scale", "bias", "head.bias", "depthwise.bias", "tau"}
    assert {name for name in groups["backbone, no decay"] if not name.startswith("block")} == others
    model.head = nn.LazyLinear(3)
    with pytest.raises(se_inject.errors.InvalidArgumentError, match="head: is lazy"):
        se_inject.param_groups(model, lr=0.1)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"lr": -1}, ValueError),
        ({"lr": float("nan")}, ValueError),
        ({"lr": "0.1"}, TypeError),
        ({"lr": 0.1, "gate_lr": True}, TypeError),
        ({"lr": 0.1, "weight_decay": -1e-4}, ValueError),
    ],
)
def test_groups_check_their_numbers(options, error):
    with pytest.raises(error, match="must be a number >= 0"):
        se_inject.param_groups(se_inject.apply(network()), **options)


def test_groups_need_gates():
    with pytest.raises(se_inject.errors.NotAModuleError):
        se_inject.param_groups("model", lr=0.1)
    with pytest.raises(se_inject.errors.NoGateError):
        se_inject.param_groups(network(), lr=0.1)


@pytest.mark.filterwarnings("ignore")
def test_groups_of_sharded_models():
    from torch import distributed
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = distributed.device_mesh.init_device_mesh("cpu", (1,))
        model = se_inject.apply(network())
        expected = named_groups(model)
        assert named_groups(fully_shard(model, mesh=mesh)) == expected
        flat = FullyShardedDataParallel(se_inject.apply(network()), device_id=torch.device("cpu"))
        with pytest.raises(se_inject.errors.WrappedModelError, match="use fully_shard"):
            se_inject.param_groups(flat, lr=0.1)
    finally:
        distributed.destroy_process_group()


def test_weights_of_one_row_decay():
    odd = nn.ModuleDict({"bag": nn.EmbeddingBag(1, 4), "lstm": nn.LSTM(1, 4), "cell": nn.GRUCell(1, 4)})
    groups = named_groups(nn.ModuleDict({"odd": odd, "block": se_inject.apply(network())}), weight_decay=0.1)
    decayed = {name.removeprefix("odd.") for name in groups["backbone"] if name.startswith("odd.")}
    assert decayed == {"bag.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "cell.weight_ih", "cell.weight_hh"}
