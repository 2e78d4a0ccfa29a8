"""The tiers of a scan, from cheap to dear. Each turns recordings into leads; the last one confirms them."""
