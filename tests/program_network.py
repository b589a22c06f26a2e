"""The program's video networks, computed in plain formulas from nothing but its variables, and its checkpoints."""

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool3d, batch_norm, conv3d, layer_norm, max_pool3d

from rstg_pyg.authors import AuthorsRSTG, AuthorsToMap, AuthorsToVec, load_variables

SAVED_CELL = "rnn/multi_rnn_cell/cell_0/cudnn_compatible_lstm_cell/"
BLOCKS = {"res2": 3, "res3": 4, "res4": 6, "res5": 3}
STRIDES = {"res2": 1, "res3": 2, "res4": 2, "res5": 1}
TEMPORAL = {
    "i3d": {"conv1": [5], "res2": [3, 3, 3], "res3": [3, 1, 3, 1], "res4": [3, 1, 3, 1, 3, 1], "res5": [1, 3, 1]},
    "c2d": {"conv1": [1], "res2": [1] * 3, "res3": [1] * 4, "res4": [1] * 6, "res5": [1] * 3},
}
WIDTHS = {"res2": 1, "res3": 2, "res4": 4, "res5": 8}


def scope_of(backbone, place):
    """Scope of a block's variables, and what the names of its norm's start with."""
    root = f"tower/resnet_{backbone}/"
    inner = root if place == "final" else f"{root}backbone/"
    norm = "after_graph_ln" if backbone == "c2d" else f"{place}_after_graph_ln"
    return f"{inner}whole_graph_model_{place}/", f"{inner}{norm}"


def program_shapes(backbone, places=(), width=2, num_classes=5):
    """Shapes of all variables by name, LSTMs in the saved form."""
    root = f"tower/resnet_{backbone}/"
    shapes = {}

    def convolution(name, norm, *shape):
        shapes[f"{root}backbone/{name}/kernel"] = shape
        for variable in ("gamma", "beta", "moving_mean", "moving_variance"):
            shapes[f"{root}backbone/{norm}/{variable}"] = shape[-1:]

    convolution("conv1", "res_conv1_bn", TEMPORAL[backbone]["conv1"][0], 7, 7, 3, width)
    before = width
    for stage, count in BLOCKS.items():
        inner = width * WIDTHS[stage]
        for index in range(count):
            name = f"{stage}_{index}_branch"
            length = TEMPORAL[backbone][stage][index]
            convolution(f"{name}2a", f"{name}2a_bn", length, 1, 1, before, inner)
            convolution(f"{name}2b", f"{name}2b_bn", 1, 3, 3, inner, inner)
            convolution(f"{name}2c", f"{name}2c_bn", 1, 1, 1, inner, 4 * inner)
            if index == 0:
                convolution(f"{name}1", f"{name}1_bn", 1, 1, 1, before, 4 * inner)
            before = 4 * inner
    for place in places:
        features = 4 * width * WIDTHS.get(place, 8)
        graph, norm = scope_of(backbone, place)
        shapes |= graph_shapes(graph, 8 * width, None if place == "res3" else features)
        shapes |= {f"{norm}/beta": (features,), f"{norm}_scale": (features,)}
    return shapes | {f"{root}pred/kernel": (1, 1, 1, before, num_classes), f"{root}pred/bias": (num_classes,)}


def graph_shapes(scope, width, features):
    """Shapes of one block's variables; `features` is the backbone's width where the block has its own."""
    c = width
    cell = f"cudnn_lstm/{SAVED_CELL}"
    shapes = {
        "send_messages_mlp/send_conv1/kernel": (1, 1, 2 * c, c),
        "send_messages_mlp/send_conv2/kernel": (1, 1, c, c),
        "dot_product_attn/att_conv1/kernel": (1, c, c),
        "dot_product_attn/att_conv2/kernel": (1, c, c),
        "dot_product_attn/att_bias/biases": (c,),
    }
    shapes |= {name.replace("kernel", "bias"): (c,) for name in list(shapes) if name.endswith("kernel")}
    for scale in (1, 2, 3):
        for layer, inputs in ((1, 2 * c), (2, c)):
            shapes[f"update_node_mlp_/update_conv{layer}_type{scale}/kernel"] = (1, inputs, c)
            shapes[f"update_node_mlp_/update_conv{layer}_type{scale}/bias"] = (c,)
    for norm in ("before_graf_ln", "send_messages_mlp/message_ln", "update_node_mlp_/update_ln"):
        shapes |= {f"{norm}/gamma": (c,), f"{norm}/beta": (c,)}
    for lstm in ("", "time_update_extern/"):
        shapes |= {f"{lstm}{cell}kernel": (2 * c, 4 * c), f"{lstm}{cell}bias": (4 * c,)}
    if features is not None:
        shapes |= {"project_i3d/kernel": (features, c), "project_i3d/bias": (c,)}
        shapes |= {"project_back_to_i3d/kernel": (c, features), "project_back_to_i3d/bias": (features,)}
    return {scope + name: shape for name, shape in shapes.items()}


