"""The pictures show what was measured: legibly, whatever the runs, the names and the installed fonts are."""

import random

import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

import se_inject
from recipes.commands import plot
from recipes.data import open_data
from recipes.errors import DataError, SettingsError
from recipes.figures import layout
from recipes.figures.curves import curves, robust_limits
from recipes.figures.gates import activations, gate_figure
from recipes.networks.any_model import Model
from recipes.training.accelerator import make_accelerator
from recipes.training.log import write_log
from recipes.weights.described import Description, save_model


@pytest.fixture
def make_log(tmp_path):
    """Makes the folder of a run whose validation errors these are; training errors are lower by one."""

    def make(name, *errors):
        rows = [{"epoch": i, "train_top1": error - 1, "val_top1": error} for i, error in enumerate(errors, 1)]
        write_log(tmp_path / name, rows)
        return tmp_path / name

    return make


def drawn(figure):
    """The picture's pixels ``(H, W, 3)``; drawing it warns of nothing."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def assert_fits(figure):
    """The legend is inside of the figure, and below all panels, each of which has room for its lines."""
    drawn(figure)
    legend, inside = figure.legends[0].get_window_extent(), figure.bbox
    assert inside.x0 <= legend.x0 < legend.x1 <= inside.x1 and inside.y0 <= legend.y0
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box.y0 >= legend.y1 and inside.x0 <= box.x0 < box.x1 <= inside.x1 and box.y1 <= inside.y1
        assert axes.bbox.height > 100 and axes.bbox.width > 150


# Curves


def test_lines_are_the_logs(make_log):
    axes = curves([make_log("plain", 30, 25, 22), make_log("se", 28, 21)]).axes[0]
    assert axes.get_xlabel() == "epoch" and axes.get_ylabel() == "top-1 error (%)"
    plain, trained, gated, _ = axes.lines
    assert list(plain.get_xdata()) == [1, 2, 3] and list(gated.get_xdata()) == [1, 2]
    assert list(plain.get_ydata()) == [30, 25, 22] and list(trained.get_ydata()) == [29, 24, 21]
    assert plain.get_linestyle() == "-" and trained.get_linestyle() == "--"
    assert plain.get_color() == trained.get_color() != gated.get_color()


def test_pairs_have_a_panel_each(make_log):
    runs = [make_log(f"{form}-{depth}", 60, 50 - depth) for depth in (20, 30, 40, 45) for form in ("plain", "se")]
    figure = curves(runs, pairs=True)
    assert [axes.get_title() for axes in figure.axes] == [f"plain-{n} | se-{n}" for n in (20, 30, 40, 45)]
    assert texts(figure.legends[0]) == ["plain", "with gates", "validation", "training"]
    for depth, axes in zip((20, 30, 40, 45), figure.axes, strict=True):
        assert [line.get_color() for line in axes.lines] == ["C0", "C0", "C1", "C1"]
        assert list(axes.lines[2].get_ydata()) == [60, 50 - depth]
    assert_fits(figure)
    with pytest.raises(SettingsError, match="an even number of runs"):
        curves(runs[:3], pairs=True)


def test_one_epoch_shows(make_log):
    figure = curves([make_log("plain", 60), make_log("se", 55)])
    axes = drawn(figure)[: -int(figure.legends[0].get_window_extent().y1)]
    for color in ("C0", "C1"):
        near = np.abs(axes.astype(int) - np.array(to_rgb(color)) * 255).max(-1) < 60
        assert near.sum() > 10
        assert len(np.unique(np.nonzero(near)[0] // 8)) >= 2  # training and validation


@pytest.mark.parametrize("at", [0, 3])
def test_a_spike_does_not_flatten_the_rest(make_log, at):
    calm = [20.0, 18, 17, 16, 15.5, 15.2, 15, 14.8, 14.6, 14.5]
    (axes,) = curves([make_log("calm", *calm), make_log("spike", *calm[:at], 99, *calm[at + 1 :])]).axes
    low, high = axes.get_ylim()
    assert high < 40 and low < min(calm) - 1
    assert f"axis cut at {high:.3g} %, the highest error is 99 %" in [text.get_text() for text in axes.texts]
    (axes,) = curves([make_log("calm", *calm)]).axes
    assert axes.get_ylim()[1] > 20 and not axes.texts


def test_limits_show_each_lines_end_and_differences_between_lines():
    assert robust_limits([[20, 19, 18, 17, 16, 15, 90]]) is None  # it ends there
    assert robust_limits([[90] * 5, [10] * 5]) is None
    assert robust_limits([[95, 60, 40, 30, 25, 22, 20, 19]]) is None
    assert robust_limits([[50.0]]) is None and robust_limits([[99, 10]]) is None
    low, high = robust_limits([[99, 12, 12, 12, 12, 12]])
    assert low < 12 < high


@pytest.mark.parametrize("count", [1, 6, 24])
def test_legends_fit(make_log, count):
    rng = random.Random(0)
    names = [
        f"{i} {rng.choice(['a-very-long-name ', 'MMWW', 'i', '漢']) * rng.randrange(60)}"[:80] for i in range(count)
    ]
    runs = [make_log(name, *(30 + rng.random() for _ in range(3))) for name in names]
    figure = curves(runs)
    assert len(texts(figure.legends[0])) == count + 2
    assert_fits(figure)
    looks = [(line.get_color(), line.get_marker()) for line in figure.axes[0].lines[::2]]
    assert len(set(looks)) == count
    if count == 6:
        assert_fits(curves(runs, pairs=True))


def test_names_tell_runs_apart(make_log):
    runs = [make_log("a/gates", 3), make_log("a/plain", 3), make_log("b/gates", 3)]
    assert texts(curves(runs).legends[0])[:3] == ["a/gates", "a/plain", "b/gates"]
    assert texts(curves([runs[0], runs[0] / ".." / "plain"]).legends[0])[:2] == ["gates", "plain"]
    assert texts(curves([runs[0], runs[0]]).legends[0])[:2] == ["gates", "gates"]


def test_curves_command(make_log, tmp_path):
    runs = [str(make_log("plain", 30, 20)), str(make_log("se", 30, 20))]
    for name in ("c.png", "c.pdf", "c.svg"):
        plot.main(["curves", *runs, *runs, "--pairs", "--out", str(tmp_path / name)])
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.size[0] > 500
    for name in ("d.txt", "d", "d.pgf"):  # pgf needs TeX
        with pytest.raises(SettingsError, match=r"a picture's name ends in one of .*png"):
            plot.main(["curves", *runs, "--out", str(tmp_path / name)])


@pytest.mark.parametrize(
    "log",
    [None, "", "epoch,train_top1,val_top1\n", "a,b\n1,x\n", "epoch,train_top1,val_top1\n1,2\n", "\0", "\xff" * 200_000],
)
def test_folders_without_a_log(log, tmp_path):
    if log is not None:
        (tmp_path / "log.csv").write_text(log, encoding="latin-1")
    with pytest.raises(DataError, match=r"not the (?:log|folder) of a run"):
        plot.main(["curves", str(tmp_path), "--out", str(tmp_path / "d.png")])
    assert not (tmp_path / "d.png").exists()


# Names and fonts

NAMES = [
    "猫",
    "قطة",
    "🐈",
    "$\\frac$",
    "_hidden",
    "a\tb\nc",
    "",
    "W" * 300,
    "\udcff",
    "e\u0301",
    "Ω ≠ ß",
    "a$b",
    "\x07",
]


def test_any_name_is_drawn_without_warnings(make_log):
    figure = gate_figure({"layer1.0.se": torch.rand(len(NAMES), 8)}, NAMES, range(len(NAMES)))
    assert_fits(figure)
    said = texts(figure.legends[0])
    assert len(said) == len(NAMES) + 1 and said[3] == "$\\frac$" and said[4] == "_hidden" and said[10] == "Ω ≠ ß"
    assert said[8] == "\\udcff" and said[6] == "''"
    runs = [make_log(f"run {name[:200]}", 30, 20) for name in NAMES]
    assert_fits(curves(runs))
    assert_fits(curves(runs[:6], pairs=True))


@pytest.fixture
def own_font(tmp_path):
    """An installed font that has two characters that no other has."""
    characters = "\u732b\U0001f408"
    pen = TTGlyphPen(None)
    for step, point in enumerate([(0, 0), (0, 700), (500, 700), (500, 0)]):
        (pen.lineTo if step else pen.moveTo)(point)
    pen.closePath()
    glyphs = {name: pen.glyph() for name in (".notdef", "cat", "emoji")}
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap(dict(zip(map(ord, characters), ("cat", "emoji"), strict=True)))
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Own Cats", "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(tmp_path / "cats.ttf")
    before = list(font_manager.fontManager.ttflist)
    font_manager.fontManager.addfont(tmp_path / "cats.ttf")
    layout._family.cache_clear()
    yield characters
    font_manager.fontManager.ttflist[:] = before
    layout._family.cache_clear()


def test_fonts_that_have_the_characters(own_font):
    figure = gate_figure({"layer1.0.se": torch.rand(2, 8)}, [f"cat {own_font}", "dog"], [0, 1])
    drawn(figure)
    cat, dog, _ = figure.legends[0].get_texts()
    assert cat.get_text() == f"cat {own_font}" and "Own Cats" in cat.get_fontfamily()
    assert "Own Cats" not in dog.get_fontfamily()


# Gates


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Files of untrained networks for the digits, plain and with gates."""
    folder, digits = tmp_path_factory.mktemp("networks"), open_data(None)
    for gates in ("none", "identity"):
        model = Model("se_resnet20", gates, 10)
        about = Description(model, model.preprocess(digits.size), list(digits.classes))
        save_model(folder / f"{gates}.safetensors", model.build(), about)
    return folder


