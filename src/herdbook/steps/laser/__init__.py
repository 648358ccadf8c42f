"""LASER: replacing weight matrices by approximations of lower rank (Sharma et al. 2023, arXiv:2312.13558).

From the bottom up:

``law``          how the singular values of pure noise are distributed
``rank``         rank rules and rankings: functions of singular values
``decompose``    exact decompositions and approximations; ``store`` keeps them
``whiten``       decompositions by what a matrix does to text (SVD-LLM)
``evidence``     what a record says of a spectrum
``reduce``       one matrix by one rule, with its evidence
``step``         a shard of a lasered model
``states``       hidden states entering each layer, on disk
``gradient``     what the loss asks for
``guard``        the paired test
``search``       which matrices, and how far: ranked, tried, confirmed, written down
``spectrum``     any checkpoint's spectra, before anything is made
"""
