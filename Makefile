# Needs make and Python 3.10, 3.11 or 3.12, nothing else; a newer Python or uv brings one, from the network. `make help`
# lists the commands.

PYTHON ?=
CONFIG ?= production
UV     ?= uv
VENV   := .venv
UVHOME := .uv
BIN    := $(VENV)/bin
# pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, ...) apply
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --no-input

# two processes: most tests use one core
PYTEST := -m pytest -n 2

# The stamp's name carries what the environment was made of: another lock, another pyproject.toml or a moved folder asks
# for a new environment, and so does an installation that did not reach its end.
STAMP  := $(VENV)/.installed-$(shell { cat requirements.lock requirements.in pyproject.toml; pwd -P; } | cksum | \
  cut -d ' ' -f 1)

# some systems set such variables for other ends: only `make run NAME=...` counts
$(foreach name,NAME DEVICE FILE OUT ADDRESS,$(if $(filter environment,$(origin $(name))),$(eval $(name) :=)))

# Names go through the environment and never into the text of a command: they arrive whole, nothing in them is executed.
# $(value ...): make itself would expand a name with a $ in it when it exports it.
NAMES  := PYTHON UV VIDEO AUDIO NAME CONFIG DEVICE FILE OUT ADDRESS LAB_ARGS PYTEST_ARGS
$(foreach name,$(NAMES),$(eval override $(name) := $$(value $(name))))
export $(NAMES)

# python with the arguments that a variable holds added to its own: split at spaces, quotes respected, nothing expanded
WITH    = $(BIN)/python -c 'import os, shlex, sys; \
  os.execv(sys.executable, [sys.executable, *sys.argv[2:], *shlex.split(os.getenv(sys.argv[1], ""))])' $(1)

.DEFAULT_GOAL := help
.PHONY: help setup gpu demo test check bench lint lab screenshots run sweep gallery docs web lock clean

help:
	@echo 'make demo     sample clip -> trained head -> talking video, through all eight notebooks (quick_test, 256 px)'
	@echo 'make check    lint and the quick tests, about 100 s: no browser, no notebooks, no long training'
	@echo 'make test     all tests, 11 min on 2 cores        (PYTEST_ARGS="-k name" for some)'
	@echo 'make bench    measure this computer              (VIDEO=clip.mp4 for the preparation of your own clip)'
	@echo 'make lab      JupyterLab with the notebooks       (LAB_ARGS="--no-browser --port 8889")'
	@echo 'make screenshots  the notebooks of the demo in a browser, to outputs/screenshots (needs chromium)'
	@echo 'make run      all notebooks on your video         VIDEO=clip.mp4 [CONFIG=production] [AUDIO=speech.wav] [NAME=me]'
	@echo 'make sweep    many notebook runs from one file    FILE=sweep.yaml [OUT=folder] [ADDRESS=of a Ray cluster]'
	@echo 'make gallery  all executed notebooks as a web site in outputs/gallery/, videos playing; works offline'
	@echo 'make docs     README, docs and the API reference as a web site in outputs/docs/; works offline'
	@echo 'make web      build the page of egs.export_web from web/ again (needs Node.js 20 or newer and npm)'
	@echo 'make setup    only the environment in .venv/, and what an NVIDIA card needs (PYTHON=/path/to/python3.11 to choose)'
	@echo 'make lint     ruff, and mypy on the package'
	@echo 'make lock     resolve requirements.lock again, with hashes (needs uv)'
	@echo 'make clean    remove the environment, caches and the demo; your own data/ and outputs/ stay'
	@echo 'Each of them sets up what it needs first. DEVICE=cpu keeps demo and run off the NVIDIA card.'

setup: gpu

# Says nothing where there is no NVIDIA card, and one line where it is ready already. What is missing for the card is
# said in one line, and does not stop the rest.
gpu: $(STAMP)
	@$(BIN)/python -m egstalker_nb.cuda_setup

