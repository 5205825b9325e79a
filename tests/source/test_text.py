"""The text of a function is proven to be what runs."""

import functools
import importlib.util
import inspect
import linecache
import sys
import traceback

import pytest
import torch
import torchvision
from torch import nn

import se_inject
from se_inject.source.function_text import text_of

from ..support.blocks import block, conv
from ..support.forwards import X, assert_works
from ..support.promises import assert_same


def lambdas():
    return [lambda x: x, lambda y: (lambda x: y)(1)]


def test_every_forward_of_torchvision_is_found():
    models = [
        torchvision.models.resnet18(),
        torchvision.models.googlenet(init_weights=False),
        torchvision.models.vit_b_16(),
    ]
    forwards = {type(m).forward for model in models for m in model.modules()}
    forwards = {f for f in forwards if inspect.isfunction(f)}
    assert len(forwards) > 15
    assert all(text_of(f).node.name == f.__code__.co_name for f in forwards)


def test_lambdas_on_one_line_are_told_apart():
    first, second = lambdas()
    assert [text_of(f).node.args.args[0].arg for f in (first, second)] == ["x", "y"]
    inner = (lambda a: lambda self, x: x + self.conv(x))(1)
    assert [argument.arg for argument in text_of(inner).node.args.args] == ["self", "x"]
    assert_works(block((lambda a: lambda self, x: x + self.conv(x))(1), conv=conv()))


