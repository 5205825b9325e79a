"""A model exported: its sites, outputs and keys are those of the model."""

import copy
import itertools
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import se_inject

from .libraries import build, inputs

Row = dict[str, Any]
NOT_EXPORTED = "not exported by torch"


def compare_exported(library: str, name: str, up_to: int) -> Row:
    """Export a model of up to that many parameters, and compare; the row says what came out."""
    try:
        with torch.device("meta"):
            model = build(library, name)
    except Exception:  # some models compute with numbers while they are built
        model = build(library, name)
    if sum(p.numel() for p in model.parameters()) > up_to:
        return {"outcome": "too large"}
    found = se_inject.find_sites(model)
    if not found and not any("example_inputs" in reason for _, reason in found.skipped):
        return {"outcome": "nothing to gate"}
    torch.manual_seed(0)
    model = build(library, name).eval()
    x = _first_fitting(library, name, model)
    try:
        program = torch.export.export(model, x)
    except Exception as error:  # whatever torch raises
        return {"outcome": NOT_EXPORTED, "error": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}
    return _compared(model, program, x)


def _first_fitting(library: str, name: str, model: nn.Module) -> tuple[Any, ...]:
    for make in inputs(library, name, model):
        x = make()
        try:
            with torch.no_grad():
                model(*x)
        except Exception:  # the model's own refusal of a size
            continue
        return x
    raise ValueError("runs on no input that was tried")


def _compared(model: nn.Module, program: Any, x: tuple[Any, ...]) -> Row:
    sites = _seen(se_inject.find_sites(program))
    options: dict[str, Any] = {}
    if _seen(se_inject.find_sites(model)) != sites:
        options = {"example_inputs": x}
    expected = _seen(se_inject.find_sites(model, **options))
    if expected != sites:
        names = (sorted(expected - sites)[:2], sorted(sites - expected)[:2])
        return {"outcome": "other", "error": f"the model alone has {names[0]}, the program alone {names[1]}"}
    if not sites:
        return {"outcome": "nothing to gate"}
    gated = se_inject.apply(program)
    with torch.no_grad():
        before, after = tree_leaves(program.module()(*x)), tree_leaves(gated.module()(*x))
    assert all(map(torch.equal, before, after)), "outputs differ"
    keys = gated.state_dict.keys() - program.state_dict.keys()
    assert keys == _names(se_inject.apply(copy.deepcopy(model), **options)) - _names(model), "keys differ"
    assert str(se_inject.remove(gated).graph) == str(program.graph), "remove does not restore"
    return {"outcome": "equal with example_inputs" if options else "equal", "sites": len(sites)}


def _names(model: nn.Module) -> set[str]:
    """Of the tensors, each once, though shared modules have several names."""
    return {name for name, _ in itertools.chain(model.named_parameters(), model.named_buffers())}


def _seen(sites: se_inject.Sites) -> set[tuple[Any, ...]]:
    return {(site.path, site.kind, site.channels, site.gate_path) for site in sites}
