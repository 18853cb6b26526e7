"""The examples for cron, systemd, SLURM, Kubernetes and GitHub Actions are what those programs and this kit accept."""
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
import yaml

from egstalker_nb import cli
from egstalker_nb.core.errors import InputError
from egstalker_nb.core.ray_cluster import connected
from egstalker_nb.scheduling import planning, sweep_file

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "scheduling"
FILES = sorted(EXAMPLES.iterdir())
SLURM = EXAMPLES / "slurm.sbatch"


def write_script(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/bash", *lines]) + "\n")
    path.chmod(0o755)
    return path


def write_sweep(folder: Path, seconds: float) -> Path:
    """A sweep of one run, whose notebook sleeps."""
    cells = [nbformat.v4.new_code_cell('seconds = 0.0  # s\nout = "."  # folder', metadata={"tags": ["parameters"]}),
             nbformat.v4.new_code_cell("import pathlib, time\npathlib.Path(out, 'started').touch()\n"
                                       "time.sleep(seconds)")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {
        "name": "python3", "language": "python", "display_name": "Python 3"}}), folder / "hello.ipynb")
    file = folder / "sweep.yaml"
    file.write_text(f"name: nightly\nnotebooks: [hello.ipynb]\nbase: {{seconds: {seconds}}}\nresources: {{gpu: 0}}\n")
    return file


def commands(text: str) -> list[list[str]]:
    """Arguments of every `egs` command in a text: at the start of a line, of a step, or in backquotes."""
    found = re.findall(r"(?:^|[ =\"`/])egs\"? ((?:sweep|run|prepare|train) [^\n`&>#]*)", text, re.MULTILINE)
    return [shlex.split(line.rstrip(" .:,;")) for line in found]


@pytest.mark.parametrize("path", [*FILES, ROOT / "docs" / "scheduling.md"], ids=lambda path: path.name)
def test_every_command_line_is_one_that_egs_takes(path):
    """An option that is renamed would break what people have copied."""
    found = commands(path.read_text())
    for arguments in found:
        cli.parser().parse_args(arguments)
    if path.suffix in (".service", ".sbatch", ".md") or path.name in ("crontab", "kuberay-rayjob.yaml",
                                                                     "github-actions.yml"):
        assert found, "no egs command was found"


@pytest.mark.parametrize("name, runs", [("sweep.yaml", 4), ("smoke.yaml", 3)])
def test_sweep_files_are_sweeps(name, runs, monkeypatch, tiny_dataset):
    """A dataset as of `make demo` stands in for the user's; all the rest is checked as it is."""
    monkeypatch.setattr(planning, "load_dataset", lambda folder: tiny_dataset)
    assert len(sweep_file.read_sweep_file(EXAMPLES / name).runs) == runs


def test_docs_name_every_example():
    text = (ROOT / "docs" / "scheduling.md").read_text()
    assert [path.name for path in FILES if path.name not in text] == []


# ---- cron ----

def crontab() -> tuple[dict[str, str], str, str]:
    """Settings, schedule and command of the crontab, as cron reads them."""
    lines = [line for line in (EXAMPLES / "crontab").read_text().splitlines() if line and not line.startswith("#")]
    settings = dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))
    (job,) = [line for line in lines if not re.match(r"\w+=", line)]
    return settings, " ".join(job.split()[:5]), job.split(maxsplit=5)[5]


@pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray")
def test_nightly_job_of_cron(tmp_path):
    """As cron runs it: /bin/sh, a bare environment, and here a home that nothing can be written to. A second call while
    it runs starts nothing and says so; SIGTERM stops it in order, and leaves the run queued for the next night."""
    settings, schedule, command = crontab()
    assert "%" not in command, "cron ends a command at a %"
    assert re.fullmatch(r"(\S+ ){4}\S+", schedule) and set(settings) == {"MAILTO", "EGS", "SWEEP", "OUT", "LOG"}
    egs, out = tmp_path / "kit" / ".venv" / "bin" / "egs", tmp_path / "out"
    write_script(egs, f'echo $$ > "{tmp_path}/pid"', f'PYTHONPATH={shlex.quote(str(ROOT))}',
                 f'export PYTHONPATH; exec {shlex.quote(sys.executable)} -m egstalker_nb "$@"')
    bare = {"PATH": "/usr/bin:/bin", "HOME": "/proc/nobody", "LOGNAME": "nobody", "SHELL": "/bin/sh",
            "EGS": str(tmp_path / "kit"), "SWEEP": str(write_sweep(tmp_path, 300.0)), "OUT": str(out),
            "LOG": str(tmp_path / "log")}

    def call() -> subprocess.Popen:
        return subprocess.Popen(["/bin/sh", "-c", command], env=bare, stdin=subprocess.DEVNULL, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/")

    def state() -> dict:
        return json.loads(next(out.glob("runs/*/state.json")).read_text())

    first = call()
    try:
        while not list(out.glob("runs/*/started")) and first.poll() is None:
            time.sleep(0.1)
        pid = int((tmp_path / "pid").read_text())
        assert first.poll() is None, (tmp_path / "log").read_text()
        second = call()
        mail, _ = second.communicate(timeout=120)
        assert second.returncode == 2 and "another sweep on" in mail and state()["state"] == "running"
    finally:
        if first.poll() is None:
            os.kill(pid, signal.SIGTERM)
        mail, _ = first.communicate(timeout=120)
    assert first.returncode == 143 and "interrupted: the same command continues" in mail
    assert state()["state"] == "queued" and state()["attempt"] == 1


@pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray")
def test_a_cluster_that_is_not_there_is_said_at_once(monkeypatch):
    """Ray itself goes on trying for more than ten minutes, in a job that nobody watches."""
    import ray

    monkeypatch.setattr(ray, "init", lambda *args, **more: pytest.fail("Ray was asked to connect"))
    with socket.socket() as free:  # bound, but nothing listens: a connection is refused
        free.bind(("127.0.0.1", 0))
        with pytest.raises(InputError, match="a Ray cluster at '127.0.0.1:"), connected(
                f"127.0.0.1:{free.getsockname()[1]}"):
            pass


# ---- systemd ----

def test_systemd_units(tmp_path):
    """The program checks its own files, as far as it can outside of a running systemd."""
    texts = {path.name: path.read_text() for path in EXAMPLES.glob("egs-sweep.*")}
    assert {"KillMode=mixed", "KillSignal=SIGTERM"} < set(texts["egs-sweep.service"].splitlines())
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed")
    write_script(tmp_path / "egstalker" / ".venv" / "bin" / "egs")
    for name, text in texts.items():  # %h is the home of root, whatever HOME is
        (tmp_path / name).write_text(text.replace("%h", str(tmp_path)))
    result = subprocess.run([analyze, "--user", "verify", "./egs-sweep.timer", "./egs-sweep.service"], cwd=tmp_path,
                            capture_output=True, text=True, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)})
    assert (result.returncode, [line for line in result.stderr.splitlines() if "egs-sweep" in line]) == (0, [])
    when = re.search(r"^OnCalendar=(.*)$", texts["egs-sweep.timer"], re.MULTILINE)[1]
    assert subprocess.run([analyze, "calendar", when], capture_output=True).returncode == 0


# ---- SLURM ----