def random_variables(shapes, seed=0):
    """Random arrays, scaled so that features keep their size through the network and every block matters."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for name, shape in shapes.items():
        array = generator.standard_normal(shape)
        if name.endswith("kernel"):
            array *= (2 / np.prod(shape[:-1])) ** 0.5
        elif name.endswith(("gamma", "moving_variance")):
            array = generator.uniform(0.5, 1.5, shape) * (0.3 if "branch2c_bn/gamma" in name else 1.0)
        else:
            array *= 0.3
        arrays[name] = array.astype(np.float32)
    return arrays


def program_logits(variables, backbone, places, video):
    """Logits of a video `[B, 3, T, H, W]`."""
    root = f"tower/resnet_{backbone}/"
    tensors = {name: torch.from_numpy(array) for name, array in variables.items()}

    def convolve(x, name, norm, stride=1):
        kernel = tensors[f"{root}backbone/{name}/kernel"]
        padding = [size // 2 for size in kernel.shape[:3]]
        x = conv3d(x, kernel.permute(4, 3, 0, 1, 2), stride=(1, stride, stride), padding=padding)
        keys = ("moving_mean", "moving_variance", "gamma", "beta")
        return batch_norm(x, *(tensors[f"{root}backbone/{norm}/{key}"] for key in keys), eps=1e-5)

    def residual(x, name, stride):
        y = convolve(x, f"{name}_branch2a", f"{name}_branch2a_bn").relu()
        y = convolve(y, f"{name}_branch2b", f"{name}_branch2b_bn", stride).relu()
        y = convolve(y, f"{name}_branch2c", f"{name}_branch2c_bn")
        if f"{root}backbone/{name}_branch1/kernel" in tensors:
            x = convolve(x, f"{name}_branch1", f"{name}_branch1_bn", stride)
        return (x + y).relu()

    def branch(x, place, readout):
        scope, norm = scope_of(backbone, place)
        own = None if place == "res3" else variables[f"{scope}project_i3d/kernel"].shape[1]
        graph = AuthorsRSTG(x.size(1), own, attention="dot", heatmap_size=None, norm="layer", update_per_scale=True)
        outer, _, last = scope.rstrip("/").rpartition("/")
        load_variables(graph, {n: a for n, a in variables.items() if n.startswith(scope)}, outer, last)
        y = readout(graph(x))
        shape = (-1,) + (1,) * (y.dim() - 2)
        y = layer_norm(y, y.shape[1:], eps=1e-12) + tensors[f"{norm}/beta"].view(shape)
        return tensors[f"{norm}_scale"].view(shape) * y

    x = convolve(video, "conv1", "res_conv1_bn", stride=2).relu()
    x = max_pool3d(x, (1, 3, 3), stride=(1, 2, 2))
    for stage, count in BLOCKS.items():
        for index in range(count):
            x = residual(x, f"{stage}_{index}", STRIDES[stage] if index == 0 else 1)
            if stage in places and index == count - 2:
                x = x + branch(x, stage, lambda nodes, size=tuple(x.shape[-2:]): AuthorsToMap()(nodes, size=size))
        if stage == "res2":
            x = max_pool3d(x, (2, 1, 1))
    window = (x.size(2), min(14, x.size(3)), min(14, x.size(4)))
    pooled = avg_pool3d(x, window, stride=1)
    if "final" in places:
        pooled = pooled + branch(x, "final", AuthorsToVec())[:, :, None, None, None]
    kernel, bias = tensors[f"{root}pred/kernel"], tensors[f"{root}pred/bias"]
    return conv3d(pooled, kernel.permute(4, 3, 0, 1, 2), bias).mean(dim=(2, 3, 4))


def as_saved(variables):
    """The same variables with every LSTM's `cudnn_lstm/{w_ih, w_hh, b_ih, b_hh}` as one kernel and one bias."""
    saved = {name: array for name, array in variables.items() if "cudnn_lstm/" not in name}
    for scope in (name.removesuffix("cudnn_lstm/w_ih") for name in variables if name.endswith("cudnn_lstm/w_ih")):
        lstm = {key: variables[f"{scope}cudnn_lstm/{key}"] for key in ("w_ih", "w_hh", "b_ih", "b_hh")}
        i, f, c, o = np.split(np.concatenate([lstm["w_ih"], lstm["w_hh"]], axis=1).T, 4, axis=1)
        saved[f"{scope}{SAVED_CELL}kernel"] = np.concatenate([i, c, f, o], axis=1)
        i, f, c, o = np.split(lstm["b_ih"] + lstm["b_hh"], 4)
        saved[f"{scope}{SAVED_CELL}bias"] = np.concatenate([i, c, f, o])
    return saved


def write_checkpoint(prefix, variables):
    """Save the arrays under their names as a TensorFlow 1 program does; skips the test without TensorFlow."""
    tensorflow = pytest.importorskip("tensorflow", reason="no TensorFlow: its checkpoints are not tested")
    v1 = tensorflow.compat.v1
    with tensorflow.Graph().as_default(), v1.Session() as session:
        saver = v1.train.Saver({name: v1.Variable(array, use_resource=False) for name, array in variables.items()})
        session.run(v1.global_variables_initializer())
        return saver.save(session, str(prefix), write_meta_graph=False)
