"""Folders as people have them: the one checkpoint in it is taken, or those that there are are named."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.serialization
import flax.training.checkpoints
import gguf
import h5py
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest
import safetensors.numpy
from click.testing import CliRunner
from peers import peer

import ckptfmt
from ckptfmt.cli.app import cli

torch = peer("torch")
transformers = peer("transformers")

ONE, OTHER = {"w": np.arange(3, dtype=np.float32)}, {"w": np.zeros(5, np.float32)}


def write(path: Path, tree: dict[str, Any] = ONE) -> None:
    """A file of the kind that its name says, as the library of that kind writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".safetensors":
            safetensors.numpy.save_file(tree, path, {"format": "pt"})
        case ".bin" | ".pt" | ".pth":
            torch.save({key: torch.from_numpy(value.copy()) for key, value in tree.items()}, path)
        case ".ckpt":
            ckptfmt.save(path, tree)
        case ".msgpack":
            path.write_bytes(flax.serialization.msgpack_serialize(tree))
        case ".h5":
            with h5py.File(path, "w") as file:
                file.update(tree)
        case ".npz":
            np.savez(path, **tree)
        case _:
            path.write_text("{}")


OTHERS = ("README.md", "config.json", "tokenizer.json")  # of every folder below


def folder(path: Path, *names: str, **trees: dict[str, Any]) -> Path:
    path.mkdir(exist_ok=True)
    for name in names:
        write(path / name)
    for name in (*OTHERS, ".gitattributes"):
        write(path / name)
    return path


def sharded(path: Path, ending: str = ".safetensors", stem: str = "model") -> Path:
    """Two files and their index, as transformers writes them."""
    shards = {f"{stem}-0000{n}-of-00002{ending}": {f"w{n}": np.full(3, n, np.float32)} for n in (1, 2)}
    for name, tree in shards.items():
        write(path / name, tree)
    index = {"metadata": {"total_size": 24}, "weight_map": {key: name for name, tree in shards.items() for key in tree}}
    (path / f"{stem}{ending}.index.json").write_text(json.dumps(index))
    return path


def converted(source: Path, **options: Any) -> tuple[ckptfmt.ConvertReport, Any]:
    with tempfile.TemporaryDirectory() as folder:
        report = ckptfmt.convert(source, f"{folder}/converted.ckpt", durable=False, **options)
        return report, ckptfmt.load(f"{folder}/converted.ckpt")


def refused(source: Path, code: str, **options: Any) -> ckptfmt.CkptError:
    with pytest.raises(ckptfmt.CkptError) as raised:
        ckptfmt.convert(source, source.parent / "refused.ckpt", **options)
    assert raised.value.code == code, raised.value
    return raised.value


