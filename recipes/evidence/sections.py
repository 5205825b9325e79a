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
        """\
Everything is trained, with gates and without, for as many epochs from the same pretrained weights. Gates on skip blocks
are the default of `apply`; "all blocks" adds `kinds=["noskip"]`; "after depthwise" is MobileNetV3's place, where
layers are wider and gates have a reduction of 64, elsewhere of 16.""",
    ),
    "adapters": Section(
        "Adapters of a frozen network",
        """\
The network is frozen and runs in eval mode; what each row names is trained, and a new head with it, whose weights start
small (a deviation of 0.01). Where norms are trained, their statistics move, too, but for the row that says that they
are fixed; elsewhere these stay.""",
    ),
    "domains": Section(
        "Several domains",
        """\
One network for several domains: a gate's factor depends on the image, that of a norm does not. "Alone" is one network
or one set of adapters for each data set, beside the three under one head of thirty classes. The error of the three is
over all their test images: 10,000 of Fashion-MNIST, 1,500 of MNIST, 500 digits. Errors by domain are of the trainings
that recorded them, which the first ones did not.

In few-shot tasks, of five classes with five labelled images each, the head is made of the mean features of these, so
that "new head alone" trains nothing. The other arms are trained on tasks of one data set, clean or under a corruption,
and tested on those of another one; all run in eval mode. Contextual gates (CaSE, Patacchiola et al., 2022) squeeze over
the labelled images of a task, instead of over each image. "Under corruptions" are tasks that are each under one of the
five below.""",
    ),
    "scratch": Section(
        "From scratch",
        """\
The plain network, with gates, and made wider to have as many parameters as with gates. All learn at a rate of 0.3, as
two cores have no time to try several: on images held out, it was better than 0.1 for every arm of ResNet-20 with the
first seed.""",
    ),
    "ablations": Section(
        "What makes it",
        """\
One setting of the gates changed at a time; the control has gates on all blocks, of reduction 16 and the identity form,
at the learning rate of the rest. Before the branch, they exist on skip blocks alone, and are compared with gates on
these; gates after depthwise have another reduction, too: 64.""",
    ),
    "robustness": Section(
        "Calibration and robustness",
        """\
Expected calibration error, of fifteen bins, on the test images, and the mean top-1 error on the first 1,000 of them
under five corruptions that were not trained on: impulse noise, rotation, brightness, pixelation and motion blur. Where
corruptions were trained on, these come on top of them; of the three data sets, all of these images are Fashion-MNIST's.
Both measures move with the learning rate, which is chosen for neither.""",
    ),
}
