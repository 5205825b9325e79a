"""The long run in this folder would tell if something were wrong."""

import timm
import torch

import se_inject

from .__main__ import page
from .pairs import Pair, compare, randomize, shuffled

EQUAL = {"pair": "timm/seresnet18 on timm/resnet18", "gates": "reduction=16", "difference": 0.0, "exchanged": 0.1}


def test_page():
    others = [
        {**EQUAL, "pair": "different", "difference": 1e-3},
        {**EQUAL, "pair": "blind", "exchanged": 0.0},
        {"pair": "timm/regnety_002 on timm/regnetx_002", "refused": "the state dict is of another network: why"},
    ]
    text = page([{**EQUAL, "named": True}, *others])
    assert "4 pairs: 1 equal, 2 with other outputs, 1 refused." in text
    equal, differ = text.partition("## Equal")[2].split("## Loaded")
    assert "seresnet18" in equal and "| yes " in equal and "different" not in equal
    assert differ.count("**unknown**") == 2 and "before the last convolution" in differ and " why " in differ


def test_a_wrong_assignment_is_told(monkeypatch):
    """Two gates exchanged, with everything else right."""
    load = se_inject.load_se_weights

    def load_wrongly(model, state):
        load(model, state)
        one, other = model.layer1[0].se, model.layer1[1].se
        model.layer1[0].se, model.layer1[1].se = other, one
        return model

    monkeypatch.setattr(se_inject, "load_se_weights", load_wrongly)
    monkeypatch.setattr(se_inject, "to_layout", lambda _, layout: layout)
    row = compare(Pair("timm", "seresnet18", "resnet18", "torchvision"))
    assert row["difference"] > 1e-4
    assert "0 equal, 1 with other outputs" in page([row])


def test_statistics_are_not_those_of_a_new_network():
    network = randomize(timm.create_model("seresnet18"), torch.randn(2, 3, 64, 64))
    state = network.state_dict()
    assert all(value.std() > 0 for key, value in state.items() if "running" in key or key.endswith("bias"))
    assert shuffled(state).keys() == state.keys() and list(shuffled(state)) != list(state)
