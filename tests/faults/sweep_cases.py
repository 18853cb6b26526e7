"""Bad input: sweep files, and the arguments of `egs sweep`."""
from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Callable, Union

from . import made
from .bad_input import Case
from .notebook_cases import book, cell

#: of a good sweep file, each line of which a row replaces or adds to
GOOD = {
    "notebooks": "[train.ipynb]", "datasets": "[data]", "base": "{config: quick_test, overrides: {iterations: 200}}",
    "grid": "{overrides.batch_size: [1, 2]}", "seeds": "[0, 1]",
}
PARAMETERS = 'dataset: str = ""\nrun: str = ""\nconfig: str = ""\noverrides: dict = {}\nsize: int = 64'


def write_sweep(folder: Path, text: Union[str, bytes]) -> Path:
    """A sweep file beside a dataset and a notebook."""
    shutil.copytree(made.DATASET, folder / "data")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (folder / "train.ipynb").write_text(book(cell(source=PARAMETERS, metadata={"tags": ["parameters"]}, outputs=[]),
                                             metadata=kernel))
    path = folder / "sweep.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def case(name: str, text: Union[str, bytes], *words: str, more: tuple[str, ...] = ("--plan",), lines: int = 1) -> Case:
    """A whole sweep file that is refused."""
    return Case(f"sweep: {name}", lambda folder: ["sweep", write_sweep(folder, text), *more], words, lines)


def changed(about: str, words: tuple[str, ...], lines: int = 1, **entries: str) -> Case:
    """The good sweep file with other entries."""
    return case(about, "".join(f"{key}: {value}\n" for key, value in {**GOOD, **entries}.items()), *words, lines=lines)


def good(*arguments: str) -> Callable[[Path], list[Any]]:
    text = "".join(f"{key}: {value}\n" for key, value in GOOD.items())
    return lambda folder: ["sweep", write_sweep(folder, text), *arguments]


CASES = [
    Case("sweep: no such file", lambda folder: ["sweep", "none.yaml"], ("sweep", "YAML", "none.yaml")),
    Case("sweep: a folder that is none", lambda folder: ["sweep", folder], ("sweep.yaml",)),
    case("empty", "", "sweep", "YAML"),
    case("a list", "- 1\n- 2\n", "YAML"),
    case("not YAML", "grid: [1, 2", "YAML"),
    case("zeros", b"\0" * 100, "YAML"),
    case("a Python object", "grid: !!python/object/apply:os.system ['true']", "YAML"),
    changed("a key that is misspelt", ("'grids'", "Did you mean 'grid'?"), grids="{}"),
    changed("an unknown notebook", ("trian.ipynb",), notebooks="[trian.ipynb]"),
    changed("a kit's notebook that is misspelt", ("Did you mean '08_train_and_score'?",),
            notebooks="[08_train_and_sore]"),
    changed("notebooks as a text", ("list of names",), notebooks="train.ipynb"),
    changed("no dataset", ("datasets", "none"), datasets="[]"),
    changed("a dataset that is not there", ("elsewhere",), datasets="[elsewhere]"),
    changed("a pattern that fits nothing", ("people/*", "nothing"), datasets="['people/*']"),
    changed("a video that is not there", ("clip.mp4", "no such file"), videos="[clip.mp4]"),
    changed("a parameter that no notebook declares", ("'config'?",), grid="{konfig: [quick_test]}"),
    changed("a parameter of another type", ("size", "int"), grid="{size: [large]}"),
    changed("a setting that is misspelt", ("iteration",), lines=3, grid="{overrides.iterationss: [100]}"),
    changed("a setting out of range", ("batch_size",), lines=3, grid="{overrides.batch_size: [1000]}"),
    changed("a preset that is misspelt", ("Did you mean 'quick_test'?",), base="{config: quick_tset}"),
    changed("a contradictory preset", ("args_default",), lines=12, base="{config: args_default}"),
    changed("grid values without brackets", ("list", "batch_size"), grid="{overrides.batch_size: 2}"),
    changed("a grid that is a list", ("parameter: value",), grid="[1, 2]"),
    changed("twice dotted", ("dictionary.entry",), grid="{overrides.a.b: [1]}"),
    changed("a run folder of one's own", ("own folder",), base="{run: here}"),
    changed("a dataset among the parameters", ("`datasets`",), base="{dataset: data}"),
    changed("the same run twice", ("differ", "2 times"), grid="{overrides.batch_size: [2, 2]}"),
    changed("too many runs", ("100,000 runs", "320,000"), seeds=str(list(range(400))),
            grid=f"{{overrides.seed: {list(range(800))}}}"),
    changed("seeds as text", ("whole numbers",), seeds="[one]"),
    changed("a sample without count", ("count",), sample="{overrides.seed: [1, 2]}"),
    changed("a sample upside down", ("low < high",), sample="{count: 2, overrides.seed: {low: 5, high: 1}}"),
    changed("a logarithm of zero", ("above 0",),
            sample="{count: 2, overrides.opacity_lr: {low: 0, high: 1, log: true}}"),
    changed("resources that are misspelt", ("Did you mean 'gpu'?",), resources="{gpus: 1}"),
    changed("no core", ("cpu",), resources="{cpu: 0}"),
    changed("a card and a half", ("gpu", "1.5"), resources="{gpu: 1.5}"),
    changed("memory as text", ("memory", "number"), resources="{memory: 4 GB}"),
    changed("negative retries", ("retries",), retries="-1"),
    changed("halving without reduction", ("reduction",), halving="{reduction: 1}"),
    changed("halving by an unknown word", ("Did you mean 'first'?",), halving="{firs: 100}"),
    changed("a criterion with an odd mode", ("max or min",), best="{metric: val_psnr, mode: most}"),
    changed("a name with a slash", ("letters",), name="a/b"),
    Case("sweep: a column that is not there", good("--show", "--sort", "psnrr"), ("column", "psnrr")),
    Case("sweep: stopping a run that is not there", good("--stop", "nobody"), ("nobody", "0")),
    Case("sweep: stopping one of many", good("--stop", "data-quick"), ("data-quick", "4")),
]
