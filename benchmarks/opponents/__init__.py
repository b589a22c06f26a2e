"""What the package is compared with, each written as well as a good user of PyG or torch would write it."""
