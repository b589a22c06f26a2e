"""Compile every Triton kernel for a CUDA architecture, without a CUDA device.

The interpreter runs programs that the compiler refuses. Run as ``python compile_for_cuda.py 90 bf16 fp64``, without
``TRITON_INTERPRET`` in the environment.
"""

import sys

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from rstg_pyg.ops.triton.messages import destination_grad_kernel, source_grad_kernel, sum_kernel
from rstg_pyg.ops.triton.scan import scan_grad_kernel, scan_kernel
from rstg_pyg.ops.triton.scores import pair_dot_kernel, row_sum_kernel
from rstg_pyg.ops.triton.softmax import softmax_grad_kernel, softmax_kernel
from rstg_pyg.ops.triton.tiles import tiling

INDICES = ("nodes", "ptr", "sources", "destinations", "edges", "ends")
WEIGHTS = ("alpha", "alpha_grad", "score", "score_grad", "weight", "first", "last", "last_grad", "first_grad")


def compile_kernel(kernel, architecture, dtype, **constants):
    """Compile with features of type ``dtype``, weights in the type of sums and aligned pointers."""
    number = tl.float64 if dtype == "fp64" else tl.float32
    constants["number"] = number
    num_warps = 2
    if hasattr(kernel, "configs"):
        choices = kernel.early_config_prune(kernel.configs, {}, **constants)
        choice = choices[len(choices) // 2]
        num_warps, constants["block_e"] = choice.num_warps, choice.kwargs["block_e"]
    while not isinstance(kernel, triton.JITFunction):
        kernel = kernel.fn
    signature, alignment = {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name.startswith("num_"):
            signature[name] = "i32"
        else:
            signature[name] = "*i64" if name in INDICES else f"*{str(number) if name in WEIGHTS else dtype}"
            alignment[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs=constants, attrs=alignment)
    triton.compile(source, target=GPUTarget("cuda", architecture, 32), options={"num_warps": num_warps})


def compile_all(architecture, dtype, frames, heads, hidden, channels):
    block_k = triton.next_power_of_2(heads)
    cut = tiling(frames, hidden, per_row=block_k)
    sizes = {"hidden": hidden, "heads": heads, "block_k": block_k, "block_f": cut.block_r, "block_c": cut.block_c}
    for kernel in (sum_kernel, destination_grad_kernel, source_grad_kernel):
        compile_kernel(kernel, architecture, dtype, **sizes)

    cut = tiling(frames * heads, channels)
    sizes = {"channels": channels, "block_r": cut.block_r, "block_c": cut.block_c}
    compile_kernel(pair_dot_kernel, architecture, dtype, **sizes)
    compile_kernel(row_sum_kernel, architecture, dtype, **sizes, incoming=True, edges=None)
    compile_kernel(row_sum_kernel, architecture, dtype, **sizes, incoming=False, nodes=None)

    for kernel in (softmax_kernel, softmax_grad_kernel):
        compile_kernel(kernel, architecture, "fp64" if dtype == "fp64" else "fp32", block_r=16, block_e=8)

    for kernel in (scan_kernel, scan_grad_kernel):
        compile_kernel(kernel, architecture, dtype, channels=channels, block_t=16, block_c=64)


SIZES = {"bf16": (10, 1, 512, 512), "fp32": (3, 4, 100, 25), "fp64": (1, 3, 640, 1030)}

if __name__ == "__main__":
    for dtype in sys.argv[2:]:
        compile_all(int(sys.argv[1]), dtype, *SIZES[dtype])
