"""Bad input ends the example for videos with one sentence and code 2, and leaves what was there as it was."""

import pytest
import torch
from cases import case
from example_scripts import EXAMPLES, check_refused, end_of, load_example, run_example
from process_settings import process_settings
from small_videos import damage, make_small_videos

TINY = [
    *["--clips", "4", "--batch-size", "2", "--num-frames", "4", "--size", "32", "--val-clips", "3"],
    *["--width", "4", "--channels", "8", "--workers", "0", "--device", "cpu"],
]


@pytest.fixture(scope="module")
def example():
    return load_example("something_something")


@pytest.fixture
def run(example, root, tmp_path, monkeypatch, capsys):
    """Run the example in this process, in a folder of its own."""

    def command(*options):
        monkeypatch.chdir(tmp_path)
        return end_of(example, [*TINY, "--root", str(root), "--out", "run", *options], capsys)

    return command


def test_bad_options(run, tmp_path):
    for options, parts in [
        (["--model", "i3d+rstg:res5"], ["'i3d+rstg:res5' (did you mean 'i3d+rstg:res"]),
        (["--num-frames", "5"], ["expected 'num_frames' to be even, got 5"]),
        (["--clips", "0"], ["'clips' to be a positive int, got 0"]),
        (["--epochs", "0", "--clips", "3"], ["not allowed with argument"]),
        (["--accumulate", "0"], ["'accumulate' to be a positive int, got 0"]),
        (["--batch-size", "5"], ["'batch_size' to be at most 4 (clips, chunk), got 5"]),
        (["--clips", "40", "--batch-size", "11"], ["as many clips per step as the 10 videos, got 11"]),
        (["--size", "0"], ["'size' to be a positive int, got 0"]),
        (["--scale", "0.5", "1"], ["'scale' to be two numbers of at least 1, in order, got (0.5, 1.0)"]),
        (["--views", "3"], ["argument --views: invalid choice: '3'"]),
        (["--version", "v2"], ["expected the annotation file something-something-v2-labels.json or labels.json in"]),
        (["--workers", "-1"], ["expected --workers to be at least 0, got -1"]),
        (["--devices", "3"], ["'batch_size' to be a multiple of the 3 processes, got 2"]),
        (["--max-minutes", "-1"], ["'max_minutes' to be above 0, got -1.0"]),
        (["--max-damaged", "-1"], ["'max_damaged' to be an integer of at least 0, got -1"]),
        (["--video-dir", "none"], [f"expected a folder of videos {tmp_path}/none, got none"]),
        (["--weights", "none.pt"], ["none.pt"]),
        (["--image-weights", "none.pth"], ["none.pth"]),
        (["--preset", "large"], ["invalid choice: 'large'"]),
        (["--colour", "red"], ["unrecognized arguments: --colour red"]),
    ]:
        with case(options, parts):
            check_refused(run(*options), *parts)
            assert list(tmp_path.iterdir()) == []


def test_a_run_that_diverges_leaves_no_weights(run, tmp_path):
    done = run("--optimizer", "nesterov", "--lr", "1e30", "--gradient-clip", "0")
    check_refused(done, "expected a finite", "the last checkpoint is intact")
    assert not (tmp_path / "run" / "weights.pt").exists()


def test_without_videos_it_says_how_to_make_some(run, tmp_path):
    advice = "--make makes a small data set of this form there"
    check_refused(run("--root", "nowhere"), f"something-something-v1-labels.csv in {tmp_path}/nowhere", advice)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_cuda(run, tmp_path):
    check_refused(run("--device", "cuda"), "torch sees no CUDA device (try --device cpu)")
    assert not (tmp_path / "run").exists()


def test_weights_for_images_that_do_not_fit(run, tmp_path):
    for content in [b"a letter", None]:
        with case(content):
            path = tmp_path / "images.pth"
            if content is None:
                torch.save({"state_dict": {"layer1.0.conv1.weight": torch.zeros(4, 4, 3, 3)}}, path)
            else:
                path.write_bytes(content)
            part = (
                "expected images.pth to be a state_dict of tensors, got: "
                if content
                else "expected weights of a ResNet-18 for images"
            )
            check_refused(run("--image-weights", "images.pth"), part)
            assert not (tmp_path / "run").exists()


def test_more_damaged_videos_than_allowed_are_named_in_one_sentence(run, tmp_path):
    damage(make_small_videos(tmp_path / "videos"), 3, 5)
    options = ["--root", str(tmp_path / "videos"), "--max-damaged", "0", "--clips", "10", "--workers", "1"]
    _, code, last = run(*options)
    assert code == 2
    assert last.startswith("something_something.py: expected at most max_damaged=0 damaged videos, found 1 of 10: ")


@pytest.fixture(scope="module")
def trained(example, root, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    with process_settings():
        assert run_example(example, [*TINY, "--root", str(root), "--out", str(out)]) == 0
    return {name: (out / name).read_bytes() for name in ("last.ckpt", "weights.pt")}


def spoil(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def test_a_checkpoint_that_does_not_fit_stays_as_it_is(run, tmp_path, trained):
    for change, options, parts in [
        (spoil, [], ["last.ckpt to be a whole checkpoint", "damaged or cut-off"]),
        (lambda content: content[:1000], [], ["last.ckpt to be a whole checkpoint, got 1,000 bytes"]),
        (lambda content: b"a letter", [], ["got a file of another kind"]),
        (lambda content: content, ["--model", "c2d"], ["model='c2d+rstg:vec' there, 'c2d' now"]),
        (lambda content: content, ["--num-stages", "2"], ["network.num_stages=1 there, 2 now"]),
        (lambda content: content, ["--lr", "0.5"], ["lr=0.003 there, 0.5 now"]),
        (lambda content: content, ["--num-frames", "6"], ["num_frames=4 there, 6 now"]),
    ]:
        with case(change, options, parts):
            path = tmp_path / "run" / "last.ckpt"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(change(trained["last.ckpt"]))
            check_refused(run(*options), *parts)
            assert path.read_bytes() == change(trained["last.ckpt"])
            assert {file.name for file in path.parent.iterdir()} == {"last.ckpt", "run.lock"}


def test_weights_that_do_not_fit(run, tmp_path, trained):
    for change, options, parts in [
        (spoil, [], ["weights.pt to be a whole checkpoint"]),
        (lambda content: content, ["--model", "c2d"], ["weights.pt holds the network c2d+rstg:vec, not c2d"]),
        (
            lambda content: content,
            ["--width", "6"],
            ["weights.pt to hold the", "tensors of this model, got those of anot"],
        ),
    ]:
        with case(change, options, parts):
            (tmp_path / "weights.pt").write_bytes(change(trained["weights.pt"]))
            check_refused(run("--weights", "weights.pt", *options), *parts)
            assert not (tmp_path / "run").exists()


def test_weights_of_another_task(run):
    path = EXAMPLES.parent / "weights" / "syncmnist_small.pt"
    said = "to hold a network of the task 'something-something', got one of 'positional'"
    check_refused(run("--weights", str(path)), said)


def test_weights_of_other_classes(run, tmp_path, trained):
    (tmp_path / "weights.pt").write_bytes(trained["weights.pt"])
    make_small_videos(tmp_path / "videos")
    for path in (tmp_path / "videos").glob("*.csv"):
        path.write_text(path.read_text().replace("Moving something up", "Lifting something"))
    done = run("--weights", "weights.pt", "--root", "videos")
    check_refused(done, "expected videos of the 6 classes of weights.pt, got others in videos")
