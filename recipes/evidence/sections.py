"""What is written by hand on the page: an overview, and the sections, by question, with a text for each."""

from typing import NamedTuple


class Section(NamedTuple):
    """A title, and paragraphs of Markdown that come before the tables."""

    title: str
    text: str


OVERVIEW = """\
Each row counts the comparisons of gated networks with their controls: those whose difference is outside the spread,
and in brackets those that remain so when corrected for their number."""

OVERVIEW_ARMS = ("skip", "all", "frozen gates", "gates+norm", "scratch, SE")  # of the picture, chosen before any result

SECTIONS = {
    "inserted": Section(
        "Inserted into a pretrained network",
        "Everything is trained, with gates and without, for as many epochs from the same pretrained weights.",
    ),
    "adapters": Section(
        "Adapters of a frozen network",
        "The network is frozen and runs in eval mode; what each row names is trained, and a new head with it.",
    ),
    "domains": Section(
        "Several domains",
        "One network for several domains: a gate's factor depends on the image, that of a norm does not.",
    ),
    "scratch": Section(
        "From scratch",
        "The plain network, with gates, and made wider to have as many parameters as with gates.",
    ),
    "ablations": Section(
        "What makes it",
        "One setting of the gates changed at a time; the control has the others' defaults.",
    ),
    "robustness": Section(
        "Calibration and robustness",
        "Expected calibration error, and error under corruptions that were not trained on, of all experiments above.",
    ),
}
