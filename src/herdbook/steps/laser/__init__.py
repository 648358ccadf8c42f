"""LASER: replacing weight matrices with approximations of lower rank (Sharma et al. 2023, arXiv:2312.13558).

From the bottom up:

``law``          the distribution of the singular values of pure noise
``rank``         rank rules and rankings: functions of singular values
``budget``       a budget of rank, spread over matrices by their spectra
``decompose``    exact decompositions and approximations; ``store`` keeps them
``clusters``     rows clustered around several subspaces, each decomposed by itself
``whiten``       decompositions by a matrix's outputs on text (SVD-LLM, Swift-SVD)
``evidence``     the description of a spectrum in a record
``reduce``       the reduction of one matrix by one rule, with its evidence
``step``         a shard of a lasered model
``states``       hidden states entering each layer, on disk
``gradient``     the effect of reductions on the loss, to first order
``guard``        the paired test
``journal``      the trials of a search, on disk
``search``       the choice of matrices and ranks: ranking, trials, confirmation
``spectrum``     spectra of any checkpoint, before anything is built
"""
