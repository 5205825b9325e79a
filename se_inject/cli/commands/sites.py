"""``se-inject sites``."""

import se_inject

from ..answer import answering, working
from ..as_json import of_sites
from ..models import named
from ..options import At, Input, Json, Kinds, Model, Where, example, given


def sites(
    model: Model,
    kind: Kinds = None,
    where: Where = None,
    position: At = None,
    shape: Input = None,
    as_json: Json = False,
) -> None:
    """List the sites, and why other blocks are none.

    \b
    Examples:
      se-inject sites torchvision/resnet50
      se-inject sites timm/convnext_tiny --where 'stages.[23].*' --json
      se-inject sites mypackage.networks:build --input 1,3,64,64
    """  # noqa: D301
    with answering(as_json) as answer:
        network = named(model)
        with working("finding sites"):
            options = given(kinds=kind, where=where, position=position)
            found = se_inject.find_sites(network.model, example_inputs=example(network, shape), **options)
        answer({"model": model, **of_sites(found)}, repr(found))
