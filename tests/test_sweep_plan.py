"""Protects: which runs a sweep file asks for, and that a run keeps its name for as long as nothing about it changes."""
import shutil

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_sweeps import write_notebook

from egstalker_nb import cli
from egstalker_nb.core.errors import InputError
from egstalker_nb.scheduling import engine, sweep_file
from egstalker_nb.scheduling.planning import PREPARED_WITH, nested
from egstalker_nb.scheduling.sweep_file import Criterion, Resources, read_sweep_file

PARAMETERS = 'dataset = ""\nrun = ""\nconfig = ""\noverrides = {}\nsize = 64'


@pytest.fixture
def read(tmp_path, tiny_dataset):
    """Reads a sweep file with these entries, beside a notebook and the tiny dataset."""
    write_notebook(tmp_path / "train.ipynb", parameters=PARAMETERS)

    def reader(**entries):
        path = tmp_path / "some.yaml"
        path.write_text(yaml.safe_dump({"notebooks": ["train.ipynb"], "datasets": [str(tiny_dataset.root)],
                                        "base": {"config": "quick_test"}, **entries}))
        return read_sweep_file(path)

    return reader


def ids(file):
    return [run.id for run in file.runs]


def test_every_combination_of_grid_list_sample_and_seeds(read):
    file = read(grid={"overrides.batch_size": [1, 2], "overrides.opacity_lr": [0.01, 0.02, 0.03]}, seeds=[0, 1],
                list=[{"config": "quick_test"}, {"config": "production"}],
                sample={"count": 2, "overrides.feature_lr": {"low": 1e-4, "high": 1e-2, "log": True}})
    assert len(file.runs) == len(set(ids(file))) == 2 * 3 * 2 * 2 * 2
    assert {run.parameters["overrides"]["batch_size"] for run in file.runs} == {1, 2}
    assert all(1e-4 <= run.parameters["overrides"]["feature_lr"] <= 1e-2 for run in file.runs)
    assert {run.iterations for run in file.runs} == {1000, 30000}
    assert list(file.runs[0].varied) == ["config", "overrides.feature_lr", "overrides.batch_size",
                                         "overrides.opacity_lr", "overrides.seed"]


def test_draws_are_the_same_for_the_same_file_and_others_for_another_seed(read):
    sample = {"count": 5, "overrides.feature_lr": {"low": 1e-4, "high": 1e-2}, "overrides.batch_size": [1, 2, 4]}
    first, again, other = read(sample=sample), read(sample=sample), read(sample={**sample, "seed": 1})
    assert ids(first) == ids(again) and not set(ids(first)) & set(ids(other))
    assert all(type(run.parameters["overrides"]["batch_size"]) is int for run in first.runs)


def test_a_run_keeps_its_name_when_the_sweep_grows_and_gets_another_when_a_parameter_changes(read):
    small = read(grid={"overrides.batch_size": [2]})
    large = read(grid={"overrides.batch_size": [4, 2]}, seeds=[3, 0])
    assert set(ids(small)) < set(ids(large))
    assert not set(ids(small)) & set(ids(read(grid={"overrides.batch_size": [2]}, base={
        "config": "quick_test", "overrides": {"opacity_lr": 0.01}})))
    # how often it is saved does not change the result, and a value that is the preset's own is no change
    same = read(base={"config": "quick_test", "overrides": {"checkpoint_interval": 7, "seed": 0}},
                grid={"overrides.batch_size": [2]})
    assert ids(same) == ids(small)


def test_another_dataset_or_notebook_is_another_run(read, tmp_path, tiny_dataset):
    before = ids(read())
    shutil.copytree(tiny_dataset.root, tmp_path / "copy")
    assert ids(read(datasets=["copy"]))[0][-10:] == before[0][-10:]  # the same content in another place
    write_notebook(tmp_path / "other.ipynb", parameters=PARAMETERS)
    assert ids(read(notebooks=["other.ipynb"]))[0][-10:] != before[0][-10:]


