"""LASER: replacing weight matrices by approximations of lower rank (Sharma et al. 2023, arXiv:2312.13558)."""
