"""From a dataset to a trained head in a run folder. `egs.train` is `train.train`.

- `train`: the loop: when to step, log, evaluate, save and stop.
- `trainer`: one step, and everything that changes while training.
- `data_parallel`, `ranks`: one run on several GPUs, which share each batch; their processes.
- `init_head`, `fit_mouth`, `fit_torso`: the head that training starts from.
- `fit_prior`: the speaker prior, fitted to clips of many people (`egs.fit_prior`).
- `losses`, `losses_cpu`, `ssim_cpu`: the loss terms; on the CPU by Numba kernels.
- `discriminator`: the adversarial term of the mouth.
- `optimizers`, `densification`, `pose_refinement`: what a step changes.
- `health`: the guard that stops a run which has gone wrong.
- `run`, `checkpoint`, `snapshots`, `metrics_log`: the run folder. `history`: its metrics, read while they are written.
- `trackers`: the same metrics in TensorBoard, Weights & Biases or MLflow (`egs.track`).

May import: core, media, face, speech, metrics, data, rasterizer, model, and the configuration.
"""
