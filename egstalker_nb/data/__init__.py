"""A prepared dataset on disk, and its frames as batches of tensors.

May import: core, media, face.
"""
