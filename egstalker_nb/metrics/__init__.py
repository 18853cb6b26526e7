"""Measures of images, landmarks and mouth motion, which losses, preparation and evaluation share.

May import: core, face.
"""
