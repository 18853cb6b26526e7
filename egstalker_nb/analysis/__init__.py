"""Numbers behind the notebooks: densification, loss attribution, comparison of runs, cost. It draws nothing.

May import: every room but preparation and notebook.
"""