MODULE = '''
import torch
from torch import nn


def shifted(forward):
    def call(self, x):  # without functools.wraps
        return forward(self, x) + 0

    return call


class Block(nn.Module):
    """A block.

    Its docstring is indented.
    """

    __scale = 2

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)

    @shifted
    def forward(self, x):  # Ä, ö: columns are bytes
        """Add."""
        name = "äöü"; y = self.conv(x) * self.__scale  # noqa
        assert x.shape == y.shape, name
        return x + y
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "strangers_blocks", None)
    path = tmp_path / "strangers_blocks.py"
    path.write_text(MODULE, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("strangers_blocks", path)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["strangers_blocks"] = loaded
    spec.loader.exec_module(loaded)
    return loaded, path


def test_what_surrounds_an_edit_stays(module):
    loaded, path = module
    block = se_inject.apply(loaded.Block())
    [site] = se_inject.find_sites(loaded.Block())
    assert (site.file, site.line) == (str(path), MODULE.splitlines().index('        """Add."""') + 2)
    assert_works(loaded.Block())
    with pytest.raises(RuntimeError, match="channels") as raised:
        block(torch.zeros(1, 3, 2, 2))
    shown = "".join(traceback.format_exception(raised.value))
    assert "y = self.se(self.conv(x)) * self.__scale  # noqa" in shown


def test_file_that_changed_on_disk_is_refused(module):
    loaded, path = module
    path.write_text(MODULE.replace("x + y", "x - y").replace("self.conv(x) *", "self.conv(x)  *"), encoding="utf-8")
    found = se_inject.find_sites(loaded.Block())
    assert (
        not found
        and "differs from the code that runs" in found.skipped[0].reason
        and "strangers_blocks.py" in found.skipped[0].reason
    )


def test_pickle_of_another_text_is_an_error_that_names_the_file(module):
    import pickle

    loaded, path = module
    saved = pickle.dumps(se_inject.apply(loaded.Block()))
    assert_same(pickle.loads(saved)(X), pickle.loads(saved)(X))
    path.write_text(MODULE.replace('"äöü"', '"aou"'), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("strangers_blocks", path)
    sys.modules["strangers_blocks"] = changed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(changed)
    with pytest.raises(se_inject.errors.RewriteError, match=r"strangers_blocks\.py"):
        pickle.loads(saved)


def test_pickle_of_a_text_that_moved_in_its_file(module):
    import pickle

    loaded, path = module
    gated = se_inject.apply(loaded.Block()).eval()
    saved, expected = pickle.dumps(gated), gated(X)
    path.write_text("# one\n\n\n" + MODULE, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("strangers_blocks", path)
    sys.modules["strangers_blocks"] = moved = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(moved)
    again = pickle.loads(saved)
    assert_same(again(X), expected)
    assert "y = self.se(self.conv(x)) * self.__scale" in inspect.getsource(
        type(again).forward.__closure__[0].cell_contents
    )


def test_one_line_bodies_and_semicolons(tmp_path):
    source = "from torch import nn\nfrom tests.support.blocks import conv\n"
    source += "class One(nn.Module): forward = lambda self, x: x + self.conv(x)\n"
    source += "class Two(nn.Module):\n    kind = 1; forward = lambda self, x: x + self.conv(x)"
    (tmp_path / "lines.py").write_text(source)
    spec = importlib.util.spec_from_file_location("lines", tmp_path / "lines.py")
    lines = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lines)
    for cls in (lines.One, lines.Two):
        built = cls()
        built.conv = conv()
        assert "self.se(self.conv(x))" in se_inject.diff(built)
        assert_works(built)
    assert "\\ No newline at end of file" in se_inject.diff(se_inject.remove(built))


def test_decorators_defaults_and_annotations_stay():
    seen = []

    def counted(forward):
        @functools.wraps(forward)
        def wrapper(self, *args, **kwargs):
            seen.append(type(self))
            return forward(self, *args, **kwargs)

        return wrapper

    def hidden(forward):
        def wrapper(module, *args, **kwargs):
            seen.append("hidden")
            return forward(module, *args, **kwargs)

        return wrapper

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv()

        @counted
        @hidden
        def forward(self, x: torch.Tensor, *, scale: float = 2.0) -> torch.Tensor:
            """Scale and add."""
            return x + self.conv(x) * scale

        forward.note = "kept"

    plain = Block()
    gated = se_inject.apply(Block())
    forward = type(gated).forward
    assert forward.note == "kept" and forward.__doc__ == plain.forward.__doc__
    assert forward.__qualname__ == Block.forward.__qualname__
    gated.load_state_dict(plain.state_dict(), strict=False)
    seen.clear()
    assert_same(gated(X, scale=3.0), plain(X, scale=3.0))
    assert seen == [type(gated), "hidden", Block, "hidden"]
    assert_works(Block())


def test_super_without_arguments_and_private_names():
    class Base(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.__factor = conv(), 0.5

        def branch(self, x):
            return self.conv(x) * self.__factor

    class Block(Base):
        __shift = 1.0

        def forward(self, x):
            y = super().branch(x)
            return x + y + 0 * self.__shift

    assert_works(Block())

    class Late(Block):
        def forward(self, x):
            return super().forward(x) * 2

    assert_works(Late())


def test_notebook_cells_have_text():
    cell = "class Cell(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.conv = conv()\n"
    cell += "    def forward(self, x):\n        return x + self.conv(x)\n"
    name = "<ipython-input-1-0123456789ab>"
    linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
    namespace = {"nn": nn, "conv": conv, "__name__": "__main__"}
    exec(compile(cell, name, "exec"), namespace)
    assert_works(namespace["Cell"]())


def test_asserts_that_pytest_rewrites_do_not_hide_a_text():
    def forward(self, x):
        assert x.ndim == 4, f"got {x.shape}"
        y = self.conv(x)
        assert y.shape == x.shape
        return x + y

    assert text_of(forward) is not None
    assert_works(block(forward, conv=conv()))


def test_no_text_is_refused_with_the_place():
    namespace = {"nn": nn, "conv": conv, "__name__": "hidden"}
    source = (
        "class Hidden(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.conv = conv()\n"
    )
    exec(source + "    def forward(self, x):\n        return x + self.conv(x)\n", namespace)
    [(_, reason)] = se_inject.find_sites(namespace["Hidden"]()).skipped
    assert "source" in reason and "<string>:5" in reason


def test_diff_is_a_patch(module, tmp_path):
    import subprocess

    loaded, path = module
    diff = se_inject.diff(nn.Sequential(loaded.Block(), loaded.Block()))
    assert diff.count("+++") == 1 and "Block.forward" in diff
    assert "<span" in diff._repr_html_() and "&lt;" not in diff._repr_html_()
    (tmp_path / "gates.patch").write_text(diff, encoding="utf-8")
    subprocess.run(["git", "apply", "gates.patch"], cwd=tmp_path, check=True)
    assert "y = self.se(self.conv(x)) * self.__scale" in path.read_text(encoding="utf-8")
    with pytest.raises(se_inject.errors.AllGatedError):
        se_inject.diff(se_inject.apply(torchvision.models.resnet18()))


def test_diff_of_places_that_are_there_and_of_outputs():
    import timm

    diff = se_inject.diff(timm.create_model("resnet10t"))
    assert "layer1.0.se: in the place" in diff and "timm/models/resnet.py:" in diff and "@@" not in diff

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x

    diff = se_inject.diff(block(forward, layers=nn.ModuleList([conv(), conv()])))
    assert diff.count("on the output") == 2 and "layers.1.se" in diff


def test_class_of_a_block_stays_where_the_author_made_a_place():
    import timm

    model = timm.create_model("resnet10t")
    plain = {name: type(m) for name, m in model.named_modules()}
    se_inject.apply(model)
    assert {name: type(m) for name, m in model.named_modules() if name in plain} == plain
    copied = timm.create_model("resnet10t")
    copied.load_state_dict(model.state_dict(), strict=False)
    x = torch.randn(1, 3, 32, 32)
    assert_same(model.eval()(x), copied.eval()(x))
    assert se_inject.remove(model).layer1[0].se is None
