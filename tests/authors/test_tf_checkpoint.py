"""Checkpoints of the program: its names and its LSTMs' saved form, written and read with TensorFlow."""

import sys
import types

import numpy as np
import pytest
import torch
from program_network import as_saved, program_logits, program_shapes, random_variables, write_checkpoint

from rstg_pyg.authors import AuthorsVideoNet, load_tf_checkpoint, load_variables, read_tf_checkpoint
from rstg_pyg.authors.tf_checkpoint import NOT_WEIGHTS

NETWORKS = [("c2d", ("final",)), ("i3d", ("final",)), ("i3d", ("res3", "res4"))]


def with_training_state(variables):
    """What a checkpoint of the program holds: the weights, and what goes with them."""
    cells = [name.partition("rnn/multi_rnn_cell")[0] for name in variables if name.endswith("lstm_cell/kernel")]
    beside = {f"{cell}opaque_kernel": np.zeros(7, np.float32) for cell in cells}
    trained = {n: a for n, a in (variables | beside).items() if "/moving_" not in n and "rnn/multi" not in n}
    beside |= {f"{name}/Momentum": np.ones_like(array) for name, array in trained.items()}
    beside["tower/resnet_i3d/backbone/graph_input/resize/resize_filters__28_28_3x3"] = np.zeros((3, 3, 28, 28))
    beside["global_step"] = np.array(1000, np.int64)
    return variables | beside, sorted(beside)


@pytest.fixture
def through_a_checkpoint(tmp_path):
    """Loads variables into a module by way of a checkpoint."""

    def load(module, variables):
        return load_tf_checkpoint(write_checkpoint(tmp_path / "model_1000.ckpt", variables), module)

    return load


def straight(module, variables):
    return load_variables(module, variables, ignore=NOT_WEIGHTS)


def video_net(form, places):
    return AuthorsVideoNet(form, places, num_classes=5, width=2).eval()


def assert_recorded(ours, recorded, key):
    theirs = torch.from_numpy(recorded.arrays[key])
    largest = theirs.abs().max()
    torch.testing.assert_close(ours / largest, theirs / largest, rtol=0, atol=recorded.tolerance)


def check_recorded(recorded, load):
    weights = as_saved(recorded.under("var/"))
    module = recorded.build().train(recorded.training)
    report = load(module, weights)
    assert list(report.placed) == sorted(weights)
    source = "in/video" if recorded.whole_network else "in/feats"
    volume = torch.from_numpy(recorded.arrays[source]).permute(0, 4, 1, 2, 3)
    with torch.no_grad():
        out = module(volume)
    if recorded.whole_network:
        assert_recorded(out, recorded, "out/logits")
    else:
        assert_recorded(out.transpose(0, 1), recorded, "out/final_nodes")


def check_network(form, places, load):
    variables = random_variables(program_shapes(form, places))
    written, beside = with_training_state(variables)
    net = video_net(form, places)
    report = load(net, written)
    assert list(report.placed) == sorted(variables)
    assert list(report.ignored) == beside
    video = torch.randn(1, 3, 4, 64, 64)
    with torch.no_grad():
        expected = program_logits(variables, form, places, video)
        torch.testing.assert_close(net(video), expected, rtol=1e-4, atol=1e-4)


def test_recorded_weights_in_the_saved_form_give_the_recorded_numbers(case, recorded):
    check_recorded(recorded, straight)


@pytest.mark.parametrize(("form", "places"), NETWORKS)
def test_whole_networks_with_all_that_training_leaves_beside_the_weights(form, places):
    check_network(form, places, straight)


def test_a_checkpoint_of_a_block_gives_the_recorded_numbers(recording_of, through_a_checkpoint):
    check_recorded(recording_of("mnist_simple_train"), through_a_checkpoint)


@pytest.mark.parametrize(("form", "places"), NETWORKS)
def test_checkpoints_of_whole_networks(form, places, through_a_checkpoint):
    check_network(form, places, through_a_checkpoint)


def test_recorded_weights_inside_a_whole_network(recording_of):
    """A network whose res3 is as wide as the recording that has the networks' configuration."""
    recorded = recording_of("dot_ln_scalewise_map14")
    graph = "tower/resnet_i3d/backbone/whole_graph_model_res3/"
    shapes = program_shapes("i3d", ("res3",))
    variables = random_variables({name: shape for name, shape in shapes.items() if not name.startswith(graph)})
    weights = as_saved(recorded.under("var/"))
    weights = {name.replace("tower/whole_graph_model_final/", graph): array for name, array in weights.items()}
    net = video_net("i3d", ("res3",))
    straight(net, variables | weights)
    _, branch = net.branch("res3")
    with torch.no_grad():
        nodes = branch.graph(torch.from_numpy(recorded.arrays["in/feats"]).permute(0, 4, 1, 2, 3))
        regions = branch.readout(nodes, size=(14, 14)).permute(0, 2, 3, 4, 1)
    assert_recorded(nodes.transpose(0, 1), recorded, "out/final_nodes")
    assert_recorded(regions, recorded, "out/regions")


