"""Ways to hand a network to other tools: each makes a function of images of what the tool made of the network."""

import copy
import tempfile
from pathlib import Path

import torch
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
from torch.export import Dim

ANYTHING = Dim.DYNAMIC


def onnx_program(model, x, sizes=(0, 2, 3)):
    """The graph that the exporter makes, in which these dimensions are open."""
    with torch.no_grad():
        return torch.onnx.export(
            model, (x,), dynamo=True, dynamic_shapes=(dict.fromkeys(sizes, ANYTHING),), verbose=False
        )


def onnx_session(program):
    """A function that runs a program of the exporter in onnxruntime."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        program.save(path)
        session = onnxruntime.InferenceSession(path)
    [entry] = session.get_inputs()
    return lambda x: torch.from_numpy(session.run(None, {entry.name: x.numpy()})[0])


def onnx(model, x):
    return onnx_session(onnx_program(model, x))


def export(model, x, strict=False):
    names = {0: Dim("batch", max=64), 2: Dim("height", min=64, max=512), 3: Dim("width", min=64, max=512)}
    with torch.no_grad():
        return torch.export.export(model, (x,), dynamic_shapes=(names,), strict=strict).module()


def compiled(model, x):
    torch.compiler.reset()
    return torch.compile(model, dynamic=True, fullgraph=True)


def aot_inductor(model, x):
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        program = torch.export.export(model, (x,), dynamic_shapes=({0: Dim("batch", min=1, max=64)},))
        path = torch._inductor.aoti_compile_and_package(program, package_path=str(Path(folder, "model.pt2")))
        return torch._inductor.aoti_load_package(path)


def jit_trace(model, x):
    with torch.no_grad():
        return torch.jit.trace(model, x)


def jit_script(model, x):
    return torch.jit.script(model)


def fx_int8(model, x):
    prepared = prepare_fx(copy.deepcopy(model), get_default_qconfig_mapping("x86"), (x,))
    with torch.no_grad():
        prepared(x)
    return convert_fx(prepared)


def pt2e_int8(model, x):
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config())
    with torch.no_grad():
        prepared = prepare_pt2e(torch.export.export(model, (x,)).module(), quantizer)
        prepared(x)
        return convert_pt2e(prepared)


def torchao_int8(model, x):
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = copy.deepcopy(model)
    quantize_(model, Int8WeightOnlyConfig())
    return model


EXACT = (onnx, export, compiled, aot_inductor, jit_trace, jit_script)
ROUNDED = (fx_int8, pt2e_int8, torchao_int8)
