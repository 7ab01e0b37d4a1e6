# Every target makes the environment it needs. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
export PYTHONPATH :=

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

.venv/.ready: requirements.lock pyproject.toml
	@command -v python3 >/dev/null || { echo "python3 (3.11 or newer) is missing: install it first"; exit 1; }
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; python3 is $$(python3 --version)"; exit 1; }
	@echo "making .venv from requirements.lock"
	@python3 -m venv .venv || { echo "python3 cannot make a virtual environment: install its venv module (Debian: python3-venv)"; exit 1; }
	@.venv/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@.venv/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: env
env: .venv/.ready ## make .venv from the lock file

# What runs in production: the core compiled, in a copy of the package, so that no stale module hides a source.
COMPILED := $(CURDIR)/build/compiled

CORE := $(shell find operator/taskdist/core operator/taskdist/api -name '*.py')

build/core/.ready: $(CORE) hatch_build.py .venv/.ready
	@command -v $${CC:-gcc} >/dev/null || { echo "a C compiler is missing, which make compiled needs: install gcc and the C library's headers (Debian: gcc libc6-dev)"; exit 1; }
	@$(PY) -c 'import pathlib, sys, sysconfig; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' || { echo "Python's headers are missing, which make compiled needs (Debian: python3-dev)"; exit 1; }
	@echo "compiling the core: four to five minutes of one core"
	@rm -rf build/core
	@TASKDIST_COMPILE=1 .venv/bin/pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w build/wheels .
	@touch $@

# What mypyc refuses though mypy does not, by translating alone: 15 s where the core has changed, nothing else.
build/translated/.ready: $(CORE) hatch_build.py pyproject.toml .venv/.ready
	@mkdir -p build/translated
	$(PY) hatch_build.py > build/translated/said.txt 2>&1 || { cat build/translated/said.txt; exit 1; }
	@touch $@

.PHONY: compiled
compiled: build/core/.ready ## the package with its core compiled, in build/compiled (for PYTHONPATH)
	@rm -rf $(COMPILED) && mkdir -p $(COMPILED)
	@cp -r operator/taskdist $(COMPILED)/ && cp -r build/core/lib/. $(COMPILED)/

.PHONY: binaries
binaries: env ## find, download or build etcd, kube-apiserver and kubectl (cached, keyed by version)
	@$(PY) -m taskdist.local binaries etcd kube-apiserver kube-controller-manager kubectl

.PHONY: test-binaries
test-binaries: binaries
	@$(PY) -m taskdist.local binaries helm kubeconform

.PHONY: demo
demo: $(if $(CLUSTER),env,binaries) ## run the main job end to end; KEEP=1 leaves it running, CLUSTER=current uses kubectl's cluster
	@$(PY) -m taskdist.local demo $(if $(KEEP),--keep) $(if $(CLUSTER),--cluster $(CLUSTER)) $(if $(IMAGE),--image $(IMAGE)) $(if $(COUNT),--count $(COUNT))

.PHONY: demo-stop
demo-stop: env ## end what `make demo KEEP=1` left running
	@$(PY) -m taskdist.local demo --stop

.PHONY: verify
verify: check ## what a commit leaves green: all that `make check` looks at, and unit tests on the source
	$(PY) -m pytest tests/unit -q -n 2 -m "not long and not statistical"

.PHONY: check
check: env ## formatted, linted, typed, layered, generated files match, docs build, all tests load
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	@$(MAKE) --no-print-directory build/translated/.ready
	$(PY) -m taskdist.api.crd --check crds
	$(PY) -m taskdist.api.crd --check charts/taskdist/files/crds
	$(PY) -m taskdist.api.reference --check docs/reference
	$(PY) -m taskdist.link.generate --check
	.venv/bin/mkdocs build --quiet --strict --site-dir build/site
	$(PY) -m pytest tests --collect-only -qq > build/collected.txt || { cat build/collected.txt; exit 1; }

.PHONY: test
test: test-binaries compiled ## all tests, with the core as production has it: unit, faults in virtual time, integration on a real API server
	PYTHONPATH=$(COMPILED) $(PY) -m pytest tests/unit -q -n 2 -m "not long"
	PYTHONPATH=$(COMPILED) $(PY) -m pytest tests/faults -q -m "not long"
	PYTHONPATH=$(COMPILED) $(PY) -m pytest tests/integration -q

.PHONY: test-doors
test-doors: test-binaries compiled ## what brings work in or takes results out, on real databases and brokers, and by other makers' clients (Node.js 20)
	PYTHONPATH=$(COMPILED) $(PY) -m pytest tests/doors -q -m "not long"

