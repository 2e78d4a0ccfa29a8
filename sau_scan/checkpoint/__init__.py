"""Checkpoints on disk and in memory: vetted bytes in, a model to probe out, and patched copies."""
