"""Files of weights that metrics need and that the package may not carry: their names, where users get them, reading."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from torch import nn

from ..core.errors import InputError
from ..core.files import shortened
from ..core.reading import Unreadable, read_torch


@dataclass(frozen=True)
class WeightFile:
    """A file that the user downloads once.

    Attributes:
        name: of the file.
        source: where to get it.
    """

    name: str
    source: str


#: network -> its file
WEIGHT_FILES = {
    "alexnet": WeightFile("alexnet-owt-7be5be79.pth",
                          "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth (BSD-3-Clause)"),
    "vgg16": WeightFile("vgg16-397923af.pth",
                        "https://download.pytorch.org/models/vgg16-397923af.pth (BSD-3-Clause)"),
    "sface": WeightFile("face_recognition_sface_2021dec.onnx",
                        "https://github.com/opencv/opencv_zoo, models/face_recognition_sface (Apache-2.0)"),
    "syncnet": WeightFile("syncnet_v2.model",
                          "https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model (terms: "
                          "https://github.com/joonson/syncnet_python)"),
}


def weight_folder(folder: Optional[str | Path] = None) -> Path:
    """Where weights are looked for: the given folder, else the checkpoints of PyTorch's hub cache (`TORCH_HOME`).

    Raises:
        InputError: the given folder does not exist.
    """
    if folder is None:
        import torch

        return Path(torch.hub.get_dir()) / "checkpoints"
    if not Path(folder).is_dir():
        raise InputError("a folder of weights", f"no folder '{shortened(folder)}'", "Correct the path.")
    return Path(folder)


def weight_path(network: str, folder: Optional[str | Path] = None) -> Optional[Path]:
    """The file of a network (a key of `WEIGHT_FILES`); None if it is not there."""
    path = weight_folder(folder) / WEIGHT_FILES[network].name
    return path if path.is_file() else None


def how_to_get(network: str, folder: Optional[str | Path] = None) -> str:
    """One line that says which file is needed, where it belongs and where to get it."""
    file = WEIGHT_FILES[network]
    return f"needs {file.name} in {weight_folder(folder)}; get it from {file.source}"


def load_weights(net: nn.Module, path: Path) -> None:
    """Load a state dict into a network, on the CPU; further entries of the file (a classifier's) are ignored.

    Raises:
        InputError: the file is damaged, or lacks a tensor of the network, or has it in another shape.
    """
    try:
        state = read_torch(path, legacy=True)
    except Unreadable as error:
        raise InputError(f"the published weights {path.name}", str(error), "Download the file again.") from error
    for name, tensor in net.state_dict().items():
        # a counter that older versions of PyTorch did not save
        if not name.endswith("num_batches_tracked") and getattr(state.get(name), "shape", None) != tensor.shape:
            raise InputError(f"'{name}' {list(tensor.shape)} in '{shortened(path)}'", "another network's weights",
                             "Download the file of that name again.")
    net.load_state_dict({name: state[name] for name in net.state_dict() if name in state}, strict=False)
