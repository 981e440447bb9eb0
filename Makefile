# make train | test | test-long | hostile | test-suites | test-cluster | test-browser | test-wandb | lint | bench | clean. The first use of each installs what it needs into $(VENV).
#   PYTHON=/path/to/python   the interpreter for a new $(VENV) (default: the first 3.12 or 3.11 found)
#   VENV=.venv-3.11          another environment beside the default one
#   SUITES_VENV=.venv-suites the environment of test-suites, which has other suites beside the pins
#   CLUSTER_VENV=.venv-cluster the environment of test-cluster, which has Ray beside the pins
#   ARGS="..."               more arguments for the command, such as ARGS="--seeds 4"

VENV ?= .venv
SUITES_VENV ?= .venv-suites
CLUSTER_VENV ?= .venv-cluster
ARGS ?=
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check -qq
PINS := pyproject.toml constraints-3.11.txt constraints-3.12.txt

.DELETE_ON_ERROR:
.PHONY: help venv train test test-long hostile test-suites test-cluster test-browser test-wandb suites cluster chromium lint bench clean

help:
	@sed -n '1,6s/^# //p' Makefile

# Usable environments are kept, broken ones (an interpreter that has gone) are made anew, and one of
# an unfit version is left alone and reported.
$(VENV)/.created:
	@set -e; \
	if [ -e $(VENV)/bin/python ] && $(VENV)/bin/python -m pip --version >/dev/null 2>&1; then \
		python=; \
	else \
		python="$(PYTHON)"; [ -n "$$python" ] || python=$$(.ci/find-python); \
		echo "Creating $(VENV) with $$("$$python" --version)"; \
		"$$python" -m venv --clear $(VENV); \
	fi; \
	version=$$($(VENV)/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	if [ ! -e constraints-$$version.txt ]; then \
		[ -z "$$python" ] || rm -rf $(VENV); \
		echo "error: $(VENV) would use Python $$version; pinned versions exist for 3.11 and 3.12" \
			"(choose one with PYTHON=..., or another folder with VENV=...)" >&2; \
		exit 1; \
	fi; \
	echo "$$version" > $@

venv: $(VENV)/.created
	@:

# The build backend comes first and pinned, so that building dqx fetches nothing on its own. Bytecode
# is left to whoever imports a module, which is half of the time: few modules ever are.
# $(call install,EXTRAS[,MORE PINS])
define install
	@set -e; pins=constraints-$$(cat $(VENV)/.created).txt; \
	echo "Installing dqx$(1) into $(VENV), pinned by $$pins $(2) (takes minutes the first time)"; \
	$(PIP) install --no-compile -c $$pins hatchling; \
	$(PIP) install --no-compile -c $$pins $(2:%=-c %) --no-build-isolation -e '.$(1)'
	@touch $@
endef

$(VENV)/.installed: $(VENV)/.created $(PINS)
	$(call install,)

$(VENV)/.installed-test: $(VENV)/.installed
	$(call install,[test])

$(VENV)/.installed-bench: $(VENV)/.installed
	$(call install,[bench])

$(VENV)/.installed-browser: $(VENV)/.installed-test
	$(call install,[browser])

$(VENV)/.installed-wandb: $(VENV)/.installed-test constraints-suites.txt
	$(call install,[wandb],constraints-suites.txt)

$(VENV)/.installed-cluster: $(VENV)/.installed-test constraints-suites.txt
	$(call install,[cluster],constraints-suites.txt)

comma := ,
SUITES := craftax$(comma)jaxtari$(comma)jumanji$(comma)navix$(comma)pgx$(comma)xminigrid

$(VENV)/.installed-suites: $(VENV)/.installed-test constraints-suites.txt
	$(call install,[$(SUITES)],constraints-suites.txt)

train: $(VENV)/.installed
	$(VENV)/bin/dqx train cartpole --out runs/cartpole --overwrite $(ARGS)

test: $(VENV)/.installed-test
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# What takes minutes in all and is run on one Python: more cases, more kills, the scripts.
test-long: $(VENV)/.installed-test
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m long $(ARGS)

# Kills, damage, hostile folders, full disks, wrong lines and calls: six minutes on 2 idle cores.
# ARGS="-k kills" runs a part, ARGS="--table docs/hostile.md" writes the numbers down.
hostile: $(VENV)/.installed-test
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m hostile tests/hostile $(ARGS)

# One Python is enough, and navix needs 3.12.
test-suites:
	@python="$(PYTHON)"; [ -n "$$python" ] || python=$$(.ci/find-python 3.12); \
	$(MAKE) --no-print-directory VENV=$(SUITES_VENV) PYTHON="$$python" suites
	$(SUITES_VENV)/bin/python -m pytest -n 2 --dist load --maxschedchunk 1 -m suites tests/envs/test_suites.py tests/core/test_distributional.py tests/core/test_rlax.py $(ARGS)

# On one Python: what differs between versions is Ray's. Nodes are processes of this machine.
test-cluster:
	@python="$(PYTHON)"; [ -n "$$python" ] || python=$$(.ci/find-python); \
	$(MAKE) --no-print-directory VENV=$(CLUSTER_VENV) PYTHON="$$python" cluster
	$(CLUSTER_VENV)/bin/python -m pytest -m cluster tests/study/test_study_cluster.py $(ARGS)

# The page in a headless Chromium, Debian's, which is installed if there is none (CHROMIUM=... names
# another).
test-browser: $(VENV)/.installed-browser chromium
	$(VENV)/bin/python -m pytest -m browser tests/report/test_*_browser.py $(ARGS)

# Weights & Biases, offline.
test-wandb: $(VENV)/.installed-wandb
	$(VENV)/bin/python -m pytest -m wandb tests/report/test_trackers_wandb.py $(ARGS)

chromium:
	@[ -n "$$CHROMIUM" ] || command -v chromium >/dev/null || { echo "Installing chromium"; \
		apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium fonts-dejavu-core \
		>/dev/null; }

suites: $(VENV)/.installed-suites
	@:

cluster: $(VENV)/.installed-cluster
	@:

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy dqx envs

bench: $(VENV)/.installed-bench
	$(VENV)/bin/python benchmarks/throughput.py $(ARGS)

# Keeps runs/.
clean:
	rm -rf .venv .venv-3.11 .venv-3.12 $(SUITES_VENV) $(CLUSTER_VENV) build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