def test_gates_command(networks, tmp_path):
    file = str(networks / "identity.safetensors")
    plot.main(["gates", "--checkpoint", file, "--classes", "3", "7", "3", "--out", str(tmp_path / "g.png")])
    with Image.open(tmp_path / "g.png") as picture:
        assert picture.size[0] > 500
    with pytest.raises(SettingsError, match="has no class whale"):
        plot.main(["gates", "--checkpoint", file, "--classes", "whale", "--out", str(tmp_path / "h.png")])
    with pytest.raises(SettingsError, match="the network has no Squeeze-and-Excitation gates"):
        plot.main(["gates", "--checkpoint", str(networks / "none.safetensors"), "--out", str(tmp_path / "h.png")])
    assert not (tmp_path / "h.png").exists()


@pytest.mark.parametrize("init", ["identity", "standard"])
def test_activations_are_the_means_by_class(init):
    torch.manual_seed(0)
    gate = se_inject.SqueezeExcitation(8, init=init)
    torch.nn.init.normal_(gate.fc2.weight)
    images, labels = torch.randn(5, 1, 8, 4, 4), [0, 1, 1, 0, 1]
    network = torch.nn.Sequential(gate, torch.nn.Flatten(), torch.nn.Linear(128, 2))
    found = activations(network, list(zip(images, labels, strict=True)), 2, make_accelerator())
    scales = torch.stack([(gate(x) / x)[0, :, 0, 0] for x in images]).detach()
    for label in (0, 1):
        torch.testing.assert_close(
            found["0"][label], scales[[i for i, one in enumerate(labels) if one == label]].mean(0)
        )
    assert not gate.fc2._forward_hooks


