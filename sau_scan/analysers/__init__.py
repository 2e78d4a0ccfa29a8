"""Analysers: look at weights or embeddings and propose leads, to be confirmed by probing."""