def test_the_copy_in_the_folder_of_the_sweep_asks_for_the_same_runs(read, tmp_path):
    (tmp_path / "mine.yaml").write_text("iterations: 300\ncoarse_iterations: 20\n")
    file = read(grid={"config": ["mine.yaml", "quick_test"]})
    (tmp_path / "far" / "away").mkdir(parents=True)
    copy = tmp_path / "far" / "away" / "sweep.yaml"
    copy.write_text(file.text)
    assert ids(read_sweep_file(copy)) == ids(file) and file.runs[0].iterations == 300


def test_videos_are_prepared_first_each_once(read, tmp_path, sample_clip):
    shutil.copy(sample_clip, tmp_path / "a person.mp4")
    file = read(videos=["a person.mp4"], datasets=[], seeds=[0, 1])
    prepare, *runs = file.runs
    assert prepare.id.startswith("prepare-a_person-") and [run.after for run in runs] == [prepare.id] * 2
    assert [path.stem for path in file.notebooks_of(prepare)] == ["01_data_prep"]
    assert [path.stem for path in file.notebooks_of(runs[0])] == ["train"]


def test_a_pattern_stands_for_all_datasets_that_fit(read, tmp_path, tiny_dataset):
    """One head for each person must not ask for ten thousand lines."""
    for name in ("people/anna", "people/ben"):
        shutil.copytree(tiny_dataset.root, tmp_path / name)
    (tmp_path / "people" / ".hidden").mkdir()
    meta = tmp_path / "people" / "ben" / "dataset.json"
    meta.write_text(meta.read_text().replace("made-up", "another"))
    file = read(datasets=["people/*"])
    assert [run.varied["dataset"] for run in file.runs] == ["anna", "ben"]
    (tmp_path / "copy.yaml").write_text(file.text)
    assert ids(read_sweep_file(tmp_path / "copy.yaml")) == ids(file)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b"]), st.integers(), max_size=2),
       st.dictionaries(st.sampled_from(["c", "d"]), st.integers(), max_size=2))
def test_dotted_parameters_add_to_dictionaries(base, dotted):
    given_, wanted = {"overrides": base, **{f"overrides.{k}": v for k, v in dotted.items()}}, {**base, **dotted}
    assert nested(given_) == {"overrides": wanted}


def test_less_is_better_where_it_is():
    highest = [Criterion(name).highest for name in ("val_psnr", "ssim_head", "lmd_mouth", "seconds_training", "points")]
    assert highest == [True, True, False, False, False]
    assert Criterion("lmd_mouth", "max").highest and str(Criterion("seam")) == "lowest seam"


def test_the_cards_of_a_run():
    """Without a word each run takes a GPU where there is one; what can never start is said at once."""
    assert engine.share_of_gpu(Resources(), {"CPU": 2, "GPU": 4}) == 1.0
    assert engine.share_of_gpu(Resources(), {"CPU": 2}) == 0.0
    assert engine.share_of_gpu(Resources(gpu=0.25), {"GPU": 1}) == 0.25
    assert engine.options(Resources(2, 0.5, 3), {"GPU": 1}) == {"num_cpus": 2, "num_gpus": 0.5, "memory": 3 * 10**9}
    with pytest.raises(InputError, match="CPU 4096 of 2, GPU 1 of 0"):
        engine.check_resources(Resources(4096, 1), {"CPU": 2}, None)
    engine.check_resources(Resources(4096), {"CPU": 2}, "auto")  # a cluster may still grow


def test_the_plan_on_the_command_line_runs_nothing(read, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read(grid={"overrides.batch_size": [1, 2]})
    assert cli.main(["sweep", "some.yaml", "--plan"]) == 0
    said = capsys.readouterr().out
    assert "2 runs of train" in said and "batch_size" in said and said.count("to run") == 2
    assert not (tmp_path / "outputs").exists()


def test_the_preparation_of_the_kit_declares_what_a_sweep_gives_it():
    """A renamed parameter of notebook 01 would leave every sweep of videos without datasets."""
    path = sweep_file.NOTEBOOK_DIR / f"{sweep_file.PREPARATION}.ipynb"
    declared = sweep_file.declared_parameters([path])[path]
    assert {"video", "dataset", *PREPARED_WITH} <= set(declared)
