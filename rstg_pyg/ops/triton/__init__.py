"""The gather of the space stage on a GPU."""
