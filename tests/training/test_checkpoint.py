"""Checkpoints and files of weights: whole or not there, and one sentence about what is wrong with one."""

import dataclasses
import io
import os
import re
import tracemalloc
import zipfile

import pytest
import torch
from cases import case
from lightning.fabric.plugins import TorchCheckpointIO
from small_runs import RECIPE, fit, model, trainer_of

from rstg_pyg import FrameCNN, RSTGToVec, VideoClassifier
from rstg_pyg.files import replace_file
from rstg_pyg.training import (
    CheckpointError,
    ClipClassifier,
    Phase,
    SyncMNISTData,
    load_model_weights,
    read_checkpoint,
    save_weights,
)
from rstg_pyg.training.metrics import read_rows
from rstg_pyg.training.weights import read_file, write_file


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a checkpoint, and the classifier that made it."""
    folder = tmp_path_factory.mktemp("run")
    return folder, fit(folder, max_epochs=1)


def refit(folder, checkpoint, module=None):
    module = ClipClassifier(model(), RECIPE) if module is None else module
    data = SyncMNISTData(folder, RECIPE, digits="sklearn")
    trainer_of(folder, RECIPE).fit(module, data, ckpt_path=checkpoint, weights_only=True)


def test_a_checkpoint_says_what_it_is_of(run):
    folder, module = run
    checkpoint = read_checkpoint(folder / "last.ckpt", module)
    assert checkpoint["config"]["recipe"]["batch_size"] == 4
    assert checkpoint["config"]["recipe"]["phases"][0]["target"] == "in-step"
    assert checkpoint["global_step"] == 3
    named = ClipClassifier(model(), RECIPE, {"model": "tiny", "seed": 3, "scales": (2, 1)})
    assert named.config == {"model": "tiny", "seed": 3, "scales": [2, 1], "recipe": module.config["recipe"]}


def damaged(content, how):
    if how == "cut off":
        return content[: len(content) // 2]
    if how == "one byte":
        middle = len(content) // 2
        return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    other = io.BytesIO()
    if how == "other zip":
        with zipfile.ZipFile(other, "w") as file:
            file.writestr("a.txt", "a")
    elif how == "code":
        torch.save({"state_dict": {}, "code": os.system}, other)
    elif how == "tensor":
        torch.save(torch.ones(2), other)
    elif how == "plain":
        torch.save({"a": 1, "b": 2, "c": 3, "d": 4}, other)
    elif how == "weights":
        torch.save({"config": {}, "state_dict": {}}, other)
    elif how == "text":
        other.write(b"weights")
    return other.getvalue()


DAMAGE = [
    ("cut off", r"to be a whole checkpoint, got [\d,]+ bytes of a damaged or cut-off one$"),
    ("one byte", r"to be a whole checkpoint, got [\d,]+ bytes of a damaged or cut-off one$"),
    ("empty", "to be a checkpoint, got an empty file$"),
    ("text", "to be a checkpoint, got a file of another kind$"),
    ("other zip", "to be a checkpoint of tensors and plain values, got: "),
    ("code", "to be a checkpoint of tensors and plain values, got: "),
    ("tensor", "to be a checkpoint with a 'state_dict', got a Tensor$"),
    ("plain", "to be a checkpoint with a 'state_dict', got a dict of a, b, c and 1 more$"),
]


def test_a_damaged_file_is_named(run, tmp_path):
    for how, message in DAMAGE:
        with case(how, message):
            path = tmp_path / "bad.ckpt"
            path.write_bytes(damaged((run[0] / "last.ckpt").read_bytes(), how))
            message = f"^expected {path} {message}"
            with pytest.raises(CheckpointError, match=message):
                read_checkpoint(path)
            with pytest.raises(CheckpointError, match=message):
                load_model_weights(path, model())
            with pytest.raises(CheckpointError, match=message):
                refit(tmp_path, path)


def flipped(content, bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.fixture
def small(tmp_path):
    """A small file of weights, and what it holds."""
    path = tmp_path / "small.pt"
    save_weights(torch.nn.Linear(3, 2), path, {"seed": 0})
    return path, read_file(path)


def test_one_flipped_bit_anywhere_and_any_cut_is_found(small):
    path, _ = small
    content = path.read_bytes()
    changes = [flipped(content, bit) for bit in range(0, 8 * len(content), 61)]
    for change in changes + [content[:size] for size in range(0, len(content), 97)] + [content[:-80]]:
        path.write_bytes(change)
        with pytest.raises(CheckpointError, match=f"expected {path} to be a"):
            read_file(path)


def test_a_file_of_torch_alone_is_read_with_its_records_checked(small):
    """Of an earlier version, or of another program."""
    path, held = small
    torch.save(held, path)
    content = path.read_bytes()
    torch.testing.assert_close(read_file(path), held, rtol=0, atol=0)
    directory = content.index(b"PK\1\2")
    # Bit 4 of the attributes says that a record is a folder: torch then reads nothing.
    folders = [8 * (place.start() + 38) + 4 for place in re.finditer(b"PK\1\2", content)]
    for bit in [*folders, *range(8 * directory, 8 * len(content), 47)]:
        path.write_bytes(flipped(content, bit))
        try:
            torch.testing.assert_close(read_file(path), held, rtol=0, atol=0)
        except CheckpointError as error:
            assert str(error).startswith(f"expected {path} to ")


def with_bomb(content):
    """The records anew, compressed, with 16 MB of zeros."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as whole, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in whole.namelist():
            bomb.writestr(name, bytes(2**24) if name.endswith("/data/0") else whole.read(name))
    return packed.getvalue()


