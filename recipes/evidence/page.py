"""The page of evidence, made of the records alone: a summary, and a section for each question."""

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from ..files import replacing
from .grid import EXPERIMENTS, Experiment
from .paired import Evidence, done, of_arm, whole_difference
from .pictures import by_parameters, differences, from_scratch, in_overview, overview, save
from .records import Record, Records
from .sections import OVERVIEW, SECTIONS
from .summary import what_holds, what_pays
from .tables import arms_table, domains_table, robustness_table, what_was_run

_OWN: dict[str, Callable[[Evidence], Figure]] = {"adapters": by_parameters, "scratch": from_scratch}


def read_evidence(folder: Path) -> Evidence:
    """The records of every declared experiment, without those of trainings that are no part of it any more.

    Raises ``CheckpointError`` for a damaged file.
    """
    records = Records(folder)
    return {
        experiment: [record for record in records.of(experiment.setting) if experiment.includes(record.job)]
        for experiment in EXPERIMENTS.values()
    }


def write_page(folder: Path, out: Path) -> None:
    """Write the page, and its pictures into the folder of the records.

    Raises ``CheckpointError`` for damaged records, ``SettingsError`` for what cannot be written.
    """
    evidence = read_evidence(folder)
    for name, draw in _pictures(evidence).items():
        with replacing(folder / f"{name}.png") as temporary:
            save(draw(), temporary)
    with replacing(out) as temporary:
        temporary.write_text(page(evidence, Path(os.path.relpath(folder, out.parent))))


def page(evidence: Evidence, folder: Path) -> str:
    """The whole page as Markdown; ``folder`` leads from the page to its pictures."""
    links = {name: f"![{name.replace('-', ': ')}]({folder}/{name}.png)" for name in _pictures(evidence)}
    pays = [OVERVIEW, what_pays(evidence), *([links["differences"]] if "differences" in links else [])]
    parts = [TEXT.format(folder=folder, what_pays="\n\n".join(pays), what_holds=what_holds(evidence)).rstrip()]
    for question, section in SECTIONS.items():
        parts += [f"## {section.title}", section.text]
        parts += [links[name] for name in (question, f"{question}-differences") if name in links]
        if question == "robustness" and (table := robustness_table(evidence)):
            parts.append(table)
        parts += [_experiment(experiment, records) for experiment, records in _of(evidence, question).items()]
    return "\n\n".join(parts) + "\n"


def _pictures(evidence: Evidence) -> dict[str, Callable[[], Figure]]:
    """Those in which there is something to draw, by name."""
    made: dict[str, Callable[[], Figure]] = {}
    if _compared(evidence, in_overview):
        made["differences"] = partial(overview, evidence)
    for question in SECTIONS:
        own = _of(evidence, question)
        trained = {one: own[one] for one in own if any(of_arm(own[one], one, arm) for arm in one.compared)}
        if question in _OWN and trained:
            made[question] = partial(_OWN[question], trained)
        if _compared(own, lambda one: one.gated):
            made[f"{question}-differences"] = partial(differences, own)
    return made


def _of(evidence: Evidence, question: str) -> Evidence:
    return {experiment: records for experiment, records in evidence.items() if experiment.question == question}


def _compared(evidence: Evidence, arms: Callable[[Experiment], Iterable[str]]) -> bool:
    """Whether one of these arms has a difference to its control."""
    return any(whole_difference(records, one, arm) for one, records in evidence.items() for arm in arms(one))


def _experiment(experiment: Experiment, records: Sequence[Record]) -> str:
    """An experiment's title, its table, and how it was run; or that it was not."""
    command = f"`python -m recipes evidence {experiment.name}`"
    title = f"### {experiment.title}"
    if not records:
        return f"{title}\n\nNot run; {command} runs it."
    there = done(records, experiment)
    said = "" if there == experiment.planned else f"{there} of {experiment.planned} trainings done. "
    about = f"{said}{command}: {what_was_run(experiment, records)}"
    tables = [arms_table(experiment, records), domains_table(experiment, records)]
    return "\n\n".join([title, *filter(None, tables), about])


TEXT = """# Does it pay?

What gates change, in error and in cost, beside a control of the same budget. This page is generated from the records
in `{folder}/`, whatever they say: `python -m recipes evidence` writes it again, and
`python -m recipes evidence NAME` runs an experiment, or goes on where it was killed.

## What pays

{what_pays}

### What holds on two networks or data sets

Fashion-MNIST with corruptions counts as data of its own, though the images are the same, and so do the three data sets,
of whose test images most are Fashion-MNIST's: two of these say less than two networks.

{what_holds}

## How to read it

- **Control.** Each experiment has one: the same network, images, epochs and seeds, without what is in question. Where
  another arm trains the same but for the gates, gates are compared with that, which is named.
- **Learning rates.** Those of an experiment are tried for every arm, control included, with the first seed; the two
  with the lowest errors on images held out of the training data are used with all seeds, and the one of these with the
  lowest mean of these errors is the arm's. "highest" and "lowest" mark one at the end of those tried, beyond which
  there may be a better one, and "so far" one of an arm whose trainings are not all done: that is shown, but counts
  nowhere. Nothing is selected on the test images.
- **±** is half the 95 % confidence interval of the mean over seeds, by Student's t: how trainings differ, on the same
  test images. Differences to the control are paired by seed, in percentage points, and below zero where the arm is
  better; in bold where the interval excludes zero, which is what "outside the spread" means here.
- **Corrected.** Of many intervals some exclude zero by chance. p-values are corrected by Holm's method for all
  comparisons of gated arms with their controls under one question; what "holds" is still below 0.05. Few
  seeds leave little: to hold among twenty, a difference must be about twelve times its standard deviation over three
  seeds, or three times that over five.
- **To store** are the bytes of all that training changed. **Step time** is that of the fastest training, relative to
  the control's on the same device; several trainings ran at once, so that it is rough, and left out where an arm's
  times differ by more than a factor of two.
- **Calibration error** is the expected calibration error. **Error under corruptions** is the mean over corrupted
  versions of the test images.
- A training that diverged counts with an error of 100 %.
- **Cut**, so that two cores do all of it in about twelve hours: 60,000 images, and longer trainings of fewer; most arms
  of EfficientNet-Lite0, and two of five seeds wherever there are three; from scratch, ResNet-32, ResNet-56, ResNeXt, a
  wider Inception, and all learning rates but one; gates after the add and on the identity, CBAM, and global context.
"""