RUN = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin")
# the files of a folder, and the one of them that is taken; the others that look like weights are named
TAKEN = {
    "transformers": (["model.safetensors"], "model.safetensors"),
    "diffusers": (["diffusion_pytorch_model.safetensors"], "diffusion_pytorch_model.safetensors"),
    "peft": (["adapter_model.safetensors"], "adapter_model.safetensors"),
    "lora": (["pytorch_lora_weights.safetensors"], "pytorch_lora_weights.safetensors"),
    "of old": (["pytorch_model.bin"], "pytorch_model.bin"),
    "both forms": (["pytorch_model.bin", "model.safetensors"], "model.safetensors"),
    "all frameworks": (["tf_model.h5", "flax_model.msgpack", "pytorch_model.bin"], "pytorch_model.bin"),
    "flax": (["flax_model.msgpack"], "flax_model.msgpack"),
    "a variant": (["model.fp16.safetensors"], "model.fp16.safetensors"),
    "a variant beside": (["model.fp16.safetensors", "model.safetensors"], "model.safetensors"),
    "Trainer": (["model.safetensors", *RUN], "model.safetensors"),
    "Trainer and peft": (["adapter_model.safetensors", *RUN], "adapter_model.safetensors"),
    "accelerate": (["model.safetensors", "optimizer.bin", "scheduler.bin", "sampler.bin"], "model.safetensors"),
    "Llama": (["consolidated.00.pth", "params.json"], "consolidated.00.pth"),
    "one .pt": (["best.pt"], "best.pt"),
    "two forms of one": (["v1-5.ckpt", "v1-5.safetensors"], "v1-5.safetensors"),
    "one .h5": (["model.weights.h5"], "model.weights.h5"),
    "one .npz": (["params.npz", "notes.txt"], "params.npz"),
    "one of ours": (["step-0000000007.ckpt"], "step-0000000007.ckpt"),
    "the state of an optimizer alone": (["optimizer.pt"], "optimizer.pt"),
    "something else beside": (["model.safetensors", "embeddings.pt"], "model.safetensors"),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_the_checkpoint_of_a_folder_is_taken(tmp_path: Path, kind: str) -> None:
    names, expected = TAKEN[kind]
    source = folder(tmp_path / "it", *names)
    report, tree = converted(source)
    assert report.source == str(source / expected)
    assert set(report.passed_over) == {*names, *OTHERS} - {expected}
    weights = [name for name in report.passed_over if not name.endswith((".json", ".txt", ".md"))]
    assert list(report.passed_over[: len(weights)]) == weights
    assert report.losses == ()
    assert list(tree) == ["w"]
    np.testing.assert_array_equal(tree["w"], ONE["w"])
    assert ckptfmt.diff(source, source / expected).equal


def test_an_index_stands_for_its_files(tmp_path: Path) -> None:
    source = sharded(folder(tmp_path / "it", *RUN))
    report, tree = converted(source)
    assert report.source == str(source / "model.safetensors.index.json")
    assert set(tree) == {"w1", "w2"}
    sharded(source, ".bin", "pytorch_model")
    report, _ = converted(source)
    assert report.source == str(source / "model.safetensors.index.json")
    assert "pytorch_model.bin.index.json" in report.passed_over
    assert converted(source, source_format="torch")[0].source == str(source / "pytorch_model.bin.index.json")


def test_one_file_comes_before_an_index(tmp_path: Path) -> None:
    """As in transformers, which looks for it first."""
    source = sharded(folder(tmp_path / "it", "model.safetensors"))
    report, tree = converted(source)
    assert report.source == str(source / "model.safetensors")
    assert report.passed_over == ("model.safetensors.index.json", *OTHERS)
    assert list(tree) == ["w"]


def test_a_form_that_was_not_fetched_gives_way_to_one_that_was(tmp_path: Path) -> None:
    source = folder(tmp_path / "it", "pytorch_model.bin")
    (source / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert converted(source)[0].source == str(source / "pytorch_model.bin")


def test_shards_without_their_index_are_named(tmp_path: Path) -> None:
    source = sharded(folder(tmp_path / "it"))
    (source / "model.safetensors.index.json").unlink()
    message = str(refused(source, "ambiguous-source"))
    assert "model-00001-of-00002.safetensors (safetensors), model-00002-of-00002.safetensors (safetensors)" in message


def test_several_are_named_and_none_is_taken(tmp_path: Path) -> None:
    source = folder(tmp_path / "run", "last.pt", "best.pt", "epoch 3.ckpt")
    error = refused(source, "ambiguous-source")
    assert "has 3 checkpoints, of which none comes first: best.pt (torch), epoch 3.ckpt (ckptfmt), last.pt" in str(
        error
    )
    assert error.advice == f"Give the path of one, such as {source}/last.pt"
    assert converted(source, source_format="ckptfmt")[0].source == str(source / "epoch 3.ckpt")
    assert refused(source, "ambiguous-source", source_format="torch").message.count("(torch)") == 2


def test_the_runs_of_a_trainer(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    folder(run / "checkpoint-500", "model.safetensors", *RUN)
    report, _ = converted(run)
    assert report.source == str(run / "checkpoint-500" / "model.safetensors")
    assert set(report.passed_over) == {*RUN, *OTHERS}
    folder(run / "checkpoint-1000", "model.safetensors", *RUN)
    error = refused(run, "ambiguous-source")
    names = "checkpoint-500/model.safetensors (safetensors), checkpoint-1000/model.safetensors (safetensors)"
    assert names in error.message
    assert error.advice.endswith("checkpoint-1000/model.safetensors")
    write(run / "model.safetensors")  # what was saved at the end
    assert converted(run)[0].source == str(run / "model.safetensors")


def test_the_root_of_an_orbax_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with orbax.checkpoint.CheckpointManager(run) as manager:
        manager.save(900, args=orbax.checkpoint.args.StandardSave({"w": jnp.arange(3, dtype=jnp.float32)}))
        manager.wait_until_finished()
        report, tree = converted(run)
        assert (report.source, report.source_format) == (str(run / "900"), "orbax")
        np.testing.assert_array_equal(tree["w"], ONE["w"])
        manager.save(1000, args=orbax.checkpoint.args.StandardSave({"w": jnp.zeros(3)}))
        manager.wait_until_finished()
    report, tree = converted(run)  # as Orbax restores the latest step
    assert (report.source, report.passed_over) == (str(run / "1000"), ("900",))
    np.testing.assert_array_equal(tree["w"], np.zeros(3))
    shutil.copytree(run / "900", run / "2000.orbax-checkpoint-tmp-1")
    assert converted(run)[0].source == str(run / "1000")
    shutil.copytree(run / "900", run / "best")
    assert "best (orbax)" in refused(run, "ambiguous-source").message


@pytest.mark.filterwarnings("default")  # flax's own
@pytest.mark.parametrize("format", ["flax", "orbax"])
def test_the_run_of_flax(tmp_path: Path, format: str) -> None:
    """Files without a suffix, or directories, of which flax restores the latest."""
    before = flax.config.flax_use_orbax_checkpointing
    flax.config.update("flax_use_orbax_checkpointing", format == "orbax")
    try:
        for step in (9, 80, 100):
            tree = {"w": np.full(3, step, np.float32)}
            flax.training.checkpoints.save_checkpoint(tmp_path / "run", tree, step, keep=9)
            report, found = converted(tmp_path / "run")
            assert (report.source, report.source_format) == (str(tmp_path / "run" / f"checkpoint_{step}"), format)
            np.testing.assert_array_equal(found["w"], tree["w"])
    finally:
        flax.config.update("flax_use_orbax_checkpointing", before)
    assert report.passed_over == ("checkpoint_9", "checkpoint_80")
    if format == "flax":
        write(tmp_path / "run" / "best.pt")
        assert "best.pt (torch)" in refused(tmp_path / "run", "ambiguous-source").message


@pytest.mark.parametrize("names", [["epoch=0-step=3.ckpt"], ["epoch=0-step=3.ckpt", "last.ckpt"]], ids=len)
def test_the_run_of_lightning(tmp_path: Path, names: list[str]) -> None:
    """What it saved last it calls `last.ckpt`, beside the best ones: which is wanted is for people to say."""
    run = tmp_path / "lightning_logs" / "version_0"
    (run / "checkpoints").mkdir(parents=True)
    write(run / "hparams.yaml")
    for name in names:
        torch.save({"epoch": 0, "state_dict": {"w": torch.ones(2)}, "optimizer_states": []}, run / "checkpoints" / name)
    for source in (tmp_path, tmp_path / "lightning_logs", run):
        if len(names) == 1:
            report, tree = converted(source, root="state_dict")
            assert report.source == str(run / "checkpoints" / names[0])
            assert list(tree) == ["w"]
        else:
            assert "last.ckpt (torch)" in refused(source, "ambiguous-source").message


def test_the_state_of_a_run_in_folders_of_its_own(tmp_path: Path) -> None:
    """As accelerate writes it with FSDP: a directory of DCP for the model, and one for the optimizer."""
    for name in ("pytorch_model_fsdp_0", "optimizer_0"):
        write(tmp_path / "run" / name / "x.safetensors")
    write(tmp_path / "run" / "scheduler.bin")
    assert converted(tmp_path / "run")[0].source == str(tmp_path / "run" / "pytorch_model_fsdp_0" / "x.safetensors")
    shutil.rmtree(tmp_path / "run" / "pytorch_model_fsdp_0")
    assert converted(tmp_path / "run")[0].source == str(tmp_path / "run" / "optimizer_0" / "x.safetensors")


PIPELINE = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.30.0",
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def pipeline(path: Path, **more: Any) -> Path:
    path.mkdir()
    (path / "model_index.json").write_text(json.dumps({**PIPELINE, **more}))
    for name in ("scheduler", "tokenizer", "feature_extractor"):
        folder(path / name)
    folder(path / "text_encoder", "model.safetensors", "model.fp16.safetensors")
    sharded(folder(path / "unet"), stem="diffusion_pytorch_model")
    folder(path / "vae")
    write(path / "vae" / "diffusion_pytorch_model.bin", {"v": np.full(2, 3, np.float32)})
    return path


def test_a_pipeline_is_one_tree(tmp_path: Path) -> None:
    """A key for each model, whatever its form; what has no weights is passed over."""
    source = pipeline(tmp_path / "it")
    report, tree = converted(source)
    assert (report.source, report.source_format, report.losses) == (str(source), "diffusers", ())
    assert {name: sorted(of) for name, of in tree.items()} == {
        "text_encoder": ["w"], "unet": ["w1", "w2"], "vae": ["v"]
    }  # fmt: skip
    np.testing.assert_array_equal(tree["unet"]["w2"], np.full(3, 2, np.float32))
    assert converted(source, root="unet")[1].keys() == {"w1", "w2"}
    assert converted(tmp_path)[0].source == str(source)


def test_a_pipeline_of_which_something_is_missing(tmp_path: Path) -> None:
    source = pipeline(tmp_path / "it", safety_checker=["diffusers", "Checker"])
    assert "safety_checker" in refused(source, "lossy").message
    assert len(converted(source, allow_loss="missing")[1]) == 3
    (source / "unet" / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    assert "which is missing" in refused(source, "bad-source").message
    shutil.rmtree(source)
    source.mkdir()
    (source / "model_index.json").write_text(json.dumps(PIPELINE))
    folder(source / "vae")
    refused(source, "unknown-format", allow_loss=True)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"../it2": ["a", "b"]}, "unsafe-source"),
        ({"..": ["a", "b"]}, "unsafe-source"),
        ({"a\0b": ["a", "b"]}, "lossy"),
        ({"linked": ["a", "b"]}, "unsafe-source"),
        ({"inside": ["a", "b"]}, "unsafe-source"),
        ({"pipeline": ["a", "b"]}, "bad-source"),
    ],
)
def test_a_pipeline_that_leads_out(tmp_path: Path, more: dict[str, Any], code: str) -> None:
    folder(tmp_path / "it2", "model.safetensors")
    source = pipeline(tmp_path / "it", **more)
    (source / "linked").symlink_to(tmp_path / "it2")
    (source / "inside").symlink_to(source)  # in a circle
    pipeline(source / "pipeline")
    refused(source, code)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"unet": ["a", "b"], "unet": ["a", "b"]}', "[" * 9999])
