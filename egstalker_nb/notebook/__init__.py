"""What notebooks show and operate: figures, tables, widgets, exercises, the headless runner, the gallery.

May import: every room.
"""