def test_gate_figure_shows_first_to_last_block():
    figure = gate_figure({f"layer{i}.se": torch.rand(3, 8) for i in range(11)}, ["a", "b", "c"], [0, 2])
    assert isinstance(figure, Figure)
    assert [axes.get_title() for axes in figure.axes] == ["layer0", "layer2", "layer4", "layer6", "layer8", "layer10"]
    assert all(axes.get_xlabel() == "channel" and "activation" in axes.get_ylabel() for axes in figure.axes)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "c", "mean of all classes"]
    assert len({axes.get_ylim() for axes in figure.axes}) == 1  # to compare them


def test_gate_figure_draws_the_activations():
    by_class = torch.rand(3, 8)
    by_class[1] = torch.nan  # a class without images
    figure = gate_figure({"layer1.se": by_class}, ["a", "b", "c"], [0, 2])
    first, second, mean = figure.axes[0].lines
    assert first.get_ydata().tolist() == by_class[0].tolist() and second.get_ydata().tolist() == by_class[2].tolist()
    assert texts(figure.legends[0])[:2] == ["a", "c"]
    assert mean.get_ydata() == pytest.approx(((by_class[0] + by_class[2]) / 2).numpy())
    assert texts(gate_figure({"layer1.se": by_class}, ["a", "b", "c"], [1]).legends[0])[0] == "b (no images)"
