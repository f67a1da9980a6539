# make demo   a virtual environment, the package, 48 bundled pictures classified, demo.png
# make test   everything that is checked: C, Python, types, style; installs what it needs
# make docs   build/docs/html/index.html, examples run; a warning or a broken link inside is an error
# make wheel  dist: an sdist and a manylinux wheel, checked and tried in a bare environment; PYTHONS="python3.12 python3.13": these
VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip install --quiet --disable-pip-version-check
STYLED := diffcls tests benchmarks release docs/conf.py setup.py

.PHONY: demo test docs wheel check-c check-cuda check-compilers mutants gpu sanitize bench format lint clean

demo: $(VENV)/installed
	$(VENV)/bin/diffcls demo --out demo.png

test: $(VENV)/tested check-c check-cuda check-compilers lint docs
	cd tests && ../$(PYTHON) -m pytest -q

check-c:
	$(MAKE) -C tests/c check

docs: $(VENV)/tested
	$(VENV)/bin/sphinx-build -q -W --keep-going -b html docs build/docs/html
	$(VENV)/bin/sphinx-build -q -W --keep-going -b doctest docs build/docs/doctest

PYTHONS := $(PYTHON)

wheel: $(VENV)/bin/python
	$(PIP) --group release
	$(PYTHON) release/wheel.py --python $(PYTHONS)
	for python in $(PYTHONS); do $(PYTHON) tests/installed_wheel.py dist --python $$python || exit 1; done

# the CUDA sources, built by a host compiler and run by a device of host memory: see tests/cuda
check-cuda:
	$(MAKE) -s -C tests/cuda check

# mistakes planted in the CUDA sources, one at a time, are caught; many minutes
mutants:
	python3 tests/cuda/mutants.py

# all that needs a GPU, under 25 minutes: builds, tests, compute-sanitizer, benchmarks; benchmarks/results/gpu.json.  In an
# environment with the package's extras test and bench and a PyTorch for CUDA: GPU_PYTHON names its interpreter.  Fails where
# there is no GPU.
GPU_PYTHON := python3
gpu:
	$(GPU_PYTHON) benchmarks/gpu.py

# the core compiles without a warning under every compiler at hand
check-compilers:
	for compiler in gcc clang aarch64-linux-gnu-gcc; do \
	    if command -v $$compiler > /dev/null; then $(MAKE) -C tests/c objects CC=$$compiler BUILD=../../build/$$compiler || exit 1; fi; \
	done

lint: $(VENV)/tested
	$(VENV)/bin/ruff format --check $(STYLED)
	$(VENV)/bin/ruff check $(STYLED)
	$(VENV)/bin/mypy
	cd tests && ../$(PYTHON) -m mypy.stubtest diffcls._core --mypy-config-file ../pyproject.toml
	cd tests && if ../$(PYTHON) -c 'import diffcls._cuda' 2> /dev/null; then \
	    ../$(PYTHON) -m mypy.stubtest diffcls._cuda --mypy-config-file ../pyproject.toml; fi

# AddressSanitizer and UndefinedBehaviorSanitizer: C tests, then the Python suite on a sanitized build of the package.
# PyTorch's own library can not be loaded under ASan's allocator here, so tests marked `torch` stay out.
sanitize: $(VENV)/tested
	$(MAKE) -C tests/c check SANITIZE=1
	rm -rf build/sanitize && mkdir -p build/sanitize
	cp -r setup.py pyproject.toml Makefile *.md *.cff LICENSE csrc diffcls docs notebooks tests benchmarks build/sanitize/
	rm -f build/sanitize/diffcls/*.so
	cd build/sanitize && DIFFCLS_SANITIZE=1 ../../$(PYTHON) setup.py -q build_ext --inplace
	cd build/sanitize && LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0:halt_on_error=1:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 PYTHONMALLOC=malloc \
	    PYTHONPATH=. ../../$(PYTHON) -m pytest -q -m "not torch and not installed and not memory" tests
	cd build/sanitize && LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0:halt_on_error=1:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1 PYTHONMALLOC=malloc \
	    PYTHONPATH=. ../../$(PYTHON) tests/fuzz.py --cases $(or $(CASES),20000)

bench: $(VENV)/tested
	$(PIP) '.[bench]'
	for script in benchmarks/[a-z]*.py; do \
	    case $$script in *common.py|*/gpu*.py) ;; *) echo "== $$script"; $(PYTHON) $$script || exit 1;; esac; \
	done

format: $(VENV)/tested
	$(VENV)/bin/ruff format $(STYLED)

$(VENV)/bin/python:
	python3 -m venv $(VENV)
	$(PIP) --upgrade pip

SOURCES := $(shell find csrc diffcls -name '*.[ch]' -o -name '*.py' -o -name '*.json' -o -name '*.safetensors' -o -name '*.npz' -o -name '*.tsv' -o -name '*.txt')

$(VENV)/installed: $(VENV)/bin/python setup.py pyproject.toml $(SOURCES)
	$(PIP) '.[plot,progress]'
	touch $@

# torch is named by a version that exists as a CPU build; a plain "torch" pulls gigabytes of CUDA
$(VENV)/tested: $(VENV)/bin/python setup.py pyproject.toml $(SOURCES)
	$(PIP) torch==2.13.0
	DIFFCLS_WERROR=1 $(PIP) '.[test,docs]'
	touch $@ $(VENV)/installed

clean:
	rm -rf build dist $(VENV) *.egg-info diffcls/*.so demo.png
