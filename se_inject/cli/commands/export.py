"""``se-inject export``."""

import tempfile
import warnings
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ...errors import InvalidArgumentError, first_line
from ...files.atomic import write
from ..answer import answering, check_writable, working
from ..models import named
from ..options import Gates, Input, Json, Model, Reduction, Weights, given
from ..weights import with_gates

Onnx = Annotated[Path, typer.Option("--onnx", metavar="FILE", help="Where to write.", show_default=False)]


def export(
    model: Model,
    onnx: Onnx,
    weights: Weights = None,
    gates: Gates = None,
    reduction: Reduction = None,
    shape: Input = None,
    as_json: Json = False,
) -> None:
    """Write a gated model as an ONNX file.

    One file with weights, in eval mode, for batches of any size; a plain model gets new gates. Needs onnx and
    onnxscript.

    \b
    Examples:
      se-inject export torchvision/resnet50 --gates gates.safetensors --onnx model.onnx
      se-inject export mypackage.networks:trained --input 1,3,256,256 --onnx model.onnx
    """  # noqa: D301
    with answering(as_json) as answer:
        check_writable(onnx)
        network = named(model)
        inputs = network.inputs(shape or ())
        with working("applying gates"):
            gated = with_gates(network, weights, gates, given(reduction=reduction)).eval()
        with working("exporting to ONNX, which takes a while"):
            content = _exported(gated, inputs if isinstance(inputs, tuple) else (inputs,))
        write(onnx, content)
        answer({"model": model, "output": str(onnx), "bytes": len(content)}, f"wrote {onnx}")


def _exported(model: torch.nn.Module, inputs: tuple[Any, ...]) -> bytes:
    """The bytes of the file. Raises ``InvalidArgumentError``."""
    batch = torch.export.Dim("batch")
    dynamic = all(isinstance(value, Tensor) and value.ndim > 0 for value in tree_leaves(inputs))

    def several(value: Any) -> Any:  # a batch of one would be taken for a size that never changes
        return value.repeat_interleave(2, 0) if dynamic and len(value) == 1 else value

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # of the exporter, about itself
        try:
            program = torch.onnx.export(
                model,
                (*tree_map(several, inputs), {}),  # a dict at the end is taken for keywords
                dynamo=True,
                dynamic_shapes=tree_map(lambda _: {0: batch}, inputs) if dynamic else None,
                verbose=False,
            )
            assert program is not None
            program.save(Path(folder, "model.onnx"), external_data=False)
        except ImportError as error:
            raise InvalidArgumentError(f"export needs {error.name}: pip install onnx onnxscript") from error
        except Exception as error:  # the exporter raises many types, for what the model does
            raise InvalidArgumentError(
                f"the model cannot be exported: {first_line(error.__cause__ or error)}"
            ) from error
        return Path(folder, "model.onnx").read_bytes()
