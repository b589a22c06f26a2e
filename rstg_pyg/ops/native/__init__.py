r"""The gather of the space stage as native code for processors, compiled at first use.

.. math::
    \alpha_{ji} = \mathrm{softmax}_{j \in \mathcal{N}(i)} (\mathbf{q}_i^\top \mathbf{k}_j), \qquad
    \mathbf{g}_i = \sum_{j \in \mathcal{N}(i)} \alpha_{ji} \, \mathrm{ReLU}(\mathbf{s}_j + \mathbf{d}_i)
"""
