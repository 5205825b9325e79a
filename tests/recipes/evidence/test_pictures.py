"""The pictures draw the tables' numbers, each where it belongs and none upon another."""

from itertools import pairwise

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from recipes.evidence.paired import interval
from recipes.evidence.pictures import by_parameters, differences, from_scratch, save

from .invented import PARAMETERS, experiment, trained

ERRORS = {"plain": [10.0, 10.5, 11.0], "gates": [9.0, 9.2, 10.0], "late": [9.5, 11.0, 11.5], "wide": [10.0, 10.2, 10.1]}


def made(*given, errors=ERRORS):
    """Trained experiments, each with these changes."""
    experiments = [experiment(arms=tuple(errors), **changes) for changes in given]
    return {one: trained(one, **errors) for one in experiments}


def bars(axes):
    """The place, the mean and half the interval of all that is drawn with one."""
    found = []
    for container in axes.containers:
        point, _, (bar,) = container.lines
        (low, high) = bar.get_segments()[0][:, 1]
        found.append((point.get_xdata()[0], point.get_ydata()[0], (high - low) / 2))
    return found


def test_error_by_parameters():
    figure = by_parameters(made({"name": "one"}, {"name": "two"}))
    assert [axes.get_title() for axes in figure.axes] == ["An experiment: one", "An experiment: two"]
    for axes in figure.axes:
        assert axes.get_xscale() == "log"
        expected = [(PARAMETERS[arm], *interval(ERRORS[arm])) for arm in ("plain", "gates", "late")]
        assert bars(axes)[:3] == [pytest.approx(each) for each in expected]
    assert len(figure.legends[0].get_texts()) == 4


def test_a_training_that_diverged_does_not_flatten_the_others():
    figure = by_parameters(made({"name": "one"}, errors=ERRORS | {"late": [9.0, 100.0, 10.0]}))
    assert figure.axes[0].get_ylim()[1] < 13 and len(bars(figure.axes[0])) == 3
    assert [text.get_text() for text in figure.axes[0].texts] == ["\N{UPWARDS ARROW} 40"]


def test_networks_from_scratch():
    changes = {"name": "a"}, {"name": "b", "network": "resnet56"}, {"name": "c", "data": "photographs"}
    first, second = from_scratch(made(*changes)).axes
    assert (first.get_title(), second.get_title()) == ("digits", "photographs")
    assert [label.get_text() for label in first.get_xticklabels()] == ["resnet20", "resnet56"]
    places = [place for place, _, _ in bars(first)]
    assert len(places) == 8 and [round(place) for place in places] == [0] * 4 + [1] * 4
    assert all(b - a > 0.1 for a, b in pairwise(places))
    assert bars(second)[1][1:] == pytest.approx(interval(ERRORS["gates"]))


def test_differences_are_drawn_by_question_and_experiment():
    found = made({"name": "one"}, {"name": "two", "question": "scratch"})
    found[experiment("not run")] = []
    figure = differences(found)
    first, second = figure.axes
    assert first.get_title(loc="left") == "Inserted into a pretrained network"
    assert second.get_title(loc="left") == "From scratch"
    labels = [label.get_text() for label in first.get_yticklabels()]
    assert labels == ["An experiment: one", "everything, with gates", "everything, with gates in the last stage, ..."]
    mean, half = interval([b - a for a, b in zip(ERRORS["plain"], ERRORS["gates"], strict=True)])
    lines = {tuple(line.get_ydata()): line for line in first.lines if len(line.get_xdata()) == 2}
    assert tuple(lines[1, 1].get_xdata()) == pytest.approx((mean - half, mean + half))
    low, high = first.get_xlim()
    assert low < mean - half < mean + half < high and low == -high


def test_differences_far_beyond_the_others_are_said():
    errors = ERRORS | {"wide": [10.0] * 3, "late": [10.0, 100.0, 10.0]}
    [axes] = differences(made({"name": "one"}, errors=errors)).axes
    assert [text.get_text().strip() for text in axes.texts] == ["+29.5 \N{RIGHTWARDS ARROW}"]
    assert axes.get_xlim()[1] < 20


def test_nothing_overlaps():
    """Twelve experiments in two panels: rows of labels apart, panels apart, all of it inside."""
    questions = ["inserted"] * 6 + ["domains"] * 6
    found = made(*({"name": f"number {n}, a long title", "question": q} for n, q in enumerate(questions)))
    figure = differences(found)
    FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
        assert len(boxes) == 18 and all(above.y0 >= below.y1 for above, below in pairwise(boxes))
        assert min(box.x0 for box in boxes) >= figure.bbox.x0 and axes.bbox.width > 300
    upper, lower = (axes.get_tightbbox() for axes in figure.axes)
    assert upper.y0 >= lower.y1 and lower.y0 >= figure.bbox.y0 and upper.y1 <= figure.bbox.y1


def test_saved_pictures_are_small(tmp_path):
    save(differences(made(*({"name": str(n)} for n in range(12)))), tmp_path / "differences.png")
    assert (tmp_path / "differences.png").stat().st_size < 100_000
    with Image.open(tmp_path / "differences.png") as image:
        assert image.format == "PNG" and image.width == 902
