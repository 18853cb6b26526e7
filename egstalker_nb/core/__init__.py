"""Basics that every other package uses.

- `errors`: the exceptions a user can cause.
- `files`: files and folders written as a whole, checked targets, exclusive locks; knows a full disk.
- `reading`: files that may be damaged or hostile: JSON, YAML, arrays, tensors, within limits.
- `kit_files`: the notebooks and the sample, wherever the package is installed.
- `processes`: worker processes that end with their parent, and the cores that they share.
- `progress`: one progress line for terminals, notebooks and headless runs.
- `table`: tables shown as HTML in a notebook and as text in a terminal.
- `device`: choosing and checking the torch device.
- `local_server`: where the package's servers listen, and how JupyterLab shows their pages.
- `ray_cluster`: connecting to a Ray cluster, or starting Ray on this computer.
- `cuda_extension`: finding and loading gsplat's compiled CUDA extension.
- `cuda_graph`: capturing a function in a CUDA graph and replaying it.
- `numba_jit`: compiling Numba kernels and running them on several threads.
- `numba_cache`: where Numba keeps compiled code if the home cannot be written to.
- `lazy`: public names of a package that are imported on first use.

May import: nothing else of the package.
"""
