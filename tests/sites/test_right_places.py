"""Which values get a gate, found out by strangers' models; one branch has one gate, after its last convolution."""

import copy
import inspect

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import se_inject

from ..support.blocks import Residual, block, conv
from ..support.forwards import X, assert_works, refused
from ..support.promises import assert_same


def text(module):
    """The gated forward, without spaces."""
    return inspect.getsource(type(se_inject.apply(module)).forward).replace(" ", "")


def test_time_embedding_and_film_do_not_make_a_second_branch():
    def embedded(self, x, t):
        h = self.conv2(self.conv(x)) + t
        return x + h

    def film(self, x, gamma, beta):
        return x + (gamma * self.conv(x) + beta)

    assert "h=self.se(self.conv2(self.conv(x)))+t" in text(block(embedded, conv=conv(), conv2=conv()))
    assert "gamma*self.se(self.conv(x))+beta" in text(block(film, conv=conv()))


def test_scaled_value_that_is_used_elsewhere_is_gated_just_at_the_add():
    def kept(self, x):
        h = self.conv(x) * 0.5
        return x + h, self.other(h)

    model = block(kept, conv=conv(), other=conv())
    assert "returnx+self.se(h),self.other(h)" in text(model)
    other = model(X)[1]
    [(_, gate)] = se_inject.gates(model)
    nn.init.normal_(gate.fc2.weight)
    assert_same(model(X)[1], other)


def test_skip_sums_of_wavenet_are_no_identity_adds():
    class WaveNet(nn.Module):
        def __init__(self, layers):
            super().__init__()
            self.dilated = nn.ModuleList(nn.Conv1d(16, 32, 3, padding=1) for _ in range(layers))
            self.residual = nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(layers))
            self.skip = nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(layers))

        def forward(self, x):
            total = None
            for dilated, residual, skip in zip(self.dilated, self.residual, self.skip, strict=True):
                a, b = dilated(x).chunk(2, 1)
                z = torch.tanh(a) * torch.sigmoid(b)
                total = skip(z) if total is None else total + skip(z)
                x = x + residual(z)
            return total

    for layers in (2, 4):
        paths = [site.gate_path for site in se_inject.find_sites(WaveNet(layers))]
        assert paths == [f"residual.{i}.se" for i in range(layers)]


def test_merges_of_two_scales_are_no_identity_adds():
    def attention_upsample(self, x, y):
        up = F.interpolate(y, size=x.shape[2:])
        return up + self.conv(x) * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(y, 1)))

    found = se_inject.find_sites(block(attention_upsample, conv=conv(), gate=nn.Conv2d(16, 16, 1)))
    assert not found and found.skipped


def test_readers_of_a_shape_are_no_users():
    def forward(self, x):
        out = self.conv(x)
        n = out.size(0)
        out += x
        return out.reshape(n, -1)

    assert_works(block(forward, conv=conv()))


class Add(nn.Module):
    def forward(self, x, y):
        return x.add(y)


class Concat(nn.Module):
    def forward(self, *x):
        return torch.cat(*x, dim=1)


class Both(nn.Module):
    def __init__(self, branch, shortcut):
        super().__init__()
        self.branch, self.shortcut = branch, shortcut

    def forward(self, x):
        return [self.branch(x), self.shortcut(x)]


class Sum(nn.Module):
    def forward(self, xs):
        return xs[0] + xs[1]


def test_children_that_only_join_are_followed():
    def residual(self, x):
        return self.add(self.conv(x), self.shortcut(x))

    def inception(self, x):
        return self.concat([self.a(x), self.b(x)])

    assert "self.add(self.se(self.conv(x))" in text(block(residual, conv=conv(), shortcut=nn.Sequential(), add=Add()))
    assert "self.se(self.concat(" in text(block(inception, a=conv(), b=conv(), concat=Concat()))
    stage = nn.Sequential(Both(nn.Sequential(conv(), nn.BatchNorm2d(16)), nn.Identity()), Sum(), nn.ReLU())
    assert [site.gate_path for site in se_inject.find_sites(stage)] == ["0.branch.1.se"]
    assert_works(stage)


def test_flat_inception_network():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = conv(3, 16)
            self.a, self.b, self.c, self.d = (conv(16, 8), conv(16, 8), conv(16, 8), conv(16, 8))
            self.last = nn.Linear(16, 4)

        def features(self, x):
            x = F.relu(self.stem(x))
            x = torch.cat([self.a(x), self.b(x)], 1)
            return torch.cat([self.c(x), self.d(x)], 1)

        def forward(self, x):
            return self.last(self.features(x).mean((2, 3)))

    sites = se_inject.find_sites(Flat())
    assert [(site.kind, site.channels) for site in sites] == [("inception", 16)] * 2

    def pyramid(self, x):  # one concat, which its projection takes: a part of the block
        return self.project(torch.cat([self.a(x), self.b(x)], 1))

    assert not se_inject.find_sites(block(pyramid, a=conv(), b=conv(), project=conv(32, 16)))