def test_an_opaque_kernel_does_not_stand_for_an_lstm():
    variables, _ = with_training_state(random_variables(program_shapes("c2d", ("final",))))
    cell = "tower/resnet_c2d/whole_graph_model_final/cudnn_lstm/"
    left = {name: array for name, array in variables.items() if not name.startswith(f"{cell}rnn/")}
    assert f"{cell}opaque_kernel" in left
    with pytest.raises(ValueError, match=rf"expected for them: {cell}rnn/.*/kernel, {cell}rnn/.*/bias$"):
        straight(video_net("c2d", ("final",)), left)


def test_what_a_file_has_too_much_or_too_little_is_named(through_a_checkpoint):
    variables = random_variables(program_shapes("c2d", ("final",)))
    del variables["tower/resnet_c2d/pred/bias"]
    variables["tower/resnet_c2d/backbone/nonlocal_conv3_1_g/bias"] = np.zeros(8, np.float32)
    expected = (
        "variables without a place: tower/resnet_c2d/backbone/nonlocal_conv3_1_g/bias; "
        "entries that no variable fills: classifier.bias; variables expected for them: tower/resnet_c2d/pred/bias"
    )
    for load in (straight, through_a_checkpoint):
        with pytest.raises(ValueError) as raised:
            load(video_net("c2d", ("final",)), variables)
        assert str(raised.value) == expected


def test_more_names_may_be_ignored_and_kernels_of_another_form_may_not(tmp_path):
    variables = random_variables(program_shapes("i3d"))
    prefix = write_checkpoint(tmp_path / "model_1.ckpt", variables | {"tower/other": np.zeros(1)})
    assert load_tf_checkpoint(prefix, video_net("i3d", ()), ignore=["tower/o*"]).ignored == {"tower/other": "tower/o*"}
    renamed = {name.replace("i3d", "c2d"): array for name, array in variables.items()}
    prefix = write_checkpoint(tmp_path / "model_2.ckpt", renamed)
    with pytest.raises(ValueError, match=r"conv1/kernel' of shape \[1, 7, 7, 3, 2\], got \[5, 7, 7, 3, 2\]"):
        load_tf_checkpoint(prefix, video_net("c2d", ()))


def test_a_checkpoint_is_named_by_its_prefix_a_file_or_its_folder(tmp_path):
    arrays = {"global_step": np.array(3, np.int64), "tower/a/kernel": np.eye(2, dtype=np.float32)}
    prefix = write_checkpoint(tmp_path / "model_3.ckpt", arrays)
    for path in (prefix, f"{prefix}.index", f"{prefix}.data-00000-of-00001", f"{prefix}.meta", tmp_path):
        read = read_tf_checkpoint(path)
        assert read.keys() == arrays.keys()
        assert all(np.array_equal(read[name], array) for name, array in arrays.items())
    write_checkpoint(tmp_path / "model_4.ckpt", arrays)
    with pytest.raises(
        ValueError, match=r"one checkpoint in '.*', got model_3.ckpt, model_4.ckpt: give the path of one"
    ):
        read_tf_checkpoint(tmp_path)


def test_no_checkpoint_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a checkpoint \(a file '\*.index' and its data\) in '.*', got none"):
        read_tf_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"with the file '.*model_1.ckpt.index', got no such file"):
        read_tf_checkpoint(tmp_path / "model_1.ckpt")


def test_a_damaged_checkpoint_is_named(tmp_path, monkeypatch):
    """Whatever kind of error TensorFlow has for it."""

    class DataLossError(Exception):
        pass

    def load_checkpoint(prefix):
        raise DataLossError("Unable to read file\nat all")

    train = types.SimpleNamespace(load_checkpoint=load_checkpoint)
    monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(train=train))
    prefix = tmp_path / "model_1.ckpt"
    prefix.with_name("model_1.ckpt.index").touch()
    with pytest.raises(ValueError) as error:
        read_tf_checkpoint(prefix)
    assert (
        str(error.value) == f"expected {prefix} to be a whole checkpoint of TensorFlow, got: Unable to read file at all"
    )


def test_without_tensorflow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    (tmp_path / "model_1.ckpt.index").touch()
    with pytest.raises(ImportError, match=r"expected TensorFlow, .*, got none: pip install tensorflow"):
        read_tf_checkpoint(tmp_path)
