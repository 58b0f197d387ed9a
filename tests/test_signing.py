"""Signatures: who is trusted opens a checkpoint, nobody else does; what model-signing makes is taken, and given."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from signing import GOOD, OTHERS, Authority, pair, written

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.errors import InputError, SignatureError
from ckptfmt.signing import bundle, statement

TREE = {"w": np.arange(3000.0), "config": {"layers": 2}}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    ckptfmt.save(tmp_path / "m.ckpt", TREE, digest="sha256")
    return tmp_path / "m.ckpt"


def refused(call: Callable[[], object], kind: type[Exception] = SignatureError) -> str:
    """The code with which a call is refused."""
    with pytest.raises(kind) as raised:
        call()
    return str(raised.value.code)  # type: ignore[attr-defined]


# ---- who signs, and what is read then


@pytest.mark.parametrize("kind", GOOD)
def test_who_is_trusted_opens_it(saved: Path, kind: str) -> None:
    private, public = pair(saved.parent, kind=kind)
    report = ckptfmt.sign(saved, private)
    assert Path(report.signature) == saved.parent / "m.ckpt.sig"
    assert ckptfmt.verify_signature(saved, public) == report
    assert ckptfmt.load(saved, trust=public)["config"] == {"layers": 2}
    with ckptfmt.open(saved, trust=[pair(saved.parent, "other")[1], public.read_bytes()]) as checkpoint:
        assert checkpoint["w"][7] == 7
        assert checkpoint.manifest_sha256 == report.manifest_sha256
    other = pair(saved.parent, "stranger")[1]
    assert refused(lambda: ckptfmt.load(saved, trust=other)) == "untrusted-key"


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
@pytest.mark.parametrize("digest", ["sha256", "blake3"])
def test_every_layout(tmp_path: Path, layout: str, digest: str) -> None:
    private, public = pair(tmp_path)
    ckptfmt.save(tmp_path / "c", TREE, layout=layout, digest=digest)
    ckptfmt.sign(tmp_path / "c", private)
    assert ckptfmt.load(f"{tmp_path}/c/" if layout != "file" else tmp_path / "c", trust=public)["w"][-1] == 2999
    ckptfmt.save(tmp_path / "c", {"w": np.zeros(3)}, layout=layout, digest=digest, overwrite=True)
    assert refused(lambda: ckptfmt.load(tmp_path / "c", trust=public)) == "other-checkpoint"


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
def test_a_paged_checkpoint(tmp_path: Path, layout: str) -> None:
    private, public = pair(tmp_path)
    tree = {f"t{n}": np.full(3, n) for n in range(40)}
    ckptfmt.save(tmp_path / "c", tree, layout=layout, digest="sha256", paged=True)
    ckptfmt.sign(tmp_path / "c", private)
    with ckptfmt.open(tmp_path / "c", trust=public) as checkpoint:
        assert checkpoint["t7"][0] == 7


def test_keys_of_the_package_itself(saved: Path) -> None:
    key = GOOD["ed25519"]()
    ckptfmt.sign(saved, key)
    assert ckptfmt.load(saved, trust=[key.public_key()])["w"][1] == 1


def test_a_key_with_a_password(saved: Path) -> None:
    private, public = written(saved.parent, "hidden", GOOD["p256"](), b"secret")
    assert refused(lambda: ckptfmt.sign(saved, private), InputError) == "bad-key"
    assert refused(lambda: ckptfmt.sign(saved, private, password="wrong"), InputError) == "bad-key"
    ckptfmt.sign(saved, private, password="secret")
    assert ckptfmt.verify_signature(saved, public).form == "ckptfmt"


def test_nothing_is_read_unverified(saved: Path) -> None:  # [SIG-010]
    private, public = pair(saved.parent)
    ckptfmt.sign(saved, private)
    for options in ({"verify": False}, {"verify": False, "mmap": True}):
        assert refused(lambda options=options: ckptfmt.load(saved, trust=public, **options), InputError) == "bad-option"
    assert refused(lambda: ckptfmt.open(saved, trust=public, verify=False), InputError) == "bad-option"
    with ckptfmt.open(saved, trust=public) as checkpoint:
        assert refused(lambda: checkpoint.load(verify=False), InputError) == "bad-option"
    data = bytearray(saved.read_bytes())
    data[data.index(np.float64(1234).tobytes()) + 7] ^= 1  # one bit of an element
    saved.write_bytes(data)
    for options in ({}, {"mmap": True}, {"into": {"w": np.zeros(3000), "config": {"layers": 0}}}):
        with pytest.raises(ckptfmt.CorruptError, match="block-digest"):
            ckptfmt.load(saved, trust=public, **options)
    assert refused(lambda: ckptfmt.load(saved, trust=[]), InputError) == "bad-key"


def test_other_versions_and_names_are_of_what_was_signed(saved: Path) -> None:
    private, public = pair(saved.parent)
    ckptfmt.sign(saved, private)
    assert ckptfmt.load(saved, trust=public, prefix="config") == {"layers": 2}
    with ckptfmt.open(saved, trust=public, add_prefix="x.") as checkpoint:
        assert checkpoint["x.w"][3] == 3
        assert refused(lambda: checkpoint.load(verify=False), InputError) == "bad-option"


# ---- bad input


def test_weak_digests_are_not_signed_and_not_believed(tmp_path: Path) -> None:  # [SIG-009]
    private, public = pair(tmp_path)
    ckptfmt.save(tmp_path / "c", TREE)
    assert refused(lambda: ckptfmt.sign(tmp_path / "c", private)) == "weak-digest"
    assert not (tmp_path / "c.sig").exists()
    with ckptfmt.open(tmp_path / "c") as checkpoint:
        said = statement.ManifestStatement("c", checkpoint.manifest_sha256, {})
    from ckptfmt.signing import keys

    (tmp_path / "c.sig").write_bytes(keys.sign(keys.private_key(private), said.encode()).encode())
    assert refused(lambda: ckptfmt.load(tmp_path / "c", trust=public)) == "weak-digest"
    ckptfmt.convert(tmp_path / "c", tmp_path / "strong", digest="sha256")
    ckptfmt.sign(tmp_path / "strong", private)
    assert ckptfmt.load(tmp_path / "strong", trust=public)["w"][2] == 2


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.filterwarnings("ignore")  # of cryptography, about such keys
def test_keys_of_another_kind(saved: Path, kind: str) -> None:
    private, public = pair(saved.parent, kind=kind)
    assert refused(lambda: ckptfmt.sign(saved, private), InputError) == "bad-key"
    ckptfmt.sign(saved, pair(saved.parent, "good")[0])
    assert refused(lambda: ckptfmt.load(saved, trust=public), InputError) == "bad-key"


@pytest.mark.parametrize(
    "key", [b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b"\xff" * 99, 7, None]
)
def test_what_is_no_key(saved: Path, key: Any) -> None:
    ckptfmt.sign(saved, pair(saved.parent)[0])
    assert refused(lambda: ckptfmt.sign(saved, key, overwrite=True), InputError) == "bad-key"
    assert refused(lambda: ckptfmt.load(saved, trust=[key]), InputError) == "bad-key"


def test_private_and_public_in_the_place_of_each_other(saved: Path) -> None:
    private, public = pair(saved.parent)
    assert refused(lambda: ckptfmt.sign(saved, public), InputError) == "bad-key"
    ckptfmt.sign(saved, private)
    assert refused(lambda: ckptfmt.load(saved, trust=private), InputError) == "bad-key"
    assert refused(lambda: ckptfmt.load(saved, trust=saved.parent / "none.pub"), InputError) == "bad-key"


def test_a_signature_of_another_checkpoint(saved: Path) -> None:
    private, public = pair(saved.parent)
    ckptfmt.save(saved.parent / "other.ckpt", {"w": np.zeros(3)}, digest="sha256")
    ckptfmt.sign(saved, private)
    assert refused(lambda: ckptfmt.load(saved.parent / "other.ckpt", trust=public)) == "not-signed"
    shutil.copy(saved.parent / "m.ckpt.sig", saved.parent / "other.ckpt.sig")
    assert refused(lambda: ckptfmt.load(saved.parent / "other.ckpt", trust=public)) == "other-checkpoint"


def test_signatures_are_not_replaced_unasked(saved: Path) -> None:
    private, public = pair(saved.parent)
    ckptfmt.sign(saved, private)
    before = (saved.parent / "m.ckpt.sig").read_bytes()
    other, other_public = pair(saved.parent, "other")
    with pytest.raises(ckptfmt.ExistsError):
        ckptfmt.sign(saved, other)
    assert (saved.parent / "m.ckpt.sig").read_bytes() == before
    ckptfmt.sign(saved, other, overwrite=True)
    assert refused(lambda: ckptfmt.load(saved, trust=public)) == "untrusted-key"
    assert ckptfmt.verify_signature(saved, [public, other_public])


def test_bytes_have_no_signature_beside_them(saved: Path) -> None:
    assert refused(lambda: ckptfmt.load(saved.read_bytes(), trust=pair(saved.parent)[1])) == "not-signed"


def changed(saved: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Put a signature beside a checkpoint that differs from a good one."""
    document = json.loads((saved.parent / "m.ckpt.sig").read_text())
    change(document)
    (saved.parent / "m.ckpt.sig").write_text(json.dumps(document))


