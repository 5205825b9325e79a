"""Files that hold: any damage is told, what others wrote is not believed, and a failed write changes nothing."""

import json
import math
import os
import random
import resource
import signal
import threading
from contextlib import contextmanager
from dataclasses import asdict

import pytest
import safetensors.torch
import torch
from torch import nn

from recipes.commands import evaluate, finetune, plot
from recipes.errors import CheckpointError, RecipeError, SettingsError
from recipes.files import check_writable, replacing
from recipes.networks.any_model import Model
from recipes.training.accelerator import make_accelerator
from recipes.training.checkpoint import load_checkpoint, save_checkpoint
from recipes.training.log import write_log
from recipes.training.loop import fit
from recipes.weights import load_weights, read_weights
from recipes.weights.described import Description, describe, load_model, save_model
from se_inject.files.container import packed, unpacked

from .runs import Tiny

MODEL = Model("se_resnet20", "standard", 10)
ABOUT = Description(MODEL, MODEL.preprocess(32), [f"class {i}" for i in range(10)])
STATE = {"identity": {"model.name": "x"}, "step": 3, "sums": torch.arange(40.0), "rows": [{"loss": 0.1}, (1, None)]}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return MODEL.build()


@pytest.fixture
def files(tmp_path, network):
    """A checkpoint and a network's weights, and what reads each."""
    save_checkpoint(tmp_path / "last.pt", STATE)
    save_model(tmp_path / "model.safetensors", network, ABOUT)
    return {tmp_path / "last.pt": load_checkpoint, tmp_path / "model.safetensors": describe}