def test_a_broken_index_of_a_pipeline(tmp_path: Path, text: str) -> None:
    source = pipeline(tmp_path / "it")
    (source / "model_index.json").write_text(text)
    refused(source, "bad-source")


def test_a_cache_of_hugging_face(tmp_path: Path) -> None:
    repository = tmp_path / "models--a--b"
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    write(repository / "model.safetensors")
    (repository / "model.safetensors").rename(repository / "blobs" / "ffff")
    (snapshot / "model.safetensors").symlink_to("../../blobs/ffff")
    for source in (snapshot, repository):
        assert converted(source)[0].source == str(snapshot / "model.safetensors")


def test_the_parts_of_a_gguf_model_are_one(tmp_path: Path) -> None:
    source = folder(tmp_path / "it")
    writer = gguf.GGUFWriter("model", "llama", split_max_tensors=1)
    for number in range(2):
        writer.add_tensor(f"blk.{number}.w", np.full(32, number, np.float32))
    writer.write_header_to_file(source / "model.gguf")
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    report, tree = converted(source)
    assert report.source == str(source / "model-00001-of-00002.gguf")
    assert len(tree) == 2


def test_a_folder_that_may_not_be_read_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder(tmp_path / "run")
    folder(source / "checkpoint-1", "model.safetensors")
    folder(source / "lost+found")
    listed = os.listdir

    def listdir(path: str) -> list[str]:
        if str(path).endswith("lost+found"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return listed(path)

    monkeypatch.setattr(os, "listdir", listdir)  # root may read anything
    assert converted(source)[0].source == str(source / "checkpoint-1" / "model.safetensors")
    (source / "checkpoint-1" / "model.safetensors").unlink()
    assert "Permission denied" in str(refused(source, "permission"))


def test_the_folders_of_a_pipeline_are_named(tmp_path: Path) -> None:
    source = folder(tmp_path / "pipeline")
    folder(source / "unet", "diffusion_pytorch_model.safetensors")
    folder(source / "vae", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
    folder(source / "scheduler")
    error = refused(source, "ambiguous-source")
    assert "unet/diffusion_pytorch_model.safetensors (safetensors), vae/diffusion_pytorch_model" in error.message
    assert "2 checkpoints" in error.message


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "secret.safetensors")
    source = folder(tmp_path / "it")
    (source / "model.safetensors").symlink_to(tmp_path / "secret.safetensors")
    assert "leads out" in str(refused(source, "unsafe-source"))
    assert converted(tmp_path / "it" / "model.safetensors")[0].tensors == 1  # which the caller named


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "it is empty"),
        (lambda path: folder(path), "it holds '.gitattributes', 'README.md', 'config.json', 'tokenizer.json'"),
        (lambda path: folder(path, *(f"{n}.txt" for n in range(20))), " and 16 more"),
    ],
    ids=["empty", "no weights", "many"],
)
def test_a_folder_without_a_checkpoint_says_what_it_holds(
    tmp_path: Path, make: Callable[[Path], object], words: str
) -> None:
    make(tmp_path / "it")
    assert words in str(refused(tmp_path / "it", "unknown-format"))