def payload(document: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> None:
    said = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    change(said)
    document["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(said).encode()).decode()


FORGED: dict[str, Callable[[dict[str, Any]], object]] = {
    "another digest": lambda one: payload(one, lambda said: said["subject"][0]["digest"].update(sha256="0" * 64)),
    "another name": lambda one: payload(one, lambda said: said["subject"][0].update(name="x")),
    "another predicate": lambda one: payload(one, lambda said: said.update(predicateType="x")),
    "another hint": lambda one: one["verificationMaterial"]["publicKey"].update(hint="0" * 64),
    "another payload type": lambda one: one["dsseEnvelope"].update(payloadType="text/plain"),
    "no signature": lambda one: one["dsseEnvelope"].update(signatures=[]),
    "signatures of nothing": lambda one: one["dsseEnvelope"].update(signatures=[{"sig": ""}]),
    "no base64": lambda one: one["dsseEnvelope"]["signatures"][0].update(sig="***"),
    "no material": lambda one: one.pop("verificationMaterial"),
    "another media type": lambda one: one.update(mediaType="application/json"),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_signature_files(saved: Path, name: str) -> None:
    private, public = pair(saved.parent)
    ckptfmt.sign(saved, private)
    changed(saved, FORGED[name])
    if name == "another hint":  # which only helps to find the key
        assert ckptfmt.verify_signature(saved, public)
    else:
        assert refused(lambda: ckptfmt.load(saved, trust=public)) == "bad-signature"


@given(
    st.one_of(
        st.binary(max_size=200), st.recursive(st.none() | st.text(), st.lists).map(lambda x: json.dumps(x).encode())
    )
)
def test_anything_else_is_a_bad_signature(data: bytes) -> None:
    assert refused(lambda: bundle.decode(data)) == "bad-signature"
    assert refused(lambda: statement.decode(data)) == "bad-signature"


@pytest.mark.parametrize("data", [b'{"a":1,"a":2}', b"[" * 100_000, b"NaN", b"\xff"])
def test_json_that_readers_take_for_different_things(data: bytes) -> None:
    assert refused(lambda: bundle.decode(data)) == "bad-signature"


@settings(max_examples=40)
@given(st.data())
def test_no_flipped_bit_of_a_signature_is_believed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "flips"
    if not folder.exists():
        folder.mkdir()
        ckptfmt.save(folder / "c", TREE, digest="sha256")
        ckptfmt.sign(folder / "c", pair(folder)[0])
    raw = bytearray((folder / "c.sig").read_bytes())
    found = bundle.decode(bytes(raw))
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    (folder / "flipped.sig").write_bytes(raw)
    try:
        ckptfmt.verify_signature(folder / "c", folder / "key.pub", signature=folder / "flipped.sig")
    except SignatureError as error:
        assert error.code in ("bad-signature", "untrusted-key")
    else:  # what is signed, and the signature, are the same: of the hint, of a keyid, or of padding
        after = bundle.decode(bytes(raw))
        assert (after.payload, after.signatures) == (found.payload, found.signatures)


# ---- certificates


def test_certificates(saved: Path) -> None:
    alice = Authority(saved.parent)
    ckptfmt.sign(saved, alice.key, certificates=alice.chain)
    assert ckptfmt.verify_signature(saved, alice.root).signer == "CN=alice"
    assert ckptfmt.load(saved, trust=[alice.root])["w"][5] == 5
    (saved.parent / "others").mkdir()
    other = Authority(saved.parent / "others")
    assert refused(lambda: ckptfmt.load(saved, trust=other.root)) == "untrusted-key"
    assert refused(lambda: ckptfmt.sign(saved, alice.key, certificates=other.chain), InputError) == "bad-key"
    ckptfmt.sign(saved, alice.key, certificates=alice.chain[:1], overwrite=True)  # nothing leads to the root
    assert refused(lambda: ckptfmt.load(saved, trust=alice.root)) == "untrusted-key"
    ckptfmt.sign(saved, alice.key, overwrite=True)  # by the key alone
    assert refused(lambda: ckptfmt.load(saved, trust=alice.root)) == "untrusted-key"


def test_a_certificate_that_is_not_for_signing(saved: Path) -> None:  # [SIG-008]
    alice = Authority(saved.parent, signs=False)
    ckptfmt.sign(saved, alice.key, certificates=alice.chain)
    assert refused(lambda: ckptfmt.load(saved, trust=alice.root)) == "untrusted-key"


def test_a_certificate_that_others_have_taken(saved: Path) -> None:
    alice = Authority(saved.parent)
    ckptfmt.sign(saved, alice.key, certificates=alice.chain)
    good = bundle.decode((saved.parent / "m.ckpt.sig").read_bytes())
    ckptfmt.sign(saved, pair(saved.parent, "mallory", "p256")[0], overwrite=True)
    forged = bundle.decode((saved.parent / "m.ckpt.sig").read_bytes())
    (saved.parent / "m.ckpt.sig").write_bytes(forged._replace(certificates=good.certificates).encode())
    assert refused(lambda: ckptfmt.load(saved, trust=alice.root)) == "bad-signature"


# ---- beside model-signing


def model_signing(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("layout", "method"), [("file", "key"), ("loose", "certificate")])
def test_model_signing_and_we_agree(tmp_path: Path, layout: str, method: str) -> None:
    pytest.importorskip("model_signing")
    path, own, theirs = tmp_path / "m.ckpt", tmp_path / "own.sig", tmp_path / "theirs.sig"
    ckptfmt.save(path, TREE, layout=layout)  # whole files are hashed, so any digest will do
    if method == "key":
        private, public = pair(tmp_path, kind="p384")
        chain: list[Path] = []
        trust = ["--public_key", public]
        more: list[object] = ["--private_key", private]
    else:
        alice = Authority(tmp_path)
        private, public, chain = alice.key, alice.root, alice.chain
        trust = ["--certificate_chain", public]
        more = ["--private_key", private, "--signing_certificate", chain[0], "--certificate_chain", chain[1]]
    ckptfmt.sign(path, private, certificates=chain, form="model-signing", signature=own)
    done = model_signing("sign", method, path, "--signature", theirs, *more)
    assert done.returncode == 0, done.stderr
    for signature in (own, theirs):
        done = model_signing("verify", method, path, "--signature", signature, *trust)
        assert done.returncode == 0, done.stdout + done.stderr
        assert ckptfmt.verify_signature(path, public, signature=signature).form == "model-signing"
    changed_file = path if layout == "file" else path / "tensors" / "w" / "c" / "0"
    data = bytearray(changed_file.read_bytes())
    data[100] ^= 1
    changed_file.write_bytes(data)
    for signature in (own, theirs):
        assert model_signing("verify", method, path, "--signature", signature, *trust).returncode != 0
        assert refused(lambda: ckptfmt.verify_signature(path, public, signature=signature)) == "other-checkpoint"


def test_files_that_were_not_signed(tmp_path: Path) -> None:
    private, public = pair(tmp_path, kind="p256")
    ckptfmt.save(tmp_path / "c", TREE, layout="loose")
    ckptfmt.sign(tmp_path / "c", private, form="model-signing", signature=tmp_path / "s.sig")
    (tmp_path / "c" / "more").write_text("x")
    assert (
        refused(lambda: ckptfmt.verify_signature(tmp_path / "c", public, signature=tmp_path / "s.sig"))
        == "other-checkpoint"
    )


def test_what_model_signing_signs_is_not_taken_for_what_is_read(saved: Path) -> None:  # [SIG-010]
    private, public = pair(saved.parent, kind="p256")
    ckptfmt.sign(saved, private, form="model-signing")
    assert refused(lambda: ckptfmt.load(saved, trust=public)) == "bad-signature"
    assert ckptfmt.verify_signature(saved, public).form == "model-signing"
    assert (
        refused(lambda: ckptfmt.sign(saved, pair(saved.parent, "e")[0], form="model-signing"), InputError) == "bad-key"
    )


# ---- the command line


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli, list(map(str, arguments)))


def test_the_commands(saved: Path) -> None:
    private, public = pair(saved.parent)
    assert run("verify", "--signed-by", public, saved).exit_code == 1
    assert run("sign", "--key", private, saved).exit_code == 0
    done = run("verify", "--signed-by", public, saved)
    assert (done.exit_code, "signed" in done.output, "whole" in done.output) == (0, True, True)
    done = run("verify", "--signed-by", public, "--signature-only", "--json", saved)
    assert json.loads(done.output)["signatures"][0]["form"] == "ckptfmt"
    assert run("verify", "--signed-by", pair(saved.parent, "other")[1], saved).exit_code == 1
    assert run("verify", "--signature-only", saved).exit_code == 2
    ckptfmt.save(saved.parent / "weak.ckpt", TREE)
    assert run("sign", "--key", private, saved.parent / "weak.ckpt").exit_code == 1
    assert run("convert", "--digest", "sha256", saved.parent / "weak.ckpt", saved.parent / "strong.ckpt").exit_code == 0
    assert run("sign", "--key", private, saved.parent / "strong.ckpt").exit_code == 0


def test_cryptography_is_named_where_it_is_missing(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = pair(saved.parent)
    ckptfmt.sign(saved, private)
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    for call in (lambda: ckptfmt.sign(saved, private), lambda: ckptfmt.load(saved, trust=public)):
        with pytest.raises(ckptfmt.UnsupportedError, match=r"ckptfmt\[sign\]"):
            call()
    assert ckptfmt.load(saved)["w"][1] == 1
