"""Small files that change a base checkpoint: LoRA (``lora``, ``lora_writing``) and textual inversion (``inversion``).

Everything here maps values to values: shapes and tensors in, tensors and bytes out. Files are opened elsewhere.
"""