def with_large_record(content):
    """A record that says that it has 2 GB."""
    place = content.index(b"PK\1\2") + 24
    return content[:place] + (2**31 - 1).to_bytes(4, "little") + content[place + 4 :]


def test_no_more_is_unpacked_than_the_file_has(tmp_path, monkeypatch):
    for change in [with_bomb, with_large_record]:
        for sealed in [False, True]:
            with case(change, sealed):
                path, content = tmp_path / "bomb.pt", io.BytesIO()
                torch.save({"state_dict": {"weight": torch.ones(9)}}, content)
                hostile = change(content.getvalue())
                path.write_bytes(hostile)
                if sealed:
                    with monkeypatch.context() as patch:
                        patch.setattr(torch, "save", lambda held, file, hostile=hostile: file.write(hostile))
                        write_file(path, {})
                tracemalloc.start()
                with pytest.raises(
                    CheckpointError, match=f"{path} to be a checkpoint as torch writes it, got a compressed one"
                ):
                    read_file(path)
                assert tracemalloc.get_traced_memory()[1] < 2**22
                tracemalloc.stop()


class Large:
    """Pickles as more memory than there is, in a way that loading plain values takes."""

    def __reduce__(self):
        return bytearray, (2**62,)


ENDLESS = {}
ENDLESS["deeper"] = ENDLESS


def test_hostile_values_are_one_sentence(small):
    for changes, message in [
        ({"state_dict": {"weight": Large()}}, "to be a checkpoint of tensors and plain values, got: MemoryError"),
        ({"config": None}, "to hold a dict as 'config', got a NoneType"),
        ({"state_dict": {3: torch.ones(1)}}, "to hold the .* got those of another: no weight, bias; 3 on top"),
        (
            {"state_dict": {"weight": "text", "bias": torch.ones(2)}},
            "to hold finite weights .*, got a str in weight",
        ),
        (
            {"state_dict": {"weight": torch.ones(2, 3).to_sparse(), "bias": torch.ones(2)}},
            "to be a file of weights, got: Could not run",
        ),
    ]:
        with case(changes, message):
            path, held = small
            write_file(path, {**held, **changes})
            with pytest.raises(CheckpointError, match=f"^expected {path} {message}"):
                load_model_weights(path, torch.nn.Linear(3, 2))


