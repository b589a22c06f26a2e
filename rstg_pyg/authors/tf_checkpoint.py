"""The authors' published checkpoints, read with TensorFlow's own reader."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rstg_pyg.authors.block import AuthorsRSTG
from rstg_pyg.authors.loading import LoadReport, load_variables
from rstg_pyg.authors.networks import AuthorsSyncMNISTNet, AuthorsVideoNet
from rstg_pyg.files import FileError, reading

NOT_WEIGHTS = (
    # the state of training
    "global_step",
    "learning_rate",
    "*/Momentum",
    "*/Adam",
    "*/Adam_1",
    "beta1_power",
    "beta2_power",
    # the constant weights of area resizing, which this package computes
    "*/resize/resize_filters__*",
    # an LSTM's weights once more, in a layout that depends on the GPU; the checkpoint has them in the saved form too
    "*/cudnn_lstm/opaque_kernel",
)
"""Patterns (as of ``fnmatch``) of what the program's checkpoints hold beside the weights."""


def load_tf_checkpoint(
    path: str | Path,
    model: AuthorsRSTG | AuthorsSyncMNISTNet | AuthorsVideoNet,
    scope: str = "tower",
    graph: str = "whole_graph_model_final",
    ignore: Sequence[str] = (),
) -> LoadReport:
    """Load a TensorFlow checkpoint of the authors' program into a module, all of it or nothing.

    Every variable of the file must have a place in the module, or be named in :data:`NOT_WEIGHTS` or ``ignore``, and
    every entry of the module must be filled.

    Args:
        path: The checkpoint's prefix (``model_100000.ckpt``), one of its files, or a folder with one checkpoint in it.
        model: Block or network; for the published video networks :meth:`AuthorsVideoNet.published`.
        scope: What all names start with.
        graph: Name of the block's own scope in it; a video network has its own names for its blocks.
        ignore: More patterns (as of ``fnmatch``) of names to leave out.

    Returns:
        What was placed where, and what was ignored.

    Raises:
        ImportError: Without TensorFlow.
        FileNotFoundError: Where there is no checkpoint.
        ValueError: For several checkpoints in a folder, and as :func:`load_variables` raises it: listing variables
            without a place and variables that are missing, and for another shape.

    Source: Nicolicioiu, Duta, Leordeanu, NeurIPS 2019, arXiv:1904.05582; checkpoints and variable names of the program,
    IuliaDuta/RSTG at 788a7a3.

    Example:
        >>> net = AuthorsVideoNet.published("i3d_rstg_res3_res4")  # doctest: +SKIP
        >>> report = load_tf_checkpoint("checkpoints/model_backbone_i3d_rstg_res3_res4", net)  # doctest: +SKIP
        >>> len(report.placed)  # doctest: +SKIP
        337
    """
    return load_variables(model, read_tf_checkpoint(path), scope, graph, [*NOT_WEIGHTS, *ignore])


def read_tf_checkpoint(path: str | Path) -> dict[str, np.ndarray]:
    """Read all variables of a TensorFlow checkpoint, by name.

    Args:
        path: The checkpoint's prefix (``model_100000.ckpt``), one of its files, or a folder with one checkpoint in it.

    Raises:
        ImportError: Without TensorFlow.
        FileNotFoundError: Where there is no checkpoint.
        ValueError: For several checkpoints in a folder, and for a damaged one.

    Example:
        >>> sorted(read_tf_checkpoint("model_100000.ckpt"))  # doctest: +SKIP
        ['global_step', 'tower/resnet_c2d/after_graph_ln/beta', ...]
    """
    prefix = _checkpoint_prefix(Path(path))
    try:
        import tensorflow
    except ImportError as error:
        raise ImportError(
            "expected TensorFlow, which reads its own checkpoints, got none: pip install tensorflow"
        ) from error
    with reading(prefix, FileError, "a whole checkpoint of TensorFlow"):
        reader = tensorflow.train.load_checkpoint(str(prefix))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def _checkpoint_prefix(path: Path) -> Path:
    """What the names of a checkpoint's files have in common."""
    if path.is_dir():
        found = sorted(path.glob("*.index"))
        if not found:
            raise FileNotFoundError(f"expected a checkpoint (a file '*.index' and its data) in '{path}', got none")
        if len(found) > 1:
            names = ", ".join(file.stem for file in found)
            raise ValueError(f"expected one checkpoint in '{path}', got {names}: give the path of one")
        return found[0].with_suffix("")
    if path.suffix in (".index", ".meta") or path.suffix.startswith(".data-"):
        path = path.with_suffix("")
    if not path.with_name(f"{path.name}.index").exists():
        raise FileNotFoundError(f"expected a checkpoint with the file '{path}.index', got no such file")
    return path