def test_folders_are_walked_in_bounds(tmp_path: Path) -> None:
    """Neither a circle of links, nor a deep folder, nor a wide one takes long."""
    (tmp_path / "it" / "a").mkdir(parents=True)
    (tmp_path / "it" / "a" / "circle").symlink_to(tmp_path / "it")
    refused(tmp_path / "it", "unknown-format")
    deep = tmp_path / "it" / Path(*"bcdefghi")
    write(deep / "model.safetensors")
    refused(tmp_path / "it", "unknown-format")
    for number in range(600):
        (tmp_path / "it" / f"n{number}").mkdir()
    refused(tmp_path / "it", "unknown-format")


def test_opening_a_folder_of_others_says_how_to_convert_it(tmp_path: Path) -> None:
    source = folder(tmp_path / "it", "model.safetensors")
    for call in (ckptfmt.open, ckptfmt.load, ckptfmt.verify):
        with pytest.raises(ckptfmt.NotACheckpointError, match=r"with 'model.safetensors' in it") as raised:
            call(source)
        assert raised.value.advice == f"Make a checkpoint of it: ckptfmt convert {source} {source}.ckpt"
    run = folder(tmp_path / "run", "step-1.ckpt", "step-2.ckpt")
    with pytest.raises(ckptfmt.NotACheckpointError, match=r"with 'step-1.ckpt', 'step-2.ckpt' in it") as raised:
        ckptfmt.load(run)
    assert "ckptfmt ls" in raised.value.advice


