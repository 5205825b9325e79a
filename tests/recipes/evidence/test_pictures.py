"""The pictures draw the tables' numbers, each where it belongs and none upon another."""

from itertools import pairwise

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from recipes.evidence.paired import interval
from recipes.evidence.pictures import by_parameters, differences, from_scratch, overview, save

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


def intervals(axes):
    """The ends of the intervals by their places."""
    return {line.get_ydata()[0]: tuple(line.get_xdata()) for line in axes.lines[1:] if len(line.get_xdata()) == 2}


def ends(arm):
    mean, half = interval([ours - plain for ours, plain in zip(ERRORS[arm], ERRORS["plain"], strict=True)])
    return pytest.approx((mean - half, mean + half))


def test_differences_have_a_row_an_arm():
    found = made({"name": "one"}, {"name": "two"})
    found[experiment("not run")] = []
    [axes] = differences(found).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    one = ["everything, with gates", "everything, with gates in the last stage, which is a ..."]
    assert labels == ["An experiment: one", *one, "An experiment: two", *one]
    drawn = intervals(axes)
    assert (drawn[1], drawn[2], drawn[4]) == (ends("gates"), ends("late"), ends("gates")) and len(drawn) == 4
    low, high = axes.get_xlim()
    assert low == -high and high > max(end for pair in drawn.values() for end in pair)


def test_the_overview_has_a_row_an_experiment(monkeypatch):
    monkeypatch.setattr("recipes.evidence.pictures.OVERVIEW_ARMS", ("late", "gates"))
    found = made({"name": "one"}, {"name": "two", "question": "scratch"}, {"name": "three", "question": "scratch"})
    found |= made({"name": "of gates among each other", "question": "ablations", "control": "late"})
    figure = overview(found)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["Inserted into a pretrained network", "From scratch"]
    first, second = figure.axes
    assert [label.get_text() for label in second.get_yticklabels()] == ["An experiment: two", "An experiment: three"]
    assert list(intervals(first).values()) == [ends("late"), ends("gates")] and len(intervals(second)) == 4
    assert [text.get_text()[:30] for text in figure.legends[0].get_texts()][1] == "everything, with gates"


def test_controls_that_differ_are_named(monkeypatch):
    monkeypatch.setattr("recipes.evidence.pictures.OVERVIEW_ARMS", ("wide gates",))
    found = made({"name": "one"}, errors=ERRORS | {"wide gates": [9.0, 9.5, 9.6]})
    title = "everything, wider, with gates (to everything, wider)"
    assert differences(found).axes[0].get_yticklabels()[-1].get_text() == title
    assert overview(found).legends[0].get_texts()[0].get_text().replace("\n", " ") == title


def test_what_is_outside_the_spread_is_filled():
    errors = {"plain": [10.0, 11.0, 12.0], "gates": [9.0, 10.1, 11.0], "late": [9.0, 12.0, 12.0]}
    [axes] = differences(made({"name": "one"}, errors=errors)).axes
    faces = [line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"]
    assert faces == ["C0", "white"]


def test_differences_far_beyond_the_others_are_said():
    errors = ERRORS | {"late": [10.0, 100.0, 10.0]}
    [axes] = differences(made({"name": "one"}, errors=errors)).axes
    assert [text.get_text().strip() for text in axes.texts] == ["+29.5 \N{RIGHTWARDS ARROW}"]
    assert axes.get_xlim()[1] < 20


def test_nothing_overlaps(monkeypatch):
    """Twelve experiments in two panels: rows of labels apart, panels apart, all of it inside."""
    monkeypatch.setattr("recipes.evidence.pictures.OVERVIEW_ARMS", ("late", "gates"))
    questions = ["inserted"] * 6 + ["domains"] * 6
    found = made(*({"name": f"number {n}, a long title", "question": q} for n, q in enumerate(questions)))
    for figure in (differences(found), overview(found)):
        FigureCanvasAgg(figure).draw()
        for axes in figure.axes:
            boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
            assert all(above.y0 >= below.y1 for above, below in pairwise(boxes))
            assert min(box.x0 for box in boxes) >= figure.bbox.x0 and axes.bbox.width > 300
        boxes = [axes.get_tightbbox() for axes in figure.axes] + [
            legend.get_window_extent() for legend in figure.legends
        ]
        edges = [figure.bbox.y1, *(edge for box in boxes for edge in (box.y1, box.y0)), figure.bbox.y0]
        assert all(upper >= lower for upper, lower in pairwise(edges))
        assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_saved_pictures_are_small(tmp_path):
    save(differences(made(*({"name": str(n)} for n in range(12)))), tmp_path / "differences.png")
    assert (tmp_path / "differences.png").stat().st_size < 100_000
    with Image.open(tmp_path / "differences.png") as image:
        assert (image.format, image.mode, image.width) == ("PNG", "P", 902)


def test_differences_of_some_seeds_are_not_drawn():
    whole, part = experiment("whole"), experiment("part", epochs=3)
    plain = [10.0, 10.5, 10.2]
    evidence = {one: trained(one, plain=plain, gates=[9.0, 9.6, 9.3][:seeds]) for one, seeds in ((whole, 3), (part, 2))}
    labels = [text.get_text() for text in differences(evidence).axes[0].get_yticklabels()]
    assert labels == [whole.title, "everything, with gates"]