def test_refused_site_does_not_cost_the_good_ones():
    def forward(self, x):
        x = x + self.conv(x)
        return self.a(x) + self.b(x)

    found = se_inject.find_sites(block(forward, conv=conv(), a=conv(), b=conv()))
    assert [site.gate_path for site in found] == ["se"] and len(found.skipped) == 1


class Maxout(nn.Conv2d):
    def forward(self, x):
        return torch.maximum(*super().forward(x).chunk(2, 1))


class Shuffled(nn.Conv2d):
    def forward(self, x):
        return F.pixel_shuffle(super().forward(x), 2)


class Gated(nn.Conv2d):
    def forward(self, x):
        return F.glu(super().forward(x), 1)


@pytest.mark.parametrize(
    ("layer", "size"), [(Maxout(16, 32, 1), 8), (Gated(16, 32, 1), 8), (Shuffled(16, 64, 1, stride=2), 8)]
)
def test_convolutions_that_return_other_channels(layer, size):
    module = block(lambda self, x: x + self.conv(x), conv=layer)
    x = torch.randn(2, 16, size, size)
    plain = copy.deepcopy(module)
    found = se_inject.find_sites(module, example_inputs=x)
    assert [site.channels for site in found] in ([16], [])
    if found:
        assert_same(se_inject.apply(module, example_inputs=x)(x), plain(x))