def test_slurm_script_is_clean():
    subprocess.run(["bash", "-n", SLURM], check=True)
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    result = subprocess.run([shellcheck, SLURM], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.fixture
def slurm(tmp_path):
    """A job of two nodes with stand-ins for SLURM's programs, Ray and `egs`, which write down their calls."""
    tools, calls = tmp_path / ".venv" / "bin", tmp_path / "calls"
    log = f'echo "$(basename "$0") $*" >> "{calls}"'
    write_script(tools / "srun", '[[ "$*" == *"bash -c"* ]] || exit 0',  # `srun rm`
                 'for id in 0 1; do SLURM_PROCID=$id "${@:4}" & done; trap \'kill $(jobs -p)\' TERM; wait')
    write_script(tools / "ray", log, '[ "$1" != start ] || { echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN" >> '
                 f'"{tmp_path}/tokens"; exec sleep 60; }}')
    write_script(tools / "scontrol", log)
    write_script(tools / "python", 'if [ "$1" = - ]; then cat >/dev/null; exit 0; fi',  # waits for the nodes
                 f'case "$2" in *ray*) echo 192.0.2.1;; *) exec {shlex.quote(sys.executable)} "$@";; esac')
    write_script(tools / "egs", log, f'trap "exit 143" TERM; touch "{tmp_path}/begun"',
                 f'for i in $(seq 100); do sleep 0.1; [ ! -e "{tmp_path}/over" ] || exit 2; done')
    environment = {**os.environ, "SLURM_JOB_ID": "123456", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "16",
                   "SLURM_SUBMIT_DIR": str(tmp_path)}

    def submit(number: int = 0) -> tuple[int, list[str]]:
        job = subprocess.Popen(["bash", SLURM, "my sweep.yaml", "/shared/my out"], env=environment, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        (tmp_path / "tokens").touch()
        while not (tmp_path / "begun").exists() or (tmp_path / "tokens").read_text().count("\n") < 2:
            assert job.poll() is None, job.communicate()[0]
            time.sleep(0.05)
        (tmp_path / "over").touch() if not number else job.send_signal(number)
        job.communicate(timeout=60)
        return job.returncode, calls.read_text().splitlines()

    return submit


def test_slurm_starts_ray_on_all_nodes_and_the_sweep_on_it(slurm, tmp_path):
    """One head, the others join it with the same token; the status of the job is that of the sweep."""
    status, calls = slurm()
    assert status == 2
    head, worker = sorted((call for call in calls if call.startswith("ray start")), key=lambda c: "--head" not in c)
    assert "--port=23456 --node-ip-address=192.0.2.1" in head
    assert "--address=192.0.2.1:23456" in worker and "--head" not in worker
    assert all("--num-cpus=16" in call for call in (head, worker))
    assert "egs sweep my sweep.yaml --out /shared/my out --address 192.0.2.1:23456" in calls
    tokens = (tmp_path / "tokens").read_text().splitlines()
    assert len(tokens) == 2 and len(set(tokens)) == 1 and re.fullmatch(r"token \w{64}", tokens[0])
    assert not [call for call in calls if call.startswith("scontrol")]


@pytest.mark.parametrize("number, again", [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_slurm_ends_the_sweep_in_order(slurm, number, again):
    """Before the time is over the job is queued again; a user who stops it does not want that."""
    status, calls = slurm(number)
    assert status == 143
    assert ("scontrol requeue 123456" in calls) == again


def test_slurm_warns_the_script_alone():
    """Without B: the signal would end Ray, and with it the runs that should write checkpoints."""
    text = SLURM.read_text()
    assert "#SBATCH --signal=B:USR1@" in text and "#SBATCH --requeue" in text


# ---- Kubernetes ----

def test_kuberay_job():
    """What the parts of the manifest say about each other, and about this kit."""
    job = yaml.safe_load((EXAMPLES / "kuberay-rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    assert f"ray[default,tune]=={cluster['rayVersion']}" in (ROOT / "pyproject.toml").read_text()
    assert cluster["authOptions"] == {"mode": "token"} and spec["shutdownAfterJobFinishes"] is True
    given = cli.parser().parse_args(shlex.split(spec["entrypoint"])[1:])
    assert given.out.startswith("s3://") and given.address == "auto"
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in groups):
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert container["envFrom"] == [{"secretRef": {"name": "egs-store"}}]
        cache = {entry["name"]: entry["value"] for entry in container["env"]}["EGS_CACHE"]
        assert cache in [mount["mountPath"] for mount in container["volumeMounts"]]
    assert str(given.file.parent) in [mount["mountPath"] for mount in groups[0]["template"]["spec"]["containers"][0][
        "volumeMounts"]]
    images = {group["template"]["spec"]["containers"][0]["image"] for group in groups}
    assert len(images) == 1, "head and workers need the same kit"
    for group in cluster["workerGroupSpecs"]:
        assert "nvidia.com/gpu" in group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


# ---- GitHub Actions ----

def test_github_workflow():
    """Valid by the schema where that is installed; its commands use files that exist; no secret is handed out."""
    work = yaml.safe_load((EXAMPLES / "github-actions.yml").read_text())
    triggers = work.pop(True)  # YAML 1.1 reads `on` as a truth value
    assert work["permissions"] == {"contents": "read"} and work["concurrency"] and "schedule" in triggers
    assert work["jobs"]["nightly"]["if"] == "github.event_name != 'pull_request'", "strangers' code on one's own runner"
    steps = [step for job in work["jobs"].values() for step in job["steps"]]
    for file in re.findall(r"examples/\S+", " ".join(step.get("run", "") for step in steps)):
        assert (ROOT / file).is_file(), file
    assert all("timeout-minutes" in job for job in work["jobs"].values())
    assert [s for s in steps if "upload-artifact" in s.get("uses", "") and "results.parquet" in s["with"]["path"]]
    found = find_spec("check_jsonschema")
    if found is None:
        pytest.skip("check-jsonschema, which has the schema, is not installed")
    from jsonschema import Draft7Validator

    schema = Path(found.origin).parent / "builtin_schemas" / "vendor" / "github-workflows.json"
    Draft7Validator(json.loads(schema.read_text())).validate({**work, "on": triggers})
