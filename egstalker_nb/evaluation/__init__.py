"""Scores of a trained head: image quality, landmark distance, lip sync.

May import: core, media, face, speech, metrics, data, model, training (the run folder), rendering.
"""
