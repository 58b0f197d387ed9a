"""The examples run as a user would run them, and say what they promise; those in documents fit SPEC.md."""

from programs import EXAMPLES, run


def test_training_resumes_to_the_bit(tmp_path):
    straight, stopped = tmp_path / "straight.ckpt", tmp_path / "stopped.ckpt"
    for checkpoint, steps in ((straight, 4), (stopped, 2), (stopped, 4)):
        options = ["--checkpoint", checkpoint, "--steps", steps, "--save-every", 2]
        done = run(EXAMPLES / "training.py", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert straight.read_bytes() == stopped.read_bytes()


def test_few_activations_give_the_losses_of_all(tmp_path):
    options = ["--depth", 100, "--rounds", 2, "--memory", 10]
    done = run(EXAMPLES / "recompute_training.py", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the same to the bit: True" in done.stdout
    assert int(done.stdout.split()[-1].rstrip("%")) < 33


def test_digits_tells_its_story_and_cleans_up(tmp_path):
    done = run(EXAMPLES / "digits.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "18 tensors, 6,724,638 elements, 25.7 MiB" in done.stdout  # from `ckptfmt inspect`
    for claim in (
        "the signal hit during a save: its temporary file is still there",
        "no reader takes the temporary for a checkpoint",
        "digits.ckpt is the whole checkpoint of the save before, at step ",
        "the two files are bit-identical",
        "verified, they took one block: 4,194,304 of ",
        "with verify=False, just 409,600 bytes",
        "its model/1/weight is the same array, read without any code of ours",
        "the damage is found, and its tensor and block are named",
        "the other 17 tensors still load, and are intact",
    ):
        assert f" ✓ {claim}" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_digits_fails_at_a_claim_that_does_not_hold(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import digits; digits.check('so it is', False)"
    done = run("-c", code, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == " ✗ FAILED: so it is\n"


def test_quickstart(tmp_path):
    done = run(EXAMPLES / "quickstart.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("saved 5 tensors in 10,")
    assert lines[1:4] == [
        "tied weights stay tied: True",
        "a tuple stays a tuple: (0.9, 0.95)",
        "metadata: {'loss': 2.31}",
    ]
    assert lines[4] == "a tensor: <Tensor 'model/layers/0/weight' bfloat16 (64, 64)>"
    assert lines[5].startswith("a slice: (10, 128), 4,194,304 bytes read of 10,")
    assert lines[6:] == [
        "selected: ['layers']",
        "filled in place: True",
        "mapped: (20000, 128)",
        "verified: True",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"]
