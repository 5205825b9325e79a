"""Whatever happens to a file: a typed error that leaves the model as it was, or the values that were saved."""

import hashlib
import json
import random
import struct
from pathlib import Path

import pytest
import torch
from torch import nn

import se_inject
from se_inject.errors import GateFileError, GateMismatchError, SEInjectError
from se_inject.files.container import packed, unpacked

from ..support.blocks import network

KEPT = Path(__file__).parent / "format-1.safetensors"  # for good: files of this format must always load


def filled(model):
    for number, parameter in enumerate(se_inject.gate_parameters(model)):
        nn.init.constant_(parameter, number / 8)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "gates.safetensors"
    se_inject.save_gates(filled(se_inject.apply(network(blocks=1))), path)
    return path


def test_a_file_of_format_1_loads():
    loaded = se_inject.load_gates(network(blocks=1), KEPT)
    for ours, theirs in zip(
        se_inject.gate_parameters(loaded),
        se_inject.gate_parameters(filled(se_inject.apply(network(blocks=1)))),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def damaged(raw, rng):
    """A file with flipped bits, a part less, more or elsewhere."""
    raw, at = bytearray(raw), rng.randrange(len(raw))
    match rng.randrange(6):
        case 0 | 1:
            raw[at] ^= 1 << rng.randrange(8)
        case 2:
            del raw[at:]
        case 3:
            del raw[at : at + rng.randrange(1, 20)]
        case 4:
            raw[at:at] = rng.randbytes(rng.randrange(1, 20))
        case 5:
            other = rng.randrange(len(raw))
            raw[at], raw[other] = raw[other], raw[at]
    return bytes(raw)


def test_damage_is_told(saved, tmp_path):
    raw, rng, path = saved.read_bytes(), random.Random(0), tmp_path / "damaged.safetensors"
    target = se_inject.apply(network(blocks=1))
    before = {key: value.clone() for key, value in target.state_dict().items()}
    for _ in range(1000):
        changed = damaged(raw, rng)
        if changed == raw:
            continue
        path.write_bytes(changed)
        with pytest.raises(GateFileError, match=r"damaged\.safetensors"):
            se_inject.load_gates(target, path)
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_every_bit_is_under_the_checksum(saved, tmp_path):
    """Of the header, and of the first and the last values."""
    raw, path = saved.read_bytes(), tmp_path / "flipped.safetensors"
    size = struct.unpack("<Q", raw[:8])[0]
    for at in [*range(0, 8 + size, 29), 8 + size, len(raw) - 1]:
        for bit in range(8):
            changed = bytearray(raw)
            changed[at] ^= 1 << bit
            path.write_bytes(changed)
            with pytest.raises(GateFileError):
                unpacked(path)


ODD = (None, -1, 0, 1, 2**70, 9**60, 1.5, True, "", "x" * 1000, "../../etc/passwd", "\0", [], [1, -1], {}, {"a": []})


def altered(about, rng):
    """A header with one entry altered, lost or added, anywhere; tensors may be called as they are."""
    node, keys = about, list(about)
    while True:
        key = rng.choice(keys)
        value = node[key]
        if isinstance(value, dict | list) and value and rng.random() < 0.7:
            node, keys = value, list(value) if isinstance(value, dict) else range(len(value))
            continue
        match rng.randrange(3):
            case 0:
                node[key] = rng.choice(ODD)
            case 1:
                del node[key]
            case 2 if isinstance(node, dict):
                node[rng.choice(["x", "layer1.0.se", "a/b"])] = value
            case _:
                node.append(value) if isinstance(node, list) else node.clear()
        return about


def test_hostile_headers_with_a_right_checksum(saved, tmp_path):
    rng, path = random.Random(0), tmp_path / "hostile.safetensors"
    tensors, about = unpacked(saved)
    wanted = filled(se_inject.apply(network(blocks=1))).state_dict()
    refused, model = 0, None
    for number in range(1000):
        path.write_bytes(packed(tensors, altered(json.loads(json.dumps(about)), rng)))
        if model is None or number == 500:  # then a plain one
            model = se_inject.apply(network(blocks=1)) if number < 500 else network(blocks=1)
            before = {key: value.clone() for key, value in model.state_dict().items()}
        try:
            se_inject.load_gates(model, path)
        except SEInjectError:
            refused += 1
            after = model.state_dict()
            assert list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)
        else:
            gates = {key: value for key, value in model.state_dict().items() if ".se." in key}
            assert gates and all(torch.equal(value, wanted[key]) for key, value in gates.items())
            model = se_inject.remove(model) if number >= 500 else se_inject.apply(se_inject.remove(model))
            before = {key: value.clone() for key, value in model.state_dict().items()}
    assert refused > 800


def with_header(header, data=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        with_header(b"\xff\xfe{}"),
        with_header(b"[" * 100_000),
        with_header(b'{"a": NaN}'),
        with_header(b'{"a": 1, "a": 2}'),
        with_header(b'{"a": ' + b"9" * 10_000 + b"}"),
        with_header({"__metadata__": {"se_inject": "[]"}}),
        with_header({"__metadata__": {"se_inject": json.dumps({"sha256": "0" * 64})}}),
        with_header({"__metadata__": {"se_inject": json.dumps({"sha256": 0})}}),
        with_header({"__metadata__": [1]}),
        with_header(b"[" + b"[]," * 2_000_000 + b"[]]"),  # not read before its checksum is found
    ],
)
def test_odd_headers_are_told(raw, tmp_path):
    (tmp_path / "odd.safetensors").write_bytes(raw)
    with pytest.raises(GateFileError, match=r"odd\.safetensors"):
        se_inject.load_gates(network(), tmp_path / "odd.safetensors")


def summed(header, data):
    """A hostile file with a right checksum, whose header only needs 64 zeros."""
    raw = with_header(header, data)
    assert raw.count(b"0" * 64) == 1
    return raw.replace(b"0" * 64, hashlib.sha256(raw).hexdigest().encode())


@pytest.mark.parametrize(
    ("dtype", "shape", "offsets"),
    [
        ("F32", [4], [0, 8]),
        ("F32", [1 << 62], [0, 16]),
        ("XX", [4], [0, 16]),
        ("F32", [4], [16, 0]),
        ("F32", -1, [0]),
        ("F32", [0, 1 << 63], [0, 0]),
    ],
)
def test_hostile_tensors_are_told(dtype, shape, offsets, tmp_path):
    about = {"__metadata__": {"se_inject": json.dumps({"sha256": "0" * 64})}}
    tensor = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    (tmp_path / "odd.safetensors").write_bytes(summed(about | {"w": tensor}, bytes(range(16))))
    with pytest.raises(GateFileError, match=r"odd\.safetensors"):
        se_inject.load_gates(network(), tmp_path / "odd.safetensors")


def test_other_dtypes_are_told(saved, tmp_path):
    tensors, about = unpacked(saved)
    for name, dtype in (("1.se.fc1.bias", torch.int64), ("1.se.identity_form", torch.float32)):
        path = tmp_path / "dtypes.safetensors"
        path.write_bytes(packed(tensors | {name: tensors[name].to(dtype)}, about))
        with pytest.raises((GateFileError, GateMismatchError), match=name):
            se_inject.load_gates(network(blocks=1), path)


def test_a_file_of_a_later_format_is_told(saved, tmp_path):
    tensors, about = unpacked(saved)
    (tmp_path / "later.safetensors").write_bytes(packed(tensors, about | {"format": 2, "news": 1}))
    with pytest.raises(GateFileError, match=r"format 2.*reads format 1"):
        se_inject.load_gates(network(blocks=1), tmp_path / "later.safetensors")
