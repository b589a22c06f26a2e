"""What the package is compared with, each written as well as a good user of PyG or torch would write it.

Shape legend: N nodes, E edges, B clips, T frames per clip, F = B * T frames, C channels, P position channels.
"""