def test_a_hostile_checkpoint_is_one_sentence(run, tmp_path):
    for changes, message in [
        ({"config": ENDLESS}, "to be a file of settings, got: maximum recursion depth"),
        ({"optimizer_states": None}, "to hold 'optimizer_states' as list, got NoneType"),
        ({"optimizer_states": [{"muon": {}, "adamw": {}}]}, "to hold states of optimisers .*: runs that"),
        ({"global_step": "3"}, "to hold 'global_step' as int, got str"),
    ]:
        with case(changes, message):
            path = tmp_path / "last.ckpt"
            content = {**read_file(run[0] / "last.ckpt"), **changes}
            write_file(path, content)
            with pytest.raises(CheckpointError, match=f"^expected {path} {message}"):
                read_checkpoint(path, run[1])


def test_weights_that_are_not_finite_numbers_are_refused(small):
    for value, model_type, fault in [
        (torch.full((2,), torch.nan), torch.float32, "values that are not finite"),
        (torch.tensor([0.0, -torch.inf]), torch.float32, "values that are not finite"),
        (torch.tensor([1e6, 0.0]), torch.float16, "values that are not finite"),
        (torch.ones(2, dtype=torch.complex64), torch.float32, "torch.complex64 instead of torch.float32"),
        (torch.ones(2, dtype=torch.int64), torch.float32, "torch.int64 instead of torch.float32"),
    ]:
        with case(value, model_type, fault):
            path, held = small
            held["state_dict"]["bias"] = value
            write_file(path, held)
            layer = torch.nn.Linear(3, 2).to(model_type)
            before = {name: value.clone() for name, value in layer.state_dict().items()}
            with pytest.raises(CheckpointError) as error:
                load_model_weights(path, layer)
            assert (
                str(error.value) == f"expected {path} to hold finite weights of the model's kind, got {fault} in bias"
            )
            torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)