.PHONY: test-doors-long
test-doors-long: test-binaries compiled ## the same with a hundred kills each
	PYTHONPATH=$(COMPILED) $(PY) -m pytest tests/doors -q -m long --timeout 1800

.PHONY: test-long
test-long: compiled ## what takes longer: long simulations, the headline
	PYTHONPATH=$(COMPILED) $(PY) -m pytest tests/unit -q -n 2 -m long --timeout 1800

# Those before 100,000 are played by make test. A million takes more than an hour.
HISTORIES ?= 1000000
SEED ?= 100000
.PHONY: histories
histories: compiled ## more histories of the lease protocol: HISTORIES of them, from SEED on
	PYTHONPATH=$(COMPILED) TASKDIST_HISTORIES=$(HISTORIES) TASKDIST_SEED=$(SEED) $(PY) -m pytest tests/faults/test_histories.py -q -k no_history --timeout 0

.PHONY: bench-core
bench-core: compiled ## decisions a second, growth with size, bytes a Task; JSON on the last line
	@PYTHONPATH=$(COMPILED) $(PY) tests/benchmarks/bench_core.py

.PHONY: bench-strategies
bench-strategies: compiled ## what a pick costs by each strategy, by number of agents; JSON on the last line
	@PYTHONPATH=$(COMPILED) $(PY) tests/benchmarks/bench_strategies.py

.PHONY: bench-limits
bench-limits: compiled ## what a start costs while a limit holds all others, by kind of limit; JSON on the last line
	@PYTHONPATH=$(COMPILED) $(PY) tests/benchmarks/bench_limits.py

.PHONY: bench-explain
bench-explain: compiled ## how long an explanation takes where 100,000 Tasks wait; JSON on the last line
	@PYTHONPATH=$(COMPILED) $(PY) tests/benchmarks/bench_explain.py

.PHONY: bench-dispatch
bench-dispatch: binaries compiled ## create-acknowledged to handler started, beside a lone status patch; JSON on the last line
	@PYTHONPATH=$(COMPILED) $(PY) tests/benchmarks/bench_dispatch.py

.PHONY: bench-client
bench-client: binaries compiled ## Tasks a second by one client, there and back, and its requests; COUNT=1000; JSON on the last line
	@PYTHONPATH=$(COMPILED) $(PY) tests/benchmarks/bench_client.py $(if $(COUNT),--count $(COUNT))

build/rivals/.ready: tests/benchmarks/rivals/requirements.lock
	@python3 -m venv --clear build/rivals
	@build/rivals/bin/pip install -q --disable-pip-version-check --require-hashes -r $<
	@touch $@

.PHONY: bench-items
bench-items: binaries compiled build/rivals/.ready ## items a second, beside Celery and dramatiq on Redis (Debian: redis-server); COUNT=100000, ROUNDS=3; JSON on the last line
	@PYTHONPATH=$(COMPILED) $(PY) tests/benchmarks/bench_items.py $(if $(COUNT),--count $(COUNT)) $(if $(ROUNDS),--rounds $(ROUNDS))

.PHONY: bench-scale
bench-scale: binaries compiled ## how long a start and a takeover take where 20,000 Tasks wait; JSON on the last line
	@PYTHONPATH=$(COMPILED) $(PY) tests/benchmarks/bench_scale.py

.PHONY: generate
generate: test-binaries ## write crds/, the link's modules, the chart's copies and manifests/install.yaml anew
	@mkdir -p build
	$(PY) -m taskdist.api.crd crds
	$(PY) -m taskdist.api.crd charts/taskdist/files/crds
	$(PY) -m taskdist.api.reference docs/reference
	$(PY) -m taskdist.link.generate
	manifests/render > build/install.yaml && mv build/install.yaml manifests/install.yaml
	manifests/render gateway > build/gateway.yaml && mv build/gateway.yaml manifests/gateway.yaml

.PHONY: lock
lock: env ## pin the dependencies anew (needs uv)
	uv pip compile pyproject.toml --extra dev --generate-hashes --no-emit-index-url --no-header -p 3.11 --universal -o requirements.lock
	uv pip compile pyproject.toml --extra operator --extra sources --extra sinks --extra rabbitmq --extra kafka --extra sqs --extra archive --extra gateway --extra mcp --extra objects --generate-hashes --no-emit-index-url --no-header -p 3.11 --universal -o requirements-runtime.lock
	uv pip compile tests/benchmarks/rivals/requirements.in --generate-hashes --no-emit-index-url --no-header -p 3.11 --universal -o tests/benchmarks/rivals/requirements.lock

.PHONY: clean
clean: ## remove what targets made in the checkout; the binaries' cache stays
	rm -rf .venv build dist site .demo .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