def test_each_folder_of_a_folder_is_converted(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    folder(runs / "checkpoint-1", "model.safetensors", *RUN)
    folder(runs / "checkpoint-2", "pytorch_model.bin", *RUN)
    folder(runs / "logs")
    outcomes = ckptfmt.convert_each(runs, tmp_path / "out")
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert sorted(os.listdir(tmp_path / "out")) == ["checkpoint-1.ckpt", "checkpoint-2.ckpt"]


@pytest.mark.filterwarnings("default::DeprecationWarning")  # of what an old transformers imports
def test_what_a_model_needs_beside_its_weights_is_named(tmp_path: Path) -> None:
    """A folder of transformers, one of peft, and one in shards, of which those that were read are not passed over."""
    config = transformers.LlamaConfig(
        hidden_size=8, intermediate_size=16, num_attention_heads=2, num_hidden_layers=1, vocab_size=32
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "llama", max_shard_size="2KB")
    assert converted(tmp_path / "llama")[0].passed_over == ("config.json", "generation_config.json")
    peft = folder(tmp_path / "peft", "adapter_model.safetensors", "adapter_config.json")
    write(peft / "runs" / "events.txt")
    assert converted(peft)[0].passed_over == (
        "README.md",
        "adapter_config.json",
        "config.json",
        "runs/",
        "tokenizer.json",
    )
    for number in range(20):
        write(peft / f"vocab-{number}.txt")
    result = CliRunner().invoke(cli, ["convert", str(peft), str(tmp_path / "x.ckpt")])
    assert "passed over README.md, adapter_config.json" in result.stdout
    assert "and 13 more" in result.stdout


def test_the_command_says_what_it_took(tmp_path: Path) -> None:
    source = folder(tmp_path / "it", "model.safetensors", "pytorch_model.bin", *RUN)
    result = CliRunner().invoke(cli, ["convert", str(source), str(tmp_path / "x.ckpt")])
    assert result.exit_code == 0
    assert f"read {source}/model.safetensors" in result.stdout
    assert "passed over pytorch_model.bin, optimizer.pt" in result.stdout
    result = CliRunner().invoke(cli, ["convert", "--json", "-f", str(source), str(tmp_path / "x.ckpt")])
    assert json.loads(result.stdout)["passed_over"] == ["pytorch_model.bin", *sorted(RUN), *OTHERS]


def test_pickles_and_archives_come_after_what_lies_below(tmp_path: Path) -> None:
    """As those of preprocessors lie beside weights."""
    for name in ("encoder.pkl", "model.pkl", "data.tar.gz", "points.npy"):
        (tmp_path / "m").mkdir(exist_ok=True)
        (tmp_path / "m" / name).write_bytes(pickle.dumps(OTHER))
    write(tmp_path / "m/step-1/weights.npz")
    report, tree = converted(tmp_path / "m")
    assert report.source == str(tmp_path / "m/step-1/weights.npz")
    write(tmp_path / "m/weights.npz")
    report, _ = converted(tmp_path / "m")
    assert report.source == str(tmp_path / "m/weights.npz")
    assert "encoder.pkl" in report.passed_over
    for path in ("weights.npz", "step-1/weights.npz"):
        (tmp_path / "m" / path).unlink()
    report, tree = converted(tmp_path / "m")
    assert report.source == str(tmp_path / "m/model.pkl")
    assert np.array_equal(tree["w"], OTHER["w"])


@pytest.mark.filterwarnings("default")  # of what it imports
def test_a_pipeline_that_diffusers_saves(tmp_path: Path) -> None:
    """And a model of it goes back, in several files as diffusers divides them."""
    diffusers = pytest.importorskip("diffusers")
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    model = diffusers.UNet2DModel(sample_size=8, layers_per_block=1, norm_num_groups=4, **blocks)
    pipeline = diffusers.DDPMPipeline(unet=model, scheduler=diffusers.DDPMScheduler())
    pipeline.save_pretrained(tmp_path / "it")
    report, tree = converted(tmp_path / "it", nest=False)
    assert report.losses == ()
    assert {name: sorted(of) for name, of in tree.items()} == {"unet": sorted(model.state_dict())}
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    diffusers.DDPMPipeline.from_pretrained(tmp_path / "it").unet.save_config(weights.parent)
    ckptfmt.convert(tmp_path / "it", weights, root="unet", max_shard_size="9KB")
    assert (weights.parent / f"{weights.name}.index.json").exists()
    again = diffusers.UNet2DModel.from_pretrained(weights.parent)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())