def test_weights_alone_are_nothing_to_go_on_from(run, tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(damaged(b"", "weights"))
    message = "to be a checkpoint of a training run, got a dict of config, state_dict without random_seed, global_step"
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_no_file_is_an_error_of_the_system(tmp_path):
    for read in (read_checkpoint, lambda path: load_model_weights(path, model())):
        with pytest.raises(FileNotFoundError, match=r"none\.ckpt"):
            read(tmp_path / "none.ckpt")


def test_a_checkpoint_of_other_settings_is_refused(run, tmp_path):
    path = run[0] / "last.ckpt"
    recipe = dataclasses.replace(RECIPE, lr=0.1, phases=(Phase(30),))
    other = ClipClassifier(model(), recipe, {"seed": 1})
    for go_on in (lambda: read_checkpoint(path, other), lambda: refit(tmp_path, path, other)):
        with pytest.raises(CheckpointError) as error:
            go_on()
        text = str(error.value)
        assert text.startswith(f"{path} belongs to a run with other settings (seed='nothing' there, 1 now; phases=[")
        assert text.endswith("lr=0.003 there, 0.1 now)")
    with pytest.raises(CheckpointError, match=re.escape("(seed=1 there, 'nothing' now)")):
        there = ClipClassifier(model(), RECIPE, {"seed": 1}).config
        path = tmp_path / "other.ckpt"
        torch.save({**torch.load(run[0] / "last.ckpt", weights_only=True), "config": there}, path)
        read_checkpoint(path, run[1])


def test_a_checkpoint_of_another_model_is_refused(run, tmp_path):
    path = run[0] / "last.ckpt"
    wide = VideoClassifier(FrameCNN(1, (4, 6)), RSTGToVec(6, 4, scales=(2, 1), num_stages=1), num_classes=46)
    other = ClipClassifier(wide, RECIPE)
    count = len(other.state_dict())
    for go_on in (lambda: read_checkpoint(path, other), lambda: refit(tmp_path, path, other)):
        with pytest.raises(CheckpointError) as error:
            go_on()
        assert str(error.value).startswith(
            f"expected {path} to hold the {count} tensors of this model, got those of another: "
            "no model.block.lin_in.weight, model.block.lin_in.bias; model.block.rstg."
        )
        assert "model.backbone.layers.3.weight of shape [4, 4, 3, 3] instead of [6, 4, 3, 3]" in str(error.value)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(run, tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    path.write_bytes((run[0] / "last.ckpt").read_bytes())
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            replace_file(path, b"new")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    with pytest.raises(OSError, match=r"last\.ckpt"):
        replace_file(path / "below" / "last.ckpt", b"new")


def test_a_checkpoint_gets_its_name_once_it_is_whole_and_the_rows_of_its_steps_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(TorchCheckpointIO, "save_checkpoint", lambda *args, **kwargs: pytest.fail("Lightning's way"))
    seen = []
    replace = os.replace

    def spy(source, target):
        if str(target).endswith(".ckpt"):
            row = read_rows(tmp_path / "metrics.csv")[-1]
            seen.append((source.parent, zipfile.ZipFile(source).testzip(), row["step"], "val_loss" in row))
        replace(source, target)

    monkeypatch.setattr("rstg_pyg.files.os.replace", spy)
    fit(tmp_path)
    assert seen == [(tmp_path, None, step, True) for step in (3, 6, 9)]


def test_two_that_write_one_file_do_not_share_what_is_not_whole_yet(tmp_path, monkeypatch):
    path, replace = tmp_path / "last.ckpt", os.replace

    def meanwhile(source, target):
        monkeypatch.setattr(os, "replace", replace)
        replace_file(path, b"of the other")
        replace(source, target)

    monkeypatch.setattr(os, "replace", meanwhile)
    replace_file(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_folder_is_an_error_of_the_system(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=str(tmp_path / "file")):
        fit(tmp_path / "file")


def test_weights_come_back(tmp_path):
    for dtype in [None, torch.float16, torch.bfloat16]:
        with case(dtype):
            net, path = model(input_norm="batch_norm"), tmp_path / "folder" / "weights.pt"
            save_weights(net, path, {"model": "tiny", "scales": (2, 1)}, dtype)
            again = model(input_norm="batch_norm")
            with torch.no_grad():
                for value in again.state_dict().values():
                    value.zero_()
            assert load_model_weights(path, again) == {"model": "tiny", "scales": [2, 1]}
            for (name, value), other in zip(net.state_dict().items(), again.state_dict().values(), strict=True):
                rounded = value.to(dtype).to(value.dtype) if dtype and value.is_floating_point() else value
                torch.testing.assert_close(other, rounded, rtol=0, atol=0, msg=name)
            assert {value.dtype for value in again.parameters()} == {torch.float32}
            if dtype:
                save_weights(net, tmp_path / "full.pt", {})
                assert path.stat().st_size < (tmp_path / "full.pt").stat().st_size


def test_the_weights_of_a_checkpoint_can_be_tested(run):
    folder, module = run
    net = model()
    assert load_model_weights(folder / "last.ckpt", net) == module.config
    torch.testing.assert_close(net.state_dict(), module.model.state_dict(), rtol=0, atol=0)


def test_weights_that_do_not_fit(tmp_path):
    net = torch.nn.Linear(2, 2)
    with torch.no_grad():
        net.weight.fill_(1e6)
    with pytest.raises(ValueError, match=r"expected values that fit into torch\.float16, got larger ones in weight"):
        save_weights(net, tmp_path / "weights.pt", dtype=torch.float16)
    with torch.no_grad():
        net.weight[0] = torch.nan
    with pytest.raises(ValueError, match="expected finite weights, got others in weight"):
        save_weights(net, tmp_path / "weights.pt")
    with torch.no_grad():
        net.weight.fill_(1e6)
    for setting in (net, float("nan")):
        with pytest.raises(ValueError, match="expected 'config' to hold dicts, lists, strings and finite numbers"):
            save_weights(net, tmp_path / "weights.pt", {"setting": setting})
    assert not list(tmp_path.iterdir())
    save_weights(net, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"weight of shape \[2, 2\] instead of \[3, 2\], bias of shape \[2\]"):
        load_model_weights(tmp_path / "weights.pt", torch.nn.Linear(2, 3))
    with pytest.raises(CheckpointError, match="to hold the 1 tensors of this model, got those of another: bias on top"):
        load_model_weights(tmp_path / "weights.pt", torch.nn.Linear(2, 2, bias=False))
