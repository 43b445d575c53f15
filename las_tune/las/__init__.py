"""The numerical core: LAS (GLASS, arXiv:2407.09359) on torch. Imports nothing of ours but spec and errors."""
