"""Checkpoints on the Hugging Face hub: from a name to a commit, and to a private folder with the verified files of it.

``org/name`` is a repository: its diffusers folder, or the file of weights that it holds. ``org/name/PATH`` is one file
of it, ``org/name@REVISION`` another state of it. What lies on this machine under that name goes first. Only the files
that are needed are fetched, into the cache that all programs share; code never. Each is compared with the hash that the
commit lists, and only then stands in the folder that :func:`resolve` gives, without the links that the cache is made
of. Nothing is opened here but ``model_index.json``, as data; the rest is for ``open_checkpoint`` to examine.
"""

from sau_scan.checkpoint.hub.naming import from_address, has_form_of_hub_id, looks_like_hub_id
from sau_scan.checkpoint.hub.snapshot import Hub, HubSnapshot, asked_offline, resolve

__all__ = ["Hub", "HubSnapshot", "asked_offline", "from_address", "has_form_of_hub_id", "looks_like_hub_id", "resolve"]
