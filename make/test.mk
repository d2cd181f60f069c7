# To test: the suite, sanitizers, the fuzzer, clang-tidy. The simulator's programs are under ASan as they are.
GTEST    := -lgtest_main -lgtest
TEST_MAINS := tests/host/parallel/ranks.cpp
$(OUT)/test_%: LIBS = $(GTEST) $(CUDA_LIBS)
$(ROOMS:%=$(OUT)/test_%): $(OUT)/test_%: $$(call objects,$$(filter-out $(TEST_MAINS),$$(wildcard tests/$$(call folder,$$*)/*.cpp))) \
  $$(if $$(filter app,$$*),$(APP),$$(call archive,$$(KNOWS_$$*)))
	$(LINK)
# A program of several ranks, for tests/host/parallel/ranks_test.py.
$(OUT)/ranks: $(OUT)/tests/host/parallel/ranks.o $(call archive,$(KNOWS_parallel))
	$(LINK)
# The fuzzer: the readers of files and model text, without model and backends.
FUZZED := $(wildcard tests/fuzz/*.cpp host/train/settings*.cpp) host/train/objective.cpp host/app/json_lines.cpp host/app/streams.cpp \
  host/app/run_log.cpp host/app/chart.cpp host/app/html.cpp host/app/manifest.cpp host/train/run_state.cpp host/train/alarms.cpp \
  model/config.cpp model/params.cpp model/tensor_split.cpp
$(OUT)/test_fuzz: $(call objects,$(FUZZED)) $(call archive,verify tokenizer data core)
	$(LINK)

TESTS := $(addprefix $(OUT)/test_,$(ROOMS) fuzz $(if $(RELEASE),sim cuda))
test: deps  ## build and run every test; what is missing is installed first
	@$(MAKE) --no-print-directory run-tests
run-tests: $(TESTS) all $(if $(RELEASE),$(OUT)/ranks cuda-compile $(GPU_CHECK_SIM))
	@$(if $(RELEASE),$(MAKE) --no-print-directory VARIANT=race $(BUILD)/race/test_sim)
	@rm -f $(OUT)/launched && KERNELS_LAUNCHED=$(abspath $(OUT))/launched SIM_OBJECTS=$(SIM)/cuda GPU_CHECK_BIN=$(abspath $(SIM)):$(abspath $(OUT)) \
	  tests/run.sh $(TESTS) $(if $(RELEASE),tests/kernels_test.py $(BUILD)/race/test_sim tests/gpu_check_test.py tests/scaling_test.py \
	    tests/host/app/crash_test.py tests/host/parallel/ranks_test.py tests/host/parallel/train_ranks_test.py)
test-nightly: export DAPO_KILLS := 1000
test-nightly: export DAPO_CRASH := all
test-nightly: export DAPO_STEPS := 20000
test-nightly: test sanitize race  ## everything, and once more under sanitizers, and the kernels with the race checker
sanitize:  ## the tests under ASan and UBSan
	@$(MAKE) --no-print-directory VARIANT=asan test
PYTHON ?= python3
goldens:  ## make tests/goldens again, the same bytes, with PYTHON (tests/goldens/README.md says what it needs)
	$(PYTHON) tests/goldens/make.py
FUZZ_SECONDS ?= 60
fuzz:  ## every reader of files and model text on mutated inputs, FUZZ_SECONDS a target; inputs kept in build/corpus
	@$(MAKE) --no-print-directory VARIANT=fuzz $(BUILD)/fuzz/test_fuzz
	FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_CORPUS=$(BUILD)/corpus $(BUILD)/fuzz/test_fuzz --gtest_brief=1
# clang-tidy 14 does not know std::source_location.
CLANG_TIDY ?= $(firstword $(shell command -v clang-tidy-21 clang-tidy-19 clang-tidy-18 clang-tidy-17 clang-tidy-16 clang-tidy))
lint:  ## clang-tidy on every source (SINCE=REV: on those that differ from REV); clang-tidy-16 or later
	@[ -n "$(CLANG_TIDY)" ] || { echo "make lint: no clang-tidy here: apt-get install clang-tidy-16"; exit 1; }
	@$(if $(SINCE),git diff --name-only --diff-filter=d $(SINCE) --,git ls-files) '*.cpp' | xargs -r -n 1 -P $(JOBS) \
	  sh -c '$(CLANG_TIDY) --quiet $$0 -- -std=c++20 -Wno-unknown-attributes -I. -Isim -fopenmp -march=$(ARCH) -DSPDLOG_FMT_EXTERNAL $(ARROW_FLAGS) 2>/dev/null'
.PHONY: fuzz goldens lint run-tests sanitize test test-nightly
