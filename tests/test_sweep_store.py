"""Protects: datasets and results of a sweep in an object store, against an S3-compatible server on this computer."""
import threading
import time
import urllib.request

import boto3
import nbformat
import pandas
import pytest
from made_up_sweeps import NOTE, make_sweep, ran, states, write_notebook
from moto.server import ThreadedMotoServer

from egstalker_nb.core.errors import InputError
from egstalker_nb.core.ray_cluster import connected
from egstalker_nb.scheduling import report, sweep, worker
from egstalker_nb.scheduling.storage import RemoteFolder, cache_folder
from egstalker_nb.scheduling.sweep import load_sweep
from egstalker_nb.scheduling.worker import work


@pytest.fixture(scope="module")
def server():
    """The address of a server; one for all tests, as Papermill's client keeps the first that it meets."""
    made = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    yield "http://{}:{}".format(*made.get_host_and_port())
    made.stop()


@pytest.fixture
def store(server, tmp_path, monkeypatch):
    """A bucket `heads`; the client to look into it. Each test has its own cache, as another computer would have."""
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1",
                        "AWS_ENDPOINT_URL": server, "EGS_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(report, "write_report", lambda sweep: None)
    urllib.request.urlopen(urllib.request.Request(f"{server}/moto-api/reset", method="POST"))  # of the test before
    client = boto3.client("s3")
    client.create_bucket(Bucket="heads")
    return client


def names(store, prefix=""):
    found = store.list_objects_v2(Bucket="heads", Prefix=prefix).get("Contents", [])
    return [entry["Key"].removeprefix(prefix) for entry in found]


def open_sweep(tmp_path, *cells, numbers=(1,)):
    """A sweep whose results lie in the store, with a dataset that lies there too."""
    make_sweep(tmp_path, numbers=list(numbers))
    write_notebook(tmp_path / "book.ipynb", NOTE, *cells,
                   parameters='run = ""\nnumber = 0\nplace = ""\ndataset = ""')
    text = (tmp_path / "some.yaml").read_text() + "datasets: ['s3://heads/data']\n"
    (tmp_path / "some.yaml").write_text(text)
    return load_sweep(tmp_path / "some.yaml", "s3://heads/sweeps/some")


def start(opened):
    run = opened.runs[0]
    return work(opened._task(run), {path.stem: path.read_text() for path in opened.file.notebooks_of(run)})


def test_a_folder_goes_there_and_comes_back(store, tmp_path):
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    for name, size in (("a", 0), ("deep/b", 3_000_000), (".hidden", 5)):
        (source / name).write_bytes(b"x" * size)
    remote = RemoteFolder("s3://heads/some/where/")
    time.sleep(1.1)  # the resolution of its clock
    remote.push(source)
    assert names(store, "some/where/") == ["a", "deep/b"]
    assert sorted(remote.pull(tmp_path / "copy")) == ["a", "deep/b"] and remote.pull(tmp_path / "copy") == []
    assert (tmp_path / "copy" / "deep" / "b").read_bytes() == b"x" * 3_000_000
    before = store.head_object(Bucket="heads", Key="some/where/deep/b")["LastModified"]
    time.sleep(1.1)
    (source / "a").write_bytes(b"new")
    remote.push(source)
    assert remote.pull(tmp_path / "copy") == ["a"] and (tmp_path / "copy" / "a").read_bytes() == b"new"
    assert store.head_object(Bucket="heads", Key="some/where/deep/b")["LastModified"] == before


def test_a_sweep_on_ray_with_everything_in_the_store(store, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "face").write_text("a face")
    RemoteFolder("s3://heads/data").push(data)
    opened = open_sweep(tmp_path, "assert (Path(dataset) / 'face').read_text() == 'a face'\nprint('seen', number)",
                        numbers=(1, 2))
    with connected(num_cpus=2, object_store_memory=80_000_000):
        opened.run()
    assert states(opened) == ["finished"] * 2
    there = names(store, "sweeps/some/")
    assert {"results.parquet", "sweep.yaml", f"runs/{opened.runs[0].id}/state.json",
            f"status/{opened.runs[0].id}.json", f"runs/{opened.runs[0].id}/notebooks/book.ipynb"} <= set(there)
    saved = store.get_object(Bucket="heads", Key=f"sweeps/some/runs/{opened.runs[1].id}/notebooks/book.ipynb")
    assert nbformat.reads(saved["Body"].read().decode(), 4).cells[-1].outputs[0].text == "seen 2\n"
    assert list(pandas.read_parquet(opened.folder / "results.parquet")["state"]) == ["finished"] * 2


def test_another_computer_sees_the_runs_and_continues_one(store, tmp_path, monkeypatch):
    """What the first computer had of a failed run comes to the second one, which has an empty cache."""
    RemoteFolder("s3://heads/data").write("face", b"a face")
    cell = "(Path(run) / 'checkpoint').exists() or (Path(run).mkdir(), (Path(run) / 'checkpoint').touch(), 1 / 0)"
    assert start(open_sweep(tmp_path, cell)) == "failed"
    monkeypatch.setenv("EGS_CACHE", str(tmp_path / "another"))
    second = load_sweep(tmp_path / "some.yaml", "s3://heads/sweeps/some")
    assert states(second) == ["failed"] and "ZeroDivisionError" in second.rows()[0]["error"]
    assert start(second) == "finished" and ran(tmp_path, 1) == 2
    assert (second.open(second.runs[0]) / "checkpoint").exists()


def test_a_run_on_another_computer_stops_when_it_is_asked_to(store, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "PUSH_SECONDS", 0.5)
    monkeypatch.setattr(sweep, "FETCH_SECONDS", 0.2)
    RemoteFolder("s3://heads/data").write("face", b"a face")
    opened, ended = open_sweep(tmp_path, "time.sleep(600)"), []
    thread = threading.Thread(target=lambda: ended.append(start(opened)))
    thread.start()
    while thread.is_alive() and (states(opened) != ["running"] or not ran(tmp_path, 1)):
        time.sleep(0.1)
    opened.stop(opened.runs[0])
    thread.join(300)
    assert ended == ["stopped"]
    monkeypatch.setenv("EGS_CACHE", str(tmp_path / "another"))
    assert states(load_sweep(tmp_path / "some.yaml", "s3://heads/sweeps/some")) == ["stopped"]


def test_a_store_that_cannot_be_reached_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "a")
    with pytest.raises(InputError, match="object store at 's3://heads/nowhere'"):
        RemoteFolder("s3://heads/nowhere").pull(tmp_path)


def test_two_addresses_never_share_a_copy():
    assert len({cache_folder(f"s3://{bucket}/data") for bucket in "abc"}) == 3
