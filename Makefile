# The two commands of the README are `make demo` and `make test`; each sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q --root-user-action=ignore -c constraints.txt
export OMP_NUM_THREADS := 1
# The tests start hundreds of interpreters, which must not each compile the sources anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slurm chaos check fmt smoke report docs fidelity bench bench-gpu clean

# From a bare clone to a report in 15 minutes on two slow cores: installing takes 2.5, writing the report under one.
# A quick machine has trained the part before its budget is spent. A spent budget ends with exit code 3; `make demo`
# again goes on from there.
BUDGET ?= 11min
DEMO := studies/bag_of_tricks.yaml --table table4 --column BS=1024
demo: .venv/runtime  ## half of Bag of Tricks' Table 4 on embedded real data, at most 11 minutes, to a report; again: go on
	$(BIN)/harness run $(DEMO) --budget $(BUDGET) || [ $$? -eq 3 ]
	@echo "all of it, which takes an hour or more: $(BIN)/harness run studies/bag_of_tricks.yaml"

test: .venv/dev  ## every test but the campaigns, 3 to 4 minutes on 2 quiet cores
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not campaign" $(AGAIN)

.PHONY: test-campaigns
test-campaigns: .venv/dev  ## kills, fuzzing, error rates, browser, LaTeX, examples: the long tests; 5 minutes on 2 quiet cores
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "campaign and not slow" $(AGAIN)

# What trains or computes networks runs a second time as on a CPU that has nothing newer than AVX2.
CAPPED := tests/training tests/models tests/tricks tests/test_tricks_contract.py tests/plugins tests/end_to_end \
  tests/chaos tests/scheduling/test_ranks_training.py
.PHONY: test-capped
test-capped: export ONEDNN_MAX_CPU_ISA := AVX2
test-capped: export ATEN_CPU_CAPABILITY := avx2
test-capped: .venv/dev  ## the tests that train, with the CPU's instruction set capped at AVX2; 5 minutes on 2 cores
	$(BIN)/python -m tests.capped
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(CAPPED) $(AGAIN)

test-slurm: .venv/dev  ## a real Slurm cluster on this machine: installed (apt, root), started and stopped
	$(BIN)/python -m pytest -n 3 --dist worksteal -ra tests/slurm $(AGAIN)

KILLS ?= 30
chaos: .venv/dev  ## kill a study at every write and at any time, see that nothing is lost; KILLS=1000: with Slurm
	nice $(BIN)/python -m tests.chaos --kills $(KILLS)

.PHONY: fuzz test-servers
fuzz: .venv/dev  ## 10,000 damaged studies, 300 damaged sets of records, 200 mutations of each file: no traceback; 2 hours
	nice $(BIN)/python -m tests.fuzz.campaign --cases 10000
	nice $(BIN)/python -m tests.fuzz.records --cases 300
	nice $(BIN)/python -m tests.fuzz.files --mutations 200

VERSIONS ?= lowest-direct
WITH ?= $(BIN)/python
.PHONY: test-versions
test-versions: .venv/dev  ## a light part of the tests with the oldest versions that pyproject.toml allows; VERSIONS=highest WITH=python3.13
	$(BIN)/python scripts/try_versions.py $(VERSIONS) --python $(WITH)

test-servers: .venv/dev  ## the mirror on a real PostgreSQL (apt-get install postgresql) and real MLflow servers; 2 minutes
	$(BIN)/python -m pytest -ra tests/tracking/test_servers.py $(AGAIN)

check: .venv/dev  ## format, lint, types, house rules, the same tests on every machine, generated docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_house.py tests/test_docs.py tests/test_collection.py
	$(BIN)/python scripts/make_docs.py --check
	$(BIN)/python scripts/measure_house.py

fmt: .venv/dev  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

smoke: .venv/runtime  ## every study, end to end to the report, in its smallest form
	$(BIN)/python scripts/smoke.py

report: .venv/runtime  ## write the report of the demo again from what has been run
	$(BIN)/harness report $(DEMO)

.PHONY: reports
reports: .venv/runtime  ## draw the committed reports again from their own records, where nothing but their looks changes
	$(BIN)/python scripts/rewrite_reports.py

docs: .venv/dev  ## write the generated pages and model costs again
	$(BIN)/python scripts/make_docs.py

.PHONY: docs-site
docs-site: .venv/site  ## the documentation as a web site in build/site, every link checked, nothing loaded from elsewhere
	$(BIN)/python scripts/docs_site.py

fidelity: .venv/dev  ## compare every network with torchvision and timm again, write docs/fidelity.md
	$(BIN)/python scripts/make_docs.py --fidelity

bench: .venv/dev  ## the figures of docs/performance.md that need no GPU
	$(BIN)/python benchmarks/run_all.py

.PHONY: validate-statistics
validate-statistics: .venv/dev  ## error rates of the verdicts on simulated tables beside their targets; 2 to 4 minutes
	$(BIN)/python benchmarks/validate_statistics.py

bench-gpu:  ## the figures that need a GPU, with the python3 at hand; CALL=1, CALL=2: one of the two halves, at most 330 s
	$(PYTHON) benchmarks/gpu.py $(if $(CALL),--call $(CALL))

clean:  ## remove the environment and every run; reports stay
	rm -rf .venv runs mlflow.db mlartifacts

.venv/runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; say which with 'make PYTHON=python3.12 ...'"; exit 2; }
	$(PYTHON) -m venv .venv
	$(PIP) -e . --config-settings editable_mode=compat
	@touch $@

.venv/dev: .venv/runtime
	$(PIP) -e '.[dev]' --config-settings editable_mode=compat
	@touch $@

.venv/site: .venv/runtime
	$(PIP) -e '.[site]' --config-settings editable_mode=compat
	@touch $@
