"""What the space stage computes over edges, in several ways.

Plain formulas, blocks of cache size in PyTorch, native code for processors, Triton for GPUs.
"""
