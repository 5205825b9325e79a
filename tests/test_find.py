"""Choosing is a value, apart from changing: sites that find_sites returned can be handed to apply."""

import pytest
import torch
from torch import nn

import se_inject

from .support.blocks import Inception, Residual, network
from .support.promises import exact_state


def test_apply_takes_the_sites_that_were_found():
    model = network(blocks=3)
    sites = se_inject.find_sites(model)
    chosen = [site for site in sites if site.kind == "inception"] + [sites[1]]
    se_inject.apply(model, where=chosen)
    assert {path for path, _ in se_inject.gates(model)} == {site.gate_path for site in chosen}
    se_inject.apply(model, where=sites)  # those that are left
    assert len(list(se_inject.gates(model))) == len(sites)


def test_one_site_and_all_of_them():
    model = network()
    sites = se_inject.find_sites(model)
    assert list(se_inject.find_sites(model, where=sites[0])) == [sites[0]]
    assert list(se_inject.find_sites(model, where=sites)) == list(sites)


def test_sites_of_other_kinds_need_no_kinds():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
    sites = se_inject.find_sites(model, kinds=["plain"])
    assert len(sites) == 1
    se_inject.apply(model, where=sites)
    assert [path for path, _ in se_inject.gates(model)] == [sites[0].gate_path]


def test_sites_that_are_not_there_change_nothing():
    sites = se_inject.find_sites(network(blocks=3))
    model = nn.Sequential(*(Residual() for _ in range(2)), Inception())
    before = exact_state(model)
    with pytest.raises(se_inject.errors.RewriteError, match="no such site"):
        se_inject.apply(model, where=sites)
    assert exact_state(model) == before
    with pytest.raises(se_inject.errors.ArgumentTypeError, match="sites"):
        se_inject.apply(model, where=[sites[0], torch])


def test_a_site_beside_a_pattern_widens_no_kinds():
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), Residual(), nn.Conv2d(16, 16, 3), nn.ReLU()
    )
    plain = se_inject.find_sites(model, kinds=["plain"])
    assert len(plain) == 2
    assert sorted(site.kind for site in se_inject.find_sites(model, where=["*", plain[0]])) == ["plain", "residual"]


def test_a_site_of_another_position_says_that_its_block_is_gated():
    model = network(blocks=2)
    standard = [site for site in se_inject.find_sites(model) if site.kind == "residual"]
    se_inject.apply(model, position="post", kinds=["residual"])
    with pytest.raises(se_inject.errors.AllGatedError):
        se_inject.apply(model, where=standard)


def test_notebooks_show_a_table_whose_names_are_escaped():
    model = network()
    model.add_module("<b>odd</b>", Residual())
    page = se_inject.find_sites(model, where=["[12]", "<b>*"])._repr_html_()
    assert page.count("<table>") == 2 and page.count("<tr>") == 2 + 3 + 1
    assert "<td>&lt;b&gt;odd&lt;/b&gt;.se</td>" in page and "<b>" not in page and "3 sites" in page
    assert "excluded by kinds or where" in page
