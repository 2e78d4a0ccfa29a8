"""Detectors: score recorded candidates, one algorithm a file."""
