# Every target works on a fresh clone: it creates .venv and installs what it needs, once.

VENV := .venv
BIN := $(VENV)/bin
CHECKPOINT := models/checkpoints/digits_w2a2.pt

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-all bench bench-kernels fuzz wasm lint clean
.DELETE_ON_ERROR:
.SECONDARY:

# Convert the committed 2-bit digits network, then compare it with its checkpoint on digits it was not trained on.
demo: $(VENV)/.installed-demo
	$(BIN)/qexport convert $(CHECKPOINT) --bits 2 --format onnx,onnx-qdq,qpk -o out
	$(BIN)/python -m qexport.models.digits_data out/digits_test.npz
	$(BIN)/qexport validate out/model.onnx out/model.qpk --checkpoint $(CHECKPOINT) --data out/digits_test.npz --max-drop 0.5

# One worker a core, each with single-threaded arithmetic; a file stays with one worker, so that its fixtures are made once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --maxprocesses 4 --dist loadfile

test: $(VENV)/.installed-test
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.installed-test
	$(PYTEST)

# Half an hour: time, memory and load time of the fixed networks beside other engines, into docs/benchmarks.md; then conversion.
bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/speed.py --write docs/benchmarks.md
	$(BIN)/python benchmarks/conversion.py

# The speed of every kernel of the C runtime on the shapes of runtime/bench/shapes.h, for the instruction sets at hand.
bench-kernels:
	cmake -S runtime -B build/bench -DQXR_BUILD_BENCH=ON
	cmake --build build/bench --target qxr_bench --parallel 2
	build/bench/bench/qxr_bench

# Fuzz the C runtime for FUZZ_SECONDS of processor time on two workers. Files that reach new code gather in build/fuzz/corpus;
# a finding is left in build/fuzz, ends the run with an error, and belongs in runtime/fuzz/regressions once it is fixed.
FUZZ_SECONDS := 1200
CLANG = $(shell for c in clang clang-20 clang-19 clang-18 clang-17 clang-16 clang-15 clang-14; do command -v $$c && break; done)
fuzz:
	cmake -S runtime -B build/fuzz -DCMAKE_C_COMPILER=$(or $(CLANG),clang) -DQXR_BUILD_FUZZ=ON
	cmake --build build/fuzz --target qxr_fuzz --parallel 2
	mkdir -p build/fuzz/corpus
	cd build/fuzz && fuzz/qxr_fuzz -jobs=2 -workers=2 -max_total_time=$$(($(FUZZ_SECONDS) / 2)) -max_len=16384 -timeout=20 \
		corpus ../../runtime/fuzz/corpus ../../runtime/fuzz/regressions

# The runtime as a WebAssembly module, which is committed; a test fails when its sources have changed.
wasm: $(VENV)/.installed-test
	$(BIN)/python runtime/wasm/build.py

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) out build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each extra of pyproject.toml. The constraints keep pip from taking a newer torch than the tested one.
# A changed C source means installing again, which builds the extension: Python sources need nothing.
RUNTIME := $(wildcard runtime/CMakeLists.txt runtime/include/*.h runtime/src/*.[ch] runtime/src/*/*.[ch] runtime/python/*)

$(VENV)/.installed-%: pyproject.toml requirements/constraints.txt $(RUNTIME) $(VENV)/.created
	@echo "Installing qexport[$*] into $(VENV); torch makes the first time take a minute or more."
	$(BIN)/pip install -q -c requirements/constraints.txt -e '.[$*]'
	@touch $@

$(VENV)/.created:
	scripts/create-venv $(VENV)
	@touch $@
