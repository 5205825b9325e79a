"""The rows of the paper's tables, each with the networks here that it is about, and the figures that are printed there.

1 (deeper networks) and 2 (other architectures) are together Table 2 of the CVPR paper; 4 is the comparison with the
state of the art as in v1. ``recipes.networks.paper`` holds the figures and their sources.
"""

from dataclasses import dataclass

from tabulate import tabulate

from .paper import Errors, Published
from .recipe import Recipe
from .registry import get


@dataclass(frozen=True)
class System:
    """A row: its ``title`` in the paper, the ``tables`` that have it, and the names of its ``networks`` here.

    The paper's figures belong to the first network. The others differ in the place of a stride or a pool's rounding.

    >>> list_systems()[0].paper.plain[224]
    Errors(top1=24.8, top5=7.48)
    """

    title: str
    tables: tuple[int, ...]
    networks: tuple[str, ...]

    @property
    def recipe(self) -> Recipe:
        """The first network's, which builds it, plain and with gates.

        >>> list_systems()[0].recipe.name
        'se_resnet50_caffe'
        """
        return get(self.networks[0])

    @property
    def paper(self) -> Published:
        """What the paper prints of it.

        >>> list_systems()[-1].paper.se[320]
        Errors(top1=17.28, top5=3.79)
        """
        return self.recipe.paper or Published()


class Systems(tuple[System, ...]):
    """The rows of ``list_systems``; prints as a table."""

    def __str__(self) -> str:
        return self.table("simple")

    def table(self, style: str) -> str:
        """The table in one of tabulate's styles, such as ``"github"``; errors as top-1 / top-5 in per cent.

        >>> "| 24.70 / 7.80  | 24.80 / 7.48     | 23.29 / 6.62 |" in list_systems().table("github")
        True
        """
        text: str = tabulate([_cells(system) for system in self], _HEADERS, tablefmt=style, disable_numparse=True)
        return text


_HEADERS = [
    "system",
    "tables",
    "network",
    "gates",
    "its authors",
    "re-implemented",
    "SE",
    "larger crop",
]


def _cells(system: System) -> list[str]:
    recipe, paper = system.recipe, system.paper
    errors: list[Errors | None] = [of.get(recipe.size) for of in (paper.original, paper.plain, paper.se)]
    cells = ["-" if one is None else str(one) for one in errors]
    tables = ", ".join(map(str, system.tables))
    gates = "yes" if recipe.kinds else "no sites"
    return [system.title, tables, " ".join(system.networks), gates, *cells, str(at_larger_crop(paper) or "-")]


def at_larger_crop(paper: Published) -> Errors | None:
    """The errors in Table 4's column "320 x 320 / 299 x 299", which has PolyNet's too, at 331 pixels.

    >>> str(at_larger_crop(list_systems()[2].paper)), at_larger_crop(list_systems()[0].paper)
    ('21.30 / 5.50', None)
    """
    errors = paper.original or paper.se
    return next((errors[size] for size in (320, 299, 331) if size in errors), None)


_ALL = (
    System("ResNet-50", (1,), ("se_resnet50_caffe", "se_resnet50")),
    System("ResNet-101", (1,), ("se_resnet101_caffe", "se_resnet101")),
    System("ResNet-152", (1, 4), ("se_resnet152_caffe", "se_resnet152")),
    System("ResNeXt-50 (32x4d)", (2,), ("se_resnext50_32x4d_caffe", "se_resnext50_32x4d")),
    System("ResNeXt-101 (32x4d)", (2,), ("se_resnext101_32x4d_caffe", "se_resnext101_32x4d")),
    System("VGG-16", (2,), ("se_vgg16",)),
    System("BN-Inception", (2,), ("se_bn_inception",)),
    System("ResNet-200", (4,), ("se_resnet200",)),
    System("Inception-v3", (4,), ("se_inception_v3",)),
    System("Inception-v4", (4,), ("se_inception_v4",)),
    System("Inception-ResNet-v2", (2, 4), ("se_inception_resnet_v2",)),
    System("ResNeXt-101 (64x4d)", (4,), ("se_resnext101_64x4d",)),
    System("DenseNet-161 (k = 48)", (4,), ("densenet161",)),
    System("Very Deep PolyNet", (4,), ("se_polynet",)),
    System("DPN-131", (4,), ("se_dpn131",)),
    System("SENet", (4,), ("senet154",)),
)


def list_systems(table: int | None = None) -> Systems:
    """The systems of the paper's tables 1, 2 and 4, or of one of them; nothing is built.

    >>> [system.title for system in list_systems(1)]
    ['ResNet-50', 'ResNet-101', 'ResNet-152']
    """
    return Systems(system for system in _ALL if table is None or table in system.tables)
