"""The summary claims what two settings show, corrects for many comparisons, and says when there is nothing."""

import pytest

from recipes.evidence.paired import holm
from recipes.evidence.summary import claims, verdicts, what_holds, what_pays

from .invented import experiment, trained

PLAIN = [10.0, 20.0, 30.0]
BETTER, WORSE, SAME = [9.0, 18.9, 28.8], [11.0, 21.1, 31.2], [8.8, 20.2, 30.3]


def evidence(*given):
    """Of experiments, each with its changes and the errors of its gated arm."""
    made = {}
    for number, (changes, errors) in enumerate(given):
        one = experiment(f"number {number}", **changes)
        made[one] = trained(one, plain=PLAIN, gates=errors)
    return made


def error_claims(found):
    return claims(verdicts(found, "inserted"))


def test_a_claim_holds_on_two_networks_or_data_sets():
    for other in ({"network": "resnet56"}, {"data": "photographs"}):
        found = evidence(({}, BETTER), ({}, SAME), (other, BETTER))
        [claim] = error_claims(found)
        assert [verdict.difference.experiment.name for verdict in claim] == ["number 0", "number 2"]
        said = what_holds(found).splitlines()[0]
        assert said.startswith(
            "- **everything, with gates** against **everything**: error is lower, outside the spread, in 2 of 3 "
            "experiments with both; the mean over all 3 is -0.81. Outside: An experiment: number 0 (-1.10 ± 0.25"
        )
        assert "number 1" not in said


@pytest.mark.parametrize(
    "given",
    [
        [({}, BETTER), ({"images": 2000}, BETTER)],
        [({}, BETTER), ({"network": "resnet56"}, WORSE)],
        [({}, BETTER), ({"network": "resnet56"}, SAME)],
        [({}, BETTER), ({"network": "resnet56"}, BETTER[:2])],
        [({}, BETTER), ({"network": "resnet56", "control": "wide"}, BETTER)],
    ],
    ids=["same network and data", "opposite", "inside the spread", "a seed is missing", "another control"],
)
def test_less_is_no_claim(given):
    found = evidence(*given)
    assert error_claims(found) == []
    assert what_holds(found).startswith("None was found: of ")


def test_what_was_tried_is_said_where_nothing_is_found():
    found = evidence(({}, BETTER), ({"network": "resnet56", "data": "photographs"}, WORSE))
    assert what_holds(found) == (
        "None was found: of 1 pairs of a gated arm and its control, in 2 experiments with `resnet20`, `resnet56` on "
        "digits, photographs, none differs outside the spread in the same direction on two networks or data sets."
    )
    assert "no experiment has been trained with all of its seeds" in what_holds({experiment(): []})
    assert "No gates have been compared" in what_pays({experiment(): []}) and "0 of 12" in what_pays({experiment(): []})


def test_an_opposite_is_said():
    found = evidence(({}, BETTER), ({"network": "resnet56"}, BETTER), ({"images": 2000}, WORSE))
    assert "in 2 of 3 experiments with both, and the opposite in 1; the mean" in what_holds(found)


def test_harm_is_claimed_too_but_after_what_helps():
    both = [experiment(network, network=network, arms=("gates", "late")) for network in ("resnet20", "resnet56")]
    lines = what_holds({one: trained(one, plain=PLAIN, gates=WORSE, late=BETTER) for one in both}).splitlines()
    assert "in the last stage" in lines[0] and "error is lower" in lines[0]
    assert any(line.startswith("- **everything, with gates** ") and "error is higher" in line for line in lines[1:])


def test_p_values_are_corrected_by_question():
    found = evidence(({}, BETTER), ({"network": "resnet56"}, SAME), ({"question": "scratch"}, WORSE))
    inserted, scratch, robust = (verdicts(found, question) for question in ("inserted", "scratch", "robustness"))
    assert (len(inserted), len(scratch), len(robust)) == (2, 1, 6)
    assert [one.corrected for one in inserted] == holm([one.difference.p for one in inserted])
    assert inserted[0].corrected == pytest.approx(2 * inserted[0].difference.p) and inserted[0].holds
    assert {one.difference.measure for one in robust} == {"calibration error", "error under corruptions"}


def test_counts_by_question():
    text = what_pays(evidence(({}, BETTER), ({"network": "resnet56"}, SAME), ({"question": "scratch"}, WORSE)))
    cells = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if "|" in line]
    rows = {row[1]: row[2:-1] for row in cells}
    assert rows["Inserted into a pretrained network"] == ["24 of 24", "2", "1 (1)", "0 (0)"]
    assert rows["From scratch"] == ["12 of 12", "1", "0 (0)", "1 (1)"]
    assert rows["Several domains"] == ["", "0", "0 (0)", "0 (0)"]
    assert "Of 9 comparisons, 6 are outside the spread; if no gate changed anything, about 0 would be." in text
    held = [row for row in cells if row[1].startswith("An experiment: number")]
    assert [row[1][-1] for row in held] == ["0", "0", "0", "2", "2", "2"]
    assert held[0][2:6] == ["everything, with gates", "everything", "error", "-1.10 ± 0.25"]
    narrow = evidence(({}, [9.0, 19.5, 28.8]), ({}, SAME))  # its p is 0.0496, corrected 0.099
    assert "| 2             | 1 (0)                | 0 (0)" in what_pays(narrow)
    none = what_pays(evidence(({}, SAME)))
    assert "Of 3 comparisons, 0 are outside" in none and "None holds when corrected" in none