def test_gate_of_a_child_that_asks_is_seen():
    class Squeeze(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Conv1d(16, 16, 1)

        def forward(self, x, lengths=None):
            if lengths is not None:
                mask = torch.arange(x.shape[2]) < lengths[:, None]
                s = (x * mask[:, None]).sum(2, keepdim=True)
            else:
                s = x.mean(dim=2, keepdim=True)
            return torch.sigmoid(self.fc(s)) * x

    def forward(self, x, lengths=None):
        return x + self.squeeze(self.conv(x), lengths)

    found = se_inject.find_sites(block(forward, conv=nn.Conv1d(16, 16, 1), squeeze=Squeeze()))
    assert not found and "already gated" in found.skipped[0].reason

    def last(self, x):  # (N, H, W, C)
        y = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + y * torch.sigmoid(self.fc(y.mean(dim=(1, 2), keepdim=True)))

    found = se_inject.find_sites(block(last, conv=conv(), fc=nn.Linear(16, 16)))
    assert not found and "already gated" in found.skipped[0].reason


def test_child_that_cannot_be_read_may_be_a_gate():
    class Unreadable(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(16, 16)

        def forward(self, x):
            match x:
                case torch.Tensor():
                    return x * torch.sigmoid(self.fc(x.mean((2, 3))))[:, :, None, None]

    module = block(lambda self, x: x + self.gate(self.conv(x)), conv=conv(), gate=Unreadable())
    found = se_inject.find_sites(module)
    assert not found and "cannot tell" in found.skipped[0].reason


def test_equal_configurations_with_other_values_are_told_apart():
    class Scaled(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.conv, self.factor = conv(), factor

        def forward(self, x):
            y = self.conv(x)
            return x + y if str(self.factor) == "0.0" else x - y

    found = se_inject.find_sites(nn.Sequential(Scaled(0.0), Scaled(-0.0), Scaled(0.0)))
    assert [site.path for site in found] == ["0", "2"]


def test_parent_that_asks_for_the_class_of_a_child():
    def exact(self, x):
        return self.child(x) if type(self.child) is Residual else x

    def by_name(self, x):
        return self.child(x) if self.child.__class__.__name__ == "Residual" else x

    for forward in (exact, by_name):
        model = block(forward, child=Residual())
        plain = copy.deepcopy(model)
        found = se_inject.find_sites(model)
        assert not found and "inspects its class" in found.skipped[0].reason
        assert_same(model(X), plain(X))


def test_layers_that_never_run_take_no_gate():
    def forward(self, x):
        return x + self.conv(x)

    module = block(forward, conv=conv(), never=conv())
    module.never.inner = Residual()
    assert [site.gate_path for site in se_inject.find_sites(module) if site.path == ""] == ["se"]


def test_walks_through_children_leave_the_gate_out():
    class Concurrent(nn.Sequential):
        def forward(self, x):
            return torch.cat([module(x) for module in self._modules.values()], 1)

    class Iterated(nn.Sequential):
        def forward(self, x):
            return torch.cat([module(x) for module in self], 1)

    class Chained(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    for cls in (Concurrent, Iterated, Chained):
        assert_works(cls(conv(), conv()))
    chained = se_inject.apply(Chained(conv(), nn.ReLU(), conv()))
    assert len(chained) == 3 and chained[-1] is list(chained)[2]

    def named(self, x):
        y = x
        for _, module in self.named_children():
            y = module(y)
        return x + y

    assert_works(block(named, a=conv(), b=conv()))


def test_class_that_is_looked_up_but_makes_no_difference():
    """Decorators read attributes of a block's class, and blocks make others of their class."""

    def forward(self, x):
        assert type(self).training is not None if hasattr(type(self), "training") else True
        return x + self.conv(x) * type(self).factor

    module = block(forward, conv=conv())
    type(module).factor = 2.0
    assert_works(module)

    def by_name(self, x):
        return x + self.conv(x) * (1.0 if self.__class__.__name__ == "Block" else 2.0)

    module = block(by_name, conv=conv())
    plain = copy.deepcopy(module)
    found = se_inject.find_sites(module)
    assert [site.gate_path for site in found] in ([], ["conv.se"])
    if found:
        assert_same(se_inject.apply(module)(X), plain(X))


def test_sites_of_one_mode_are_refused():
    """As spandrel's SPAN, which folds its weights for eval mode."""

    def folded(self, x):
        return self.conv(x) + self.skip(x) if self.training else self.fused(x)

    def only_eval(self, x):
        return self.fused(x) if self.training else x + self.conv(x)

    def both(self, x):
        return x + self.conv(x) if self.training else x + 0.5 * self.conv(x)

    for forward in (folded, only_eval):
        model = block(forward, conv=nn.Sequential(conv(), conv()), skip=nn.Conv2d(16, 16, 1), fused=conv())
        assert "only in training, or only in eval" in refused(model)
    assert_works(block(both, conv=conv()))


def test_second_map_of_several_scales_is_no_branch_either():
    def forward(self, x):
        b = self.b(x)
        c = self.c(b)
        return x + F.interpolate(b, x.shape[-2:]) + F.interpolate(c, x.shape[-2:])

    reasons = se_inject.find_sites(block(forward, b=nn.Conv2d(16, 16, 3, 2, 1), c=nn.Conv2d(16, 16, 3, 2, 1))).skipped
    assert len(reasons) == 2 and all("upsampled" in reason for _, reason in reasons)


def test_softmax_layers_are_attention_as_the_function_is():
    def context(self, x):
        weights = self.softmax(self.key(x).flatten(2))
        return x + self.transform(torch.bmm(x.flatten(2), weights.transpose(1, 2))[..., None])

    model = block(context, key=conv(16, 1), softmax=nn.Softmax(2), transform=nn.Conv2d(16, 16, 1))
    assert "attention" in refused(model)


def test_children_that_take_and_return_a_pair():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = conv(), conv()

        def forward(self, pair):
            a, b = pair
            return self.a(a), self.b(b)

    def forward(self, pair):
        a, b = self.second(self.first(pair))
        return pair[0] + a, pair[1] + b

    model = block(forward, first=Pair(), second=Pair())
    assert len(se_inject.find_sites(model)) == 2
    plain = copy.deepcopy(model)
    se_inject.apply(model)
    assert_same(model((X, 2 * X)), plain((X, 2 * X)))
    for index, (_, gate) in enumerate(se_inject.gates(model)):
        nn.init.normal_(gate.fc2.bias)
        assert not torch.equal(model((X, 2 * X))[index], plain((X, 2 * X))[index])


def test_halved_channels_are_told_by_two_examples():
    """As demucs' DConv: its layers make 64 channels, of which a GLU leaves 32."""

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(16))

        def forward(self, x):
            return self.scale[:, None] * x

    layers = nn.Sequential(nn.Conv1d(16, 32, 3, padding=1), nn.GLU(1), Scale())
    model = block(lambda self, x: x + self.layers(x), layers=layers)
    [site] = se_inject.find_sites(model, example_inputs=torch.randn(1, 16, 50))
    assert site.channels == 16


def test_children_that_add_and_return_several_values():
    """As pytorchcv's RiR units: what joins and returns a pair is no join."""

    class Cross(nn.Module):
        def forward(self, x, y):
            return x + y, y + x

    def forward(self, x):
        a, b = self.cross(self.a(x), self.b(x))
        return x + self.last(a + b)

    model = block(forward, cross=Cross(), a=conv(), b=conv(), last=conv())
    assert [site.gate_path for site in se_inject.find_sites(model)] == ["se"]
    assert_works(model)


def test_refused_concat_around_others_does_not_cost_them():
    """As pytorchcv's hourglass around SqueezeNet's blocks."""

    class Paths(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = conv(16, 8), conv(16, 8)

        def forward(self, x):
            return torch.cat([self.a(x), self.b(x)], 1)

    def around(self, x):
        return torch.cat([self.a(x), self.b(x)], 1) if self.training else self.a(x)

    sites = se_inject.find_sites(block(around, a=Paths(), b=Paths()))
    assert [site.gate_path for site in sites] == ["a.se", "b.se"] and "only in training" in sites.skipped[0].reason
