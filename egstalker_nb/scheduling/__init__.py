"""Notebooks headless: in order on one video, or many runs at a time, on this computer or a cluster.

- `parameters`: reading notebooks, and the parameters that they declare.
- `execute`: one notebook in a kernel of this Python.
- `runner`: the notebooks in order on one video, with progress on the terminal.
- `sweep_file`: a sweep as YAML: notebooks, parameters, grid, list or random sample, datasets, seeds, resources.
- `planning`: the runs that it asks for.
- `run_folder`: the folder of one run of a sweep: its state, progress, metrics, requests to stop.
- `worker`: executes one run, wherever it was scheduled.
- `engine`: schedules the runs with Ray. `halving`: the same through Ray Tune, which ends hopeless runs early.
- `storage`: datasets and results in an object store.
- `sweep`: `egs.sweep` and what it returns: runs, table, results, the best.
- `ranking`: which setting is best, and whether its lead exceeds the spread over seeds.
- `report`: the notebook that compares all runs, executed at the end.
- `live_table`: the table of all runs in a terminal.

May import: core, media, data, training, cuda_setup, and the configuration.
"""
