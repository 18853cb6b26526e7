"""What people bring from EGSTalker and its relatives (AD-NeRF, ER-NeRF, GaussianTalker), and what goes back to them.

- `arguments_file`: `arguments/*.py` files, read as literals (`egs.read_arguments`).
- `setting_verdicts`: what becomes of each of their settings here, and why.
- `folder_reader`, `folder_writer`: dataset folders (`egs.import_dataset`, `egs.export_dataset`).
- `pose_convention`: the head poses in them.
- `checkpoint_reader`, `upstream_motion`: `point_cloud.ply` and `deformation.pth`, and the network in the latter.

May import: core, the configuration, media, face, speech, metrics, data, rasterizer, model, preparation, training.
"""
