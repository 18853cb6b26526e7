# Needs Python 3.10, 3.11 or 3.12 and make, nothing else. `make help` lists the commands.

PYTHON ?=
CONFIG ?= production
UV     ?= uv
VENV   := .venv
BIN    := $(VENV)/bin
# pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, ...) apply
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --no-input

# The stamp's name carries what the environment was made of: another lock, another pyproject.toml or a moved folder asks
# for a new environment, and so does an installation that did not reach its end.
STAMP  := $(VENV)/.installed-$(shell { cat requirements.lock pyproject.toml; echo '$(CURDIR)'; } | cksum | cut -d ' ' -f 1)

# some systems set NAME to the computer's: only `make run NAME=...` counts
ifeq ($(origin NAME),environment)
NAME :=
endif

# through the environment, so that names with spaces and quotes arrive whole
export PYTHON VIDEO AUDIO NAME CONFIG

.DEFAULT_GOAL := help
.PHONY: help setup demo test bench lint lab screenshots run gallery lock clean

help:
	@echo 'make demo     sample clip -> trained head -> talking video, through all six notebooks (quick_test, 256 px)'
	@echo 'make test     all tests                           (PYTEST_ARGS="-k name" for some)'
	@echo 'make bench    measure this computer              (VIDEO=clip.mp4 for the preparation of your own clip)'
	@echo 'make lab      JupyterLab with the notebooks       (LAB_ARGS="--no-browser --port 8889")'
	@echo 'make screenshots  the notebooks of the demo in a browser, to outputs/screenshots (needs chromium)'
	@echo 'make run      all notebooks on your video         VIDEO=clip.mp4 [CONFIG=production] [AUDIO=speech.wav] [NAME=me]'
	@echo 'make gallery  all executed notebooks as a web site in outputs/gallery/, videos playing; works offline'
	@echo 'make setup    only the environment in .venv/      (PYTHON=/path/to/python3.11 to choose the interpreter)'
	@echo 'make lint     ruff'
	@echo 'make lock     resolve requirements.lock again     (needs uv)'
	@echo 'make clean    remove the environment, caches and the demo; your own data/ and outputs/ stay'
	@echo 'Each of them sets up what it needs first.'

setup: $(STAMP)

$(STAMP):
	@found=; for python in "$$PYTHON" python3.11 python3.12 python3.10 python3; do \
	  [ -n "$$python" ] || continue; \
	  if "$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
	      2>/dev/null; then found=$$python; break; fi; \
	  if [ -n "$$PYTHON" ]; then break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "error: expected Python 3.10, 3.11 or 3.12 with its venv module; found none that runs" \
	    "($${PYTHON:-tried python3.11, python3.12, python3.10, python3})." \
	    "Install one (Debian and Ubuntu: also python3-venv), or name it: make setup PYTHON=/path/to/python3.11" >&2; \
	  exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$("$$found" --version) (once; a few minutes)"; \
	"$$found" -m venv --clear $(VENV)
# torch with its dependencies, because a CUDA build brings packages that a CPU build does not have; everything else
# exactly as locked, without the packages that mediapipe asks for and does not need (see pyproject.toml)
	$(PIP) -c requirements.lock "$$(grep '^torch==' requirements.lock)"
	$(PIP) --no-deps -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)
	@$(BIN)/egs run data/sample/clip.mp4 --config quick_test --audio data/sample/speech.wav --name demo --size 256

test: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

bench: $(STAMP)
	$(BIN)/egs prepare data/sample/clip.mp4 data/bench --size 256
	$(BIN)/python benchmarks/run.py data/bench --video "$${VIDEO:-data/sample/clip.mp4}" --out benchmarks/results/cpu.json
	$(BIN)/python benchmarks/report.py

lint: $(STAMP)
	$(BIN)/ruff check .

lab: $(STAMP)
	$(BIN)/python -m jupyterlab --ServerApp.root_dir=. $(LAB_ARGS) notebooks

screenshots: $(STAMP)
	@[ -d outputs/demo/runs/quick_test ] || $(MAKE) demo
	@$(BIN)/python tests/browser/lab.py outputs/screenshots

run: $(STAMP)
	@if [ -z "$$VIDEO" ]; then \
	  echo 'error: expected VIDEO=clip.mp4; found none. make run VIDEO=clip.mp4 [CONFIG=production] [AUDIO=speech.wav] [NAME=me]' >&2; \
	  exit 2; \
	fi; \
	$(BIN)/egs run "$$VIDEO" --config "$$CONFIG" $${AUDIO:+--audio "$$AUDIO"} $${NAME:+--name "$$NAME"}

gallery: $(STAMP)
	@$(BIN)/egs gallery

# --universal: one file for Python 3.10-3.12; the lines for 3.13, which mediapipe does not have, are dropped
lock:
	{ echo '# Every version that `make setup` installs, on Python 3.10-3.12. Made by `make lock` from pyproject.toml and'; \
	  echo '# requirements.in; torch first, with its own dependencies, then this file with --no-deps (see the Makefile).'; \
	  $(UV) pip compile pyproject.toml requirements.in --extra notebooks --extra gpu --extra test --extra sample --extra asr \
	    --universal --fork-strategy fewest --python-version 3.10 --no-header --no-annotate --quiet \
	  | grep -v "python_full_version >= '3.13'"; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache outputs/demo data/demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
