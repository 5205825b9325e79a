"""What the experiments say together: where gates pay, and what holds on two networks or data sets."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from .arms import ARMS
from .paired import MEASURES, Difference, Evidence, difference, done, holm
from .sections import SECTIONS
from .tables import markdown, with_half


@dataclass(frozen=True)
class Verdict:
    """A comparison of a gated arm with its control, with its p-value corrected for all those of its question."""

    question: str
    difference: Difference
    corrected: float

    @property
    def holds(self) -> bool:
        """The difference remains when the number of comparisons is taken into account."""
        return self.corrected < 0.05


def verdicts(evidence: Evidence, question: str) -> list[Verdict]:
    """All comparisons of gated arms with their controls, once all trainings of both are done.

    Errors of the question's own experiments; for "robustness", also calibration and corruptions of all experiments.
    """
    found = []
    for experiment, records in evidence.items():
        for name in MEASURES:
            if question == (experiment.question if name == "error" else "robustness"):
                pairs = [(arm, control) for arm in experiment.gated for control in experiment.controls_of(arm)]
                made = [difference(records, experiment, arm, name, control) for arm, control in pairs]
                found += [one for one in made if one and one.complete]
    corrected = holm([one.p for one in found])
    return [Verdict(question, one, p) for one, p in zip(found, corrected, strict=True)]


def claims(every: Sequence[Verdict]) -> list[list[Verdict]]:
    """Groups of the same arm, control, measure and sign, outside the spread, on two networks or data sets at least.

    Better ones come first, and of these the ones with the most comparisons that hold.
    """
    groups: dict[tuple[object, ...], list[Verdict]] = {}
    for verdict in every:
        if verdict.difference.outside:
            groups.setdefault((*_pair(verdict.difference), verdict.difference.mean > 0), []).append(verdict)
    found = [group for group in groups.values() if len({_setting(verdict.difference) for verdict in group}) > 1]
    return sorted(found, key=lambda group: (group[0].difference.mean > 0, -sum(one.holds for one in group)))


def _pair(one: Difference) -> tuple[str, str, str]:
    return one.arm, one.control, one.measure


def _setting(one: Difference) -> tuple[str, str]:
    return one.experiment.network, one.experiment.data


def what_pays(evidence: Evidence) -> str:
    """How many comparisons there are by question and how they fell, and a table of those that hold."""
    by_question = {question: verdicts(evidence, question) for question in SECTIONS}
    return f"{_counts(evidence, by_question)}\n\n{_holding(_all(evidence))}"


def what_holds(evidence: Evidence) -> str:
    """A line for each claim, or that there is none and what was tried."""
    every = _all(evidence)
    lines = [_claim(group, every) for group in claims(every)]
    return "\n".join(lines) if lines else _nothing_found(every)


def _all(evidence: Evidence) -> list[Verdict]:
    return [verdict for question in SECTIONS for verdict in verdicts(evidence, question)]


def _counts(evidence: Evidence, by_question: dict[str, list[Verdict]]) -> str:
    rows = []
    for question, found in by_question.items():
        own = [experiment for experiment in evidence if experiment.question == question]
        ran = sum(done(evidence[experiment], experiment) for experiment in own)
        counts = [sum(one.difference.outside for one in side) for side in _sides(found)]
        holding = [sum(one.holds for one in side) for side in _sides(found)]
        trained = f"{ran} of {sum(experiment.planned for experiment in own)}" if own else ""
        cells = [trained, str(len(found)), *(f"{n} ({sure})" for n, sure in zip(counts, holding, strict=True))]
        rows.append([SECTIONS[question].title, *cells])
    headers = ["", "trainings", "comparisons", "better (corrected)", "worse (corrected)"]
    return markdown(rows, headers)


def _sides(found: Sequence[Verdict]) -> tuple[list[Verdict], list[Verdict]]:
    """Those with the arm better, and worse, than the control."""
    return [one for one in found if one.difference.mean < 0], [one for one in found if one.difference.mean > 0]


def _holding(every: Sequence[Verdict]) -> str:
    if not every:
        return "No gates have been compared with their control by all seeds yet."
    outside = sum(verdict.difference.outside for verdict in every)
    said = (
        f"Of {len(every)} comparisons, {outside} are outside the spread; if no gate changed anything, about "
        f"{0.05 * len(every):.0f} would be."
    )
    rows = []
    for verdict in sorted(every, key=lambda verdict: verdict.difference.mean > 0):
        if verdict.holds:
            one = verdict.difference
            arm, control = ARMS[one.arm].title, ARMS[one.control].title
            difference = with_half(one.mean, one.half)
            rows.append([one.experiment.title, arm, control, one.measure, difference, f"{verdict.corrected:.2g}"])
    if not rows:
        return f"{said} None holds when corrected for their number."
    headers = ["experiment", "trained", "control", "measure", "difference", "p, corrected"]
    return f"{said} These hold when corrected for their number, better ones first:\n\n{markdown(rows, headers)}"


def _claim(group: Sequence[Verdict], every: Sequence[Verdict]) -> str:
    """One line: the arm, the control, how often it differed and was looked at; if it is better, also where."""
    first, higher = group[0].difference, group[0].difference.mean > 0
    tried = [verdict.difference for verdict in every if _pair(verdict.difference) == _pair(first)]
    opposite = sum(one.outside and (one.mean > 0) != higher for one in tried)
    where = "; ".join(
        f"{verdict.difference.experiment.title} ({with_half(verdict.difference.mean, verdict.difference.half)}"
        f"{', holds when corrected' if verdict.holds else ''})"
        for verdict in group
    )
    return (
        f"- **{ARMS[first.arm].title}** against **{ARMS[first.control].title}**: {first.measure} is "
        f"{'higher' if higher else 'lower'}, outside the spread, in {len(group)} of {len(tried)} experiments with both"
        f"{f', and the opposite in {opposite}' if opposite else ''}; the mean over all {len(tried)} is "
        f"{statistics.mean(one.mean for one in tried):+.2f}.{'' if higher else f' Outside: {where}.'}"
    )


def _nothing_found(every: Sequence[Verdict]) -> str:
    tried = {verdict.difference.experiment for verdict in every}
    if not tried:
        return "None was found: no experiment has been trained with all of its seeds yet."
    networks = ", ".join(sorted({f"`{experiment.network}`" for experiment in tried}))
    data = ", ".join(sorted({experiment.data for experiment in tried}))
    pairs = len({_pair(verdict.difference)[:2] for verdict in every})
    return (
        f"None was found: of {pairs} pairs of a gated arm and its control, in {len(tried)} experiments with {networks} "
        f"on {data}, none differs outside the spread in the same direction on two networks or data sets."
    )