$(STAMP):
	@found=; for python in "$$PYTHON" python3.11 python3.12 python3.10 python3; do \
	  [ -n "$$python" ] || continue; \
	  if "$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
	      2>/dev/null; then found=$$python; break; fi; \
	  if [ -n "$$PYTHON" ]; then break; fi; \
	done; \
	reason=; \
	if [ -z "$$found" ] && [ -z "$$PYTHON" ]; then \
	  mkdir -p $(UVHOME); \
	  uv=$$(command -v "$$UV"); \
	  for python in python3 python; do \
	    [ -z "$$uv" ] || break; \
	    { "$$python" -m pip install --retries 1 --target $(UVHOME) uv || \
	      { "$$python" -m venv --clear $(UVHOME) && $(UVHOME)/bin/python -m pip install --retries 1 uv; }; \
	    } >$(UVHOME)/log 2>&1 && uv=$(UVHOME)/bin/uv; \
	  done; \
	  if [ -n "$$uv" ]; then \
	    echo 'No Python 3.10 to 3.12 here: uv brings Python 3.12 (once)'; \
	    rm -rf $(UVHOME)/python; \
	    if "$$uv" venv --no-project --python 3.12 --python-preference only-managed $(UVHOME)/python \
	        >$(UVHOME)/log 2>&1; then found=$(UVHOME)/python/bin/python; \
	    else reason="; uv could not bring one: $$(echo $$(grep -v '^ *$$' $(UVHOME)/log | tail -n 1))"; fi; \
	  fi; \
	fi; \
	if [ -z "$$found" ]; then \
	  rm -rf $(UVHOME); \
	  echo "error: expected Python 3.10, 3.11 or 3.12 with its venv module; found none that runs" \
	    "($${PYTHON:-tried python3.11, python3.12, python3.10, python3}$$reason)." \
	    "Install one (Debian and Ubuntu: also python3-venv) or uv, or name it: make setup PYTHON=/path/to/python3.11" >&2; \
	  exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$("$$found" --version) (once; a few minutes)"; \
	"$$found" -m venv --clear $(VENV)
# exactly the locked files, without the packages that mediapipe asks for and does not need (see pyproject.toml); then
# torch, whose builds for the CPU and for CUDA are different files, and the packages that a CUDA build brings
	$(PIP) --require-hashes --no-deps -r requirements.lock
	$(PIP) "$$(grep -o '^torch==[0-9.]*' requirements.in)"
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

demo: gpu
	@$(BIN)/egs run data/sample/clip.mp4 --config quick_test --audio data/sample/speech.wav --name demo --size 256 \
	  $${DEVICE:+"--device=$$DEVICE"}

test: gpu
	$(call WITH,PYTEST_ARGS) $(PYTEST)

check: lint
	$(call WITH,PYTEST_ARGS) $(PYTEST) -m "not slow and not browser"

bench: gpu
	$(BIN)/egs prepare data/sample/clip.mp4 data/bench --size 256
	$(BIN)/python benchmarks/run.py data/bench "--video=$${VIDEO:-data/sample/clip.mp4}" --out benchmarks/results/cpu.json
	$(BIN)/python benchmarks/report.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

lab: gpu
	$(call WITH,LAB_ARGS) -m jupyterlab --ServerApp.root_dir=. notebooks

screenshots: gpu
	@[ -d outputs/demo/runs/quick_test ] || $(MAKE) demo
	@$(BIN)/python tests/browser/lab.py outputs/screenshots

run: gpu
	@if [ -z "$$VIDEO" ]; then \
	  echo 'error: expected VIDEO=clip.mp4; found none. make run VIDEO=clip.mp4 [CONFIG=production] [AUDIO=speech.wav] [NAME=me] [DEVICE=cpu]' >&2; \
	  exit 2; \
	fi; \
	$(BIN)/egs run "--config=$$CONFIG" $${AUDIO:+"--audio=$$AUDIO"} $${NAME:+"--name=$$NAME"} \
	  $${DEVICE:+"--device=$$DEVICE"} -- "$$VIDEO"

sweep: gpu
	@if [ -z "$$FILE" ]; then \
	  echo 'error: expected FILE=sweep.yaml; found none. make sweep FILE=sweep.yaml [OUT=folder] [ADDRESS=host:6379]' >&2; \
	  exit 2; \
	fi; \
	$(BIN)/egs sweep $${OUT:+"--out=$$OUT"} $${ADDRESS:+"--address=$$ADDRESS"} -- "$$FILE"

gallery: $(STAMP)
	@$(BIN)/egs gallery

docs: $(STAMP)
	@$(BIN)/python tools/docs/build.py outputs/docs

# the built page is committed, so that users need no Node.js; tests/browser/test_web_page.py builds it again
web: $(STAMP)
	@$(BIN)/python tools/web_page.py

# --universal: one file for Python 3.10-3.12. The versions first, then the hashes of all their files.
lock:
	@"$$UV" pip compile pyproject.toml requirements.in --extra notebooks --extra cluster --extra gpu --extra test \
	  --extra sample --extra asr --extra models --extra viewer --extra tracking --extra metrics --extra tts --extra live \
	  --extra docs \
	  --universal --fork-strategy fewest --python-version 3.10 --no-header --no-annotate \
	  --quiet --output-file requirements.lock.new
	@python3 tools/lock_hashes.py requirements.lock.new requirements.lock
	@rm requirements.lock.new

clean:
	rm -rf $(VENV) $(UVHOME) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache outputs/demo data/demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
