"""Evaluation only: tiny Stable Diffusion models, attacks on them, and the judge. Never imported by sau_scan."""
