"""Recorded variables as a checkpoint of the program's holds them, and such checkpoints, written with TensorFlow."""

import numpy as np
import pytest

SAVED_CELL = "rnn/multi_rnn_cell/cell_0/cudnn_compatible_lstm_cell/"


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
