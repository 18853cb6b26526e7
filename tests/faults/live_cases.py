"""Bad input of `egs live`."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

from .bad_input import Case
from .made import copy_run


def of_run(*options: Any) -> Callable[[Path], list[Any]]:
    return lambda folder: ["live", copy_run(folder), *options]


def other_encoder(folder: Path) -> list[Any]:
    """A run whose features cannot be computed while audio comes in."""
    run = copy_run(folder)
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "encoder": {"name": "external"}}))
    return ["live", run]


def head_of_features(folder: Path) -> list[Any]:
    """A run whose audio token is made of the features around each frame."""
    run = copy_run(folder)
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("audio_token: mouth",
                                                                               "audio_token: features"))
    return ["live", run]


CASES: list[Case] = [
    Case("live_head_of_features", head_of_features, ("mouth coefficients", "features", "production")),
    Case("live_no_run", lambda folder: ["live", folder], ("run",)),
    Case("live_other_encoder", other_encoder, ("phones", "external")),
    Case("live_port_too_large", of_run("--port", 70000), ("1 ... 65535", "70000")),
    Case("live_address_of_nobody", of_run("--host", "192.0.2.1"), ("192.0.2.1", "this machine")),
    Case("live_no_such_checkpoint", of_run("--iteration", 99), ("99",)),
    Case("live_no_such_device", of_run("--device", "toaster"), ("toaster",)),
]