@pytest.fixture(autouse=True)
def no_test_hangs():
    """On a pipe, say."""

    def stop(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Damage


def flipped(path, at, bit):
    with path.open("rb+") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def test_every_flipped_bit_is_told(files):
    """Every bit of the small file; of the large one, of its header, its first and last values, and of any others."""
    rng = random.Random(0)
    for path, read in files.items():
        size = path.stat().st_size
        at = range(size) if size < 10_000 else [*range(100), *rng.sample(range(size), 100), *range(size - 20, size)]
        for place in at:
            bit = rng.randrange(8)
            flipped(path, place, bit)
            with pytest.raises(CheckpointError, match=path.name):
                read(path)
            flipped(path, place, bit)
        read(path)
    for name in (b"__metadata__", b"se_inject", b"sha256"):  # without which it could seem to be another program's
        place = path.read_bytes().index(name)
        for bit in range(0, 8 * (len(name) + 80), 3):
            flipped(path, place + bit // 8, bit % 8)
            with pytest.raises(CheckpointError):
                read_weights(path)
            flipped(path, place + bit // 8, bit % 8)


def test_what_is_missing_or_too_much_is_told(files):
    for path, read in files.items():
        raw = path.read_bytes()
        ends = [*range(0, len(raw), 1 + len(raw) // 50), *range(len(raw) - 40, len(raw))]
        for changed in [*(raw[:end] for end in ends), raw + b"\0", raw + raw, b"\0" + raw, b"a" * 100]:
            path.write_bytes(changed)
            with pytest.raises(CheckpointError, match=path.name):
                read(path)
        path.write_bytes(raw)
        os.truncate(path, 1 << 40)  # and is not read to its end
        with pytest.raises(CheckpointError, match=path.name):
            read(path)


def test_other_readers_read_our_files(files, network):
    checkpoint, weights = files
    state = torch.load(checkpoint, weights_only=True)
    assert state["rows"] == STATE["rows"] and torch.equal(state["sums"], STATE["sums"])
    theirs, ours = safetensors.torch.load_file(weights), network.state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[key], ours[key]) for key in ours)


def test_files_of_earlier_versions(tmp_path, network):
    """Which have no checksum."""
    torch.save(STATE, tmp_path / "last.pt")
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 3
    state, path = network.state_dict(), tmp_path / "model.safetensors"
    safetensors.torch.save_file(state, path, {"se_inject": json.dumps(asdict(ABOUT))})
    loaded, about = load_model(path)
    assert about == ABOUT and all(torch.equal(loaded.state_dict()[key], state[key]) for key in state)


def test_weights_of_others(tmp_path, network):
    """Have no description, and may have a checksum of their own."""
    path, notes = tmp_path / "w.safetensors", {"format": "pt", "data": '{"sha256": "' + "0" * 64 + '"}'}
    safetensors.torch.save_file(network.state_dict(), path, notes)
    assert describe(path) is None and read_weights(path).keys() == network.state_dict().keys()
    whole = {"fc.weight": torch.zeros(10, 64, dtype=torch.int8)}
    with pytest.raises(CheckpointError, match=r"fc\.weight is of torch\.int8, not torch\.float32"):
        load_weights(network, network.state_dict() | whole, "file")
    torch.save({1: torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read_weights(tmp_path / "w.pth")


def test_tied_weights_are_saved(tmp_path):
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    save_model(tmp_path / "w.safetensors", network, ABOUT)
    assert torch.equal(read_weights(tmp_path / "w.safetensors")["1.weight"], network[0].weight)


# Descriptions that anyone may have written

HOSTILE = {
    "model": [None, [], {}, "x", {"name": "se_resnet20"}, asdict(MODEL) | {"more": 1}],
    "model.name": [None, 1, ["se_resnet20"], "", "no_such", "timm/no_such", "torchvision/raft_small", "a/b/c", "\0"],
    "model.gates": [None, "no", 1, ["none"], True],
    "model.num_classes": [None, 0, -1, 9, 1.5, True, "10", math.nan, 1_000_000_000, 1 << 40, 10**400, [10]],
    "model.reduction": [0, -16, True, 1.0, "16", 1 << 40, None],
    "model.kinds": ["residual", ["no"], [1], None, {}],
    "model.position": ["no", None, 1],
    "model.gate": ["no_such_gate", None, 3, "os:abort"],
    "model.head": ["fc", ["no_such"], [1], ["bn1"], None],
    "preprocess": [None, [], 3, {"size": 32}],
    "preprocess.size": [0, -1, True, 1e9, 10**9, "32", None],
    "preprocess.resize": [0, -32, 10**9, [32], None],
    "preprocess.interpolation": ["no", 2, None, ""],
    "preprocess.mean": [None, 0.5, [], [0.5], [0.5] * 4, [0.5, 0.5, True], [0.5, 0.5, "1"], [math.nan] * 3, {}],
    "preprocess.std": [[0, 1, 1], [-1, 1, 1], [1, 1, math.inf], [1, 1, 10**400], "abc", None],
    "classes": [None, "abc", [], [1, 2], ["a", None], {"a": 1}, [["a"]], ["a"] * 11, 10],
}


def hostile(entry, value):
    about = json.loads(json.dumps(asdict(ABOUT)))
    *above, name = entry.split(".")
    (about[above[0]] if above else about)[name] = value
    return about


@pytest.fixture
def builds_nothing(monkeypatch):
    """No network is built where it takes memory."""
    build = Model.build

    def on_meta(model):
        network = build(model)
        assert all(parameter.is_meta for parameter in network.parameters())
        return network

    monkeypatch.setattr(Model, "build", on_meta)


@pytest.mark.parametrize("entry", HOSTILE)
def test_hostile_descriptions(entry, tmp_path, network, builds_nothing):
    path, state = tmp_path / "w.safetensors", network.state_dict()
    for value in HOSTILE[entry]:
        about = hostile(entry, value)
        safetensors.torch.save_file(state, path, {"se_inject": json.dumps(about)})
        with pytest.raises(CheckpointError, match=r"w\.safetensors: "):
            load_model(path)
        if "NaN" not in json.dumps(about) and "Infinity" not in json.dumps(about):
            path.write_bytes(packed(state, about))  # and with a right checksum
            with pytest.raises(CheckpointError, match=r"w\.safetensors: "):
                load_model(path)


@pytest.mark.parametrize("text", ["", "x", "null", "[]", "3", "{}", "[" * 100_000, '{"model": 1, "model": 2}', "\x00"])
def test_descriptions_that_are_none(text, tmp_path, builds_nothing):
    safetensors.torch.save_file({"w": torch.zeros(1)}, tmp_path / "w.safetensors", {"se_inject": text})
    with pytest.raises(CheckpointError, match=r"w\.safetensors: "):
        load_model(tmp_path / "w.safetensors")


def test_descriptions_altered_anywhere(tmp_path, network):
    """Either the same network, or a typed error."""
    rng, path, state = random.Random(0), tmp_path / "w.safetensors", network.state_dict()
    odd = [None, -1, 0, 1, 2**70, 1.5, True, "", "x" * 1000, "../../etc/passwd", [], [1], {}, {"a": []}]
    refused = 0
    for _ in range(50):
        node = about = json.loads(json.dumps(asdict(ABOUT)))
        while True:
            key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
            if not node[key] or not isinstance(node[key], dict | list) or rng.random() < 0.3:
                break
            node = node[key]
        if rng.random() < 0.3:
            del node[key]
        else:
            node[key] = rng.choice(odd)
        safetensors.torch.save_file(state, path, {"se_inject": json.dumps(about)})
        try:
            load_model(path)
        except CheckpointError:
            refused += 1
    assert refused > 30


def test_a_network_larger_than_its_file(tmp_path, network, builds_nothing):
    about = hostile("model.name", "timm/resnetv2_152x4_bit")
    safetensors.torch.save_file(network.state_dict(), tmp_path / "w.safetensors", {"se_inject": json.dumps(about)})
    with pytest.raises(CheckpointError, match="has more weights than the file"):
        load_model(tmp_path / "w.safetensors")


def test_a_file_chooses_no_code(tmp_path, network, builds_nothing):
    about = hostile("model.name", "antigravity:fly")
    safetensors.torch.save_file(network.state_dict(), tmp_path / "w.safetensors", {"se_inject": json.dumps(about)})
    with pytest.raises(CheckpointError, match="no file chooses which code is run"):
        load_model(tmp_path / "w.safetensors")


# Writing


@contextmanager
def full_disk(free):
    """No file can grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_what_was_there(files, tmp_path, network):
    write_log(tmp_path, [{"epoch": 1, "train_top1": 30.0, "val_top1": 25.0}])
    (tmp_path / "c.png").write_bytes(b"an older picture")
    before = content(tmp_path)
    writers = {
        "last.pt": lambda: save_checkpoint(tmp_path / "last.pt", STATE),
        "model.safetensors": lambda: save_model(tmp_path / "model.safetensors", network, ABOUT),
        "log.csv": lambda: write_log(tmp_path, [{"epoch": 2, "train_top1": 3.0, "val_top1": 2.0}]),
        "c.png": lambda: plot.main(["curves", str(tmp_path), "--out", str(tmp_path / "c.png")]),
    }
    for name, write in writers.items():
        with full_disk(20), pytest.raises(SettingsError, match=rf"{name}: cannot be written \(File too large\); what"):
            write()
        assert content(tmp_path) == before
    for write in writers.values():
        write()
    assert all(data != before[name] for name, data in content(tmp_path).items() if name in ("log.csv", "c.png"))


def test_training_on_a_full_disk(make_run):
    run = make_run(epochs=1)
    with full_disk(100_000), pytest.raises(RecipeError, match=r"last\.pt: cannot be written"):
        fit(run, run.model.build(), make_accelerator())
    assert sorted(content(run.folder)) == [".lock"]


def test_results_of_finetuning_outlive_a_full_disk(make_run, monkeypatch, capsys):
    """And a report that can never be written is told before anything is trained."""
    run, row = make_run(gates="none", trained="head", head=("fc",)), {"val_loss": 1.0, "val_top1": 23.45, "val_top5": 0}
    trained = []
    monkeypatch.setattr(finetune, "fit", lambda *given: trained.append(given) or [row])
    with full_disk(20), pytest.raises(SettingsError, match=r"report\.json: cannot be written \(File too large\)"):
        finetune.finetune(Tiny(), Tiny(), run, make_accelerator())
    assert capsys.readouterr().out.count("23.45") == len(trained) == 2
    (run.folder / "report.json").mkdir()
    with pytest.raises(SettingsError, match=r"report\.json: cannot be written .* no regular file"):
        finetune.finetune(Tiny(), Tiny(), run, make_accelerator())
    assert len(trained) == 2


def test_files_are_readable_as_the_umask_says(tmp_path, network):
    for umask, mode in ((0o022, 0o644), (0o027, 0o640), (0o077, 0o600)):
        before = os.umask(umask)
        try:
            save_checkpoint(tmp_path / "last.pt", STATE)
            save_model(tmp_path / "model.safetensors", network, ABOUT)
            write_log(tmp_path, [{"epoch": 1}])
            with replacing(tmp_path / "others.safetensors") as temporary:
                safetensors.torch.save_file(network.state_dict(), temporary)
        finally:
            os.umask(before)
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {mode}


def test_two_writers_of_one_file(tmp_path):
    """The file is always one of theirs."""
    path, texts = tmp_path / "report.json", ["a" * 100_000, "b" * 200_000]

    def write(text):
        for _ in range(30):
            with replacing(path) as temporary:
                temporary.write_text(text)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert not path.exists() or path.read_text() in texts
    assert path.read_text() in texts and list(content(tmp_path)) == ["report.json"]


def test_what_killed_runs_left_is_removed(make_run):
    run = make_run()
    run.folder.mkdir()
    for name in (".0123456789abcdef.partial.pt", "mine.pt"):
        (run.folder / name).touch()
    with run.held(main=True):
        assert sorted(content(run.folder)) == [".lock", "mine.pt"]


def test_a_link_leads_to_the_file_that_is_written(tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "report.json").symlink_to(tmp_path / "big" / "report.json")
    with replacing(tmp_path / "report.json") as temporary:
        temporary.write_text("{}")
    assert (tmp_path / "report.json").is_symlink() and (tmp_path / "big" / "report.json").read_text() == "{}"


def test_only_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/null", tmp_path / "pipe", tmp_path, "/proc/x/y", tmp_path / ("x" * 300), tmp_path / "\0"):
        with pytest.raises(SettingsError, match="cannot be written"):
            check_writable(type(tmp_path)(path))


# What is no file of weights


@pytest.fixture
def odd_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "dangling.pt").symlink_to("nowhere")
    for name in ("huge.safetensors", "huge.pth"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 1 << 40)
    for name, data in {"empty.pt": b"", "empty.safetensors": b"", "text.pth": b"hello", "zip.pt": b"PK\5\6"}.items():
        (tmp_path / name).write_bytes(data)
    return [*tmp_path.iterdir(), tmp_path / "none.pt", type(tmp_path)("/dev/zero"), type(tmp_path)("\0")]


def test_odd_files_as_weights(odd_files, tmp_path):
    out = ["--out", str(tmp_path / "out")]
    for path in odd_files:
        for command in (
            lambda path: evaluate.main(["--checkpoint", path, *out]),
            lambda path: finetune.main(["--model", "se_resnet20", "--weights", path, *out]),
            lambda path: plot.main(["gates", "--checkpoint", path, "--out", str(tmp_path / "g.png")]),
        ):
            with pytest.raises(CheckpointError):
                command(str(path))


def test_odd_files_as_checkpoints(odd_files, make_run):
    for path in odd_files:
        with pytest.raises(CheckpointError):
            load_checkpoint(path)
    run = make_run(resume=True)
    run.folder.mkdir()
    os.mkfifo(run.checkpoint)
    with pytest.raises(RecipeError, match=r"last\.pt"):
        run.saved()


def test_a_gate_file_is_no_network(tmp_path, network):
    import se_inject

    se_inject.save_gates(network, tmp_path / "gates.safetensors")
    with pytest.raises(CheckpointError, match=r"gates\.safetensors: its description cannot be used"):
        load_model(tmp_path / "gates.safetensors")
    assert unpacked(tmp_path / "gates.safetensors")
