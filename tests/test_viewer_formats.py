"""safetensors and GGUF in the page of `ckptfmt view`: files that their own libraries wrote, with the numbers that these
libraries read, and files that break the formats."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium as chromium
from peers import peer
from playwright.sync_api import Browser, expect
from viewing import Looker, looking_alone

torch, safetensors = peer("torch"), peer("safetensors.torch")
gguf = pytest.importorskip("gguf")
Kind = gguf.GGMLQuantizationType
RNG = np.random.default_rng(5)
COMPUTED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4"]
COMPUTED = [name for name in COMPUTED if name in Kind.__members__]  # what an older gguf lacks


@pytest.fixture(scope="module")
def looker(chromium: Browser) -> Iterator[Looker]:
    with looking_alone(chromium) as looker:
        yield looker


def open_(looker: Looker, path: Path) -> None:
    """In the place of what is open."""
    if looker.page.get_by_role("button", name="Open …").is_visible():
        looker.page.get_by_role("button", name="Open …").click()
    looker.open(path)


# ---- safetensors

TYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}


def test_numbers_of_safetensors(looker: Looker, tmp_path: Path) -> None:
    """Of any bits, as torch has them."""
    tensors = {}
    for name, known in TYPES.items():
        dtype = getattr(torch, known)
        raw = torch.from_numpy(RNG.integers(0, 256, (4, 6 * dtype.itemsize), np.uint8))
        tensor = (raw % 2).bool() if dtype == torch.bool else raw.view(dtype)
        with contextlib.suppress(KeyError):  # what an older safetensors has no name for
            safetensors.save({name: tensor})
            tensors[name] = tensor
    safetensors.save_file(tensors, tmp_path / "all.safetensors", metadata={"format": "pt", "note": "<b>bold</b>"})
    open_(looker, tmp_path / "all.safetensors")
    expect(looker.tab("Metadata")).to_contain_text("<b>bold</b>")
    expect(looker.tab("Damage")).to_contain_text("Not verified: safetensors has no digests")
    for name, tensor in tensors.items():
        looker.look(name)
        expect(looker.page.locator(".status")).to_contain_text("Not verified")
        wide = tensor.tolist() if not tensor.is_floating_point() else tensor.double().tolist()
        for cells, row in zip(looker.numbers(), wide, strict=True):
            for cell, value in zip(cells, row, strict=True):
                if isinstance(value, float):
                    found = torch.tensor(float(cell), dtype=torch.float64).to(tensor.dtype).double().item()
                    assert found == value or (np.isnan(found) and np.isnan(value)), (name, cell, value)
                elif isinstance(value, complex):
                    same = np.complex64(complex(cell)) == np.complex64(value) or np.isnan(value)
                    assert same, (name, cell, value)
                else:
                    assert cell == str(value), name


def described(header: Any, data: bytes = b"\0" * 16, *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


ENTRY = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
WHOLE = json.dumps(ENTRY)
BROKEN_SAFETENSORS = {
    "a hole": (described({"a": ENTRY | {"shape": [3], "data_offsets": [4, 16]}}), "begin at byte 4"),
    "an overlap": (described({"a": ENTRY, "b": ENTRY}), "begin at byte 0"),
    "bytes behind it": (described({"a": ENTRY}, b"\0" * 17), "the file at"),
    "too few bytes": (described({"a": ENTRY}, b"\0" * 15), "the file at"),
    "another length": (described({"a": ENTRY | {"shape": [5]}}), "where its shape needs 20"),
    "a shape that overflows": (described({"a": ENTRY | {"shape": [2**40, 2**40]}}), "too large"),
    "a negative side": (described({"a": ENTRY | {"shape": [-4]}}), "are missing"),
    "a name twice": (described(f'{{"a":{WHOLE},"a":{WHOLE}}}'.encode()), "stands twice"),
    "a name twice, spelt otherwise": (described(f'{{"a":{WHOLE},"\\u0061":{WHOLE}}}'.encode()), "stands twice"),
    "an unknown dtype": (described({"a": ENTRY | {"dtype": "F99"}}), "unknown dtype F99"),
    "a dtype of all objects": (described({"a": ENTRY | {"dtype": "constructor"}}), "unknown dtype constructor"),
    "no JSON": (described(b'{"a":' + b" " * 20), "no JSON"),
    "nested deeply": (described(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "described by no object"),
    "a header beyond the file": (described({"a": ENTRY}, length=10_000), "ends within its header"),
    "metadata that are no texts": (described({"__metadata__": {"a": 1}, "a": ENTRY}), "no map of texts"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_SAFETENSORS)
def test_safetensors_that_break_the_format(looker: Looker, tmp_path: Path, name: str) -> None:
    data, words = BROKEN_SAFETENSORS[name]
    refused(looker, tmp_path / "broken.safetensors", data, words)


def refused(looker: Looker, path: Path, data: bytes, words: str) -> None:
    path.write_bytes(data)
    if looker.page.get_by_role("button", name="Open …").is_visible():
        looker.page.get_by_role("button", name="Open …").click()
    looker.page.set_input_files("#files", str(path))
    expect(looker.page.locator("main .problem")).to_contain_text(words)


# ---- GGUF


def written(path: Path, tensors: dict[str, tuple[Any, Any]]) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.name", "<i>tiny</i>")
    writer.add_array("tokenizer.ggml.tokens", [f"token {i}" for i in range(20_000)])
    writer.add_array("tokenizer.ggml.scores", [0.5 * i for i in range(20_000)])
    writer.add_uint32("llama.block_count", 2)
    writer.add_bool("flag", True)
    for name, (array, kind) in tensors.items():
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_numbers_of_gguf(looker: Looker, tmp_path: Path) -> None:
    """Blocks of any bytes give what the library computes, bit by bit; of other types it is said why not."""
    tensors: dict[str, tuple[Any, Any]] = {"blk.0.plain": (RNG.standard_normal((3, 5)).astype(np.float32), None)}
    for name in [*COMPUTED, "IQ2_XXS"]:
        shape = gguf.quants.quant_shape_to_byte_shape((3, 512), Kind[name])
        tensors[f"blk.1.{name}"] = RNG.integers(0, 256, shape, np.uint8) & np.uint8(0x3F), Kind[name]
    open_(looker, written(tmp_path / "all.gguf", tensors))
    metadata = looker.tab("Metadata")
    expect(metadata).to_contain_text("<i>tiny</i>")
    metadata.get_by_text("tokenizer.ggml.tokens").click()
    expect(metadata).to_contain_text('"token 199"')
    looker.look("blk.0.plain")
    plain = tensors["blk.0.plain"][0]
    assert [[np.float32(cell) for cell in row] for row in looker.numbers()] == plain.tolist()
    for name in COMPUTED:
        blocks, kind = tensors[f"blk.1.{name}"]
        wanted = gguf.quants.dequantize(blocks, kind)
        looker.look(f"blk.1.{name}", "1:3, 30:500:67")
        cells = [[np.float32(cell) for cell in row] for row in looker.numbers()]
        assert np.array_equal(np.array(cells), wanted[1:3, 30:500:67]), name
        expect(looker.page.locator(".chips")).to_contain_text(name)
    looker.page.get_by_label("Search tensors").fill("IQ2_XXS")
    looker.rows.filter(has_text="IQ2_XXS").first.click()
    expect(looker.page.locator(".told")).to_contain_text("does not compute numbers of blocks of IQ2_XXS")
    expect(looker.page.locator(".sight")).to_be_hidden()


def gguf_bytes(tensors: int = 1, pairs: int = 0, body: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs) + body


def info(name: bytes = b"w", shape: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0) -> bytes:
    sides = struct.pack(f"<{len(shape)}Q", *shape)
    return (
        struct.pack("<Q", len(name)) + name + struct.pack("<I", len(shape)) + sides + struct.pack("<IQ", kind, offset)
    )


PAIR = struct.pack("<Q", 1) + b"k"
DEEP = PAIR + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 50
BROKEN_GGUF = {
    "version 1": (gguf_bytes(version=1), "GGUF of version 0x1"),
    "big-endian": (gguf_bytes(version=0x03000000), "GGUF of version 0x3000000"),
    "more tensors than bytes": (gguf_bytes(tensors=2**40), "before all that it announces"),
    "a text beyond the file": (gguf_bytes(0, 1, struct.pack("<Q", 2**50)), "before all that it announces"),
    "an array beyond the file": (gguf_bytes(0, 1, PAIR + struct.pack("<IIQ", 9, 4, 9)), "before all that it announces"),
    "arrays nested deeply": (gguf_bytes(0, 1, DEEP), "nested too deeply"),
    "an unknown type of value": (gguf_bytes(0, 1, PAIR + struct.pack("<I", 99)), "unknown type 99"),
    "an unknown type of tensor": (gguf_bytes(body=info(kind=99)), "unknown type 99"),
    "data beyond the file": (gguf_bytes(body=info()), "the file ends at byte"),
    "a shape that overflows": (gguf_bytes(body=info(shape=(2**40, 2**40))), "too large"),
    "a row of half a block": (gguf_bytes(body=info(shape=(16,), kind=2)), "no whole number of blocks"),
    "an overlap": (gguf_bytes(2, body=info(b"a") + info(b"b", offset=8) + b"\0" * 90), "overlaps"),
    "a name twice": (gguf_bytes(2, body=info(b"a") + info(b"a", offset=16) + b"\0" * 90), "stands twice"),
    "no UTF-8": (gguf_bytes(body=info(b"\xff") + b"\0" * 90), "not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_GGUF)
def test_gguf_that_breaks_the_format(looker: Looker, tmp_path: Path, name: str) -> None:
    data, words = BROKEN_GGUF[name]
    refused(looker, tmp_path / "broken.gguf", data, words)
