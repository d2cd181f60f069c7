# dapo.cu: make help
SHELL := /bin/bash
.DEFAULT_GOAL := all
JOBS    ?= $(shell nproc)
MAKEFLAGS += --no-builtin-rules $(if $(filter 0,$(MAKELEVEL)),-j$(JOBS))

# ---- what to build -------------------------------------------------------------------------------------------------
VARIANT ?= release#   release | asan (ASan + UBSan) | tsan | sim (device=cuda runs in the simulator)
ARCH    ?= native#    -march; the programs check at start that the CPU has what they were compiled for
BUILD   ?= build
OUT     := $(BUILD)/$(VARIANT)

PACKAGES := g++ make git pkg-config ca-certificates libdnnl-dev libsimdjson-dev nlohmann-json3-dev libtomlplusplus-dev \
  libpcre2-dev libutf8proc-dev libsentencepiece-dev libcli11-dev libfmt-dev libspdlog-dev libboost-context-dev \
  libgtest-dev libbenchmark-dev python3-pip

CXX      := $(if $(filter default undefined,$(origin CXX)),g++,$(CXX))
CCACHE   := $(shell command -v ccache 2>/dev/null)
# g++ 12 sees overlaps and overflows inside std::string and fmt that are not there (gcc bugs 105329, 105651).
WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wno-psabi -Wno-restrict -Wno-stringop-overflow -Wno-array-bounds \
  -Wnon-virtual-dtor -Woverloaded-virtual -Werror
CPPFLAGS += -I. -MMD -MP -DFMT_HEADER_ONLY=0 -DSPDLOG_FMT_EXTERNAL
CXXFLAGS += -std=c++20 -O3 -g1 -march=$(ARCH) -fopenmp -fno-math-errno -fno-trapping-math -ffp-contract=fast $(WARNINGS)
LDFLAGS  += -fopenmp $(if $(DIST),-Wl$(comma)--disable-new-dtags$(comma)-rpath$(comma)'$$ORIGIN/../lib')
comma    := ,
LDLIBS   += -ldnnl -lsimdjson -lpcre2-8 -lutf8proc -lsentencepiece -lspdlog -lfmt -lpthread

ifneq ($(filter asan fuzz,$(VARIANT)),)
  # fuzz counts branches (tests/fuzz); g++ 12 takes std::regex for uninitialised under ASan (gcc bug 105562).
  SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -Wno-maybe-uninitialized \
    $(if $(filter fuzz,$(VARIANT)),-fsanitize-coverage=trace-pc)
  CXXFLAGS := $(patsubst -O3,-O1,$(CXXFLAGS)) $(SANITIZE)
  LDFLAGS  += $(SANITIZE)
else ifeq ($(VARIANT),tsan)
  CXXFLAGS := $(patsubst -O3,-O1,$(CXXFLAGS)) -fsanitize=thread
  LDFLAGS  += -fsanitize=thread
endif

# Objects that only a pattern names (bench) are kept.
.PRECIOUS: $(OUT)/%.o $(OUT)/sim/bench/%.o

# ---- folders: one static library each; a test program links only what its folder may know (DESIGN: arrows never point up)
FOLDERS := core cpu model tokenizer data host
MAINS   := host/dapo_train.cpp host/dapo.cpp
sources  = $(filter-out $(MAINS),$(wildcard $(1)/*.cpp))
objects  = $(patsubst %.cpp,$(OUT)/%.o,$(call sources,$(1)))
archive  = $(foreach l,$(1),$(if $(filter %.a,$(l)),$(l),$(OUT)/lib$(l).a))

DEPS_core      := core
DEPS_cpu       := cpu core
DEPS_tokenizer := tokenizer core
DEPS_data      := data core
DEPS_model     := model cpu core
DEPS_host       = host model cpu tokenizer data $(CUDA_DEPS) core

# Arrow (.parquet files): installed, or the headers and libraries of the pyarrow wheel that `make deps` fetches. The wheel is
# pinned: later ones export simdjson's symbols, which would replace ours.
ARROW := $(BUILD)/arrow/pyarrow
ifeq ($(shell pkg-config --exists arrow parquet 2>/dev/null && echo yes),yes)
  ARROW_FLAGS := -DDAPO_ARROW $(shell pkg-config --cflags arrow parquet)
  ARROW_LIBS  := $(shell pkg-config --libs parquet arrow)
else ifneq ($(wildcard $(ARROW)/include/arrow/api.h),)
  ARROW_FLAGS := -DDAPO_ARROW -isystem $(ARROW)/include
  ARROW_LIBS  := $(wildcard $(ARROW)/libparquet.so.* $(ARROW)/libarrow.so.*) -Wl,-rpath,$(abspath $(ARROW))
endif
$(OUT)/data/parquet.o $(OUT)/tests/data/parquet_test.o: CPPFLAGS += $(ARROW_FLAGS)
$(OUT)/data/parquet.o $(OUT)/tests/data/parquet_test.o: $(wildcard $(ARROW)/include/arrow/api.h)
LDLIBS += -Wl,--as-needed $(ARROW_LIBS)

# Which CUDA the programs get: nvcc where there is one (release), the simulator (VARIANT=sim), or none.
NVCC := $(shell command -v nvcc 2>/dev/null)
CUDA ?= $(if $(filter sim,$(VARIANT)),sim,$(if $(filter release,$(VARIANT)),$(if $(NVCC),nvcc,none),none))
ifeq ($(CUDA),nvcc)
  CUDA_HOME ?= $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
  CUDA_DEPS := $(OUT)/libcuda_nvcc.a
  CUDA_LIBS := -L$(CUDA_HOME)/lib64 -lcudart_static -lrt -ldl
else ifeq ($(CUDA),sim)
  CUDA_DEPS := $(OUT)/libcuda_sim.a $(OUT)/libsim.a
  CUDA_LIBS := -lboost_context -ldl
endif
$(OUT)/host/backends.o: CPPFLAGS += $(if $(CUDA_DEPS),-DDAPO_CUDA)

all: dapo_train dapo  ## build ./dapo_train and ./dapo

dapo_train dapo: %: $(OUT)/%
	@ln -sf $< $@
$(OUT)/dapo_train $(OUT)/dapo: $(OUT)/%: $(OUT)/host/%.o $(call archive,$(DEPS_host))
	@echo "  LINK $@"
	@$(CXX) $(LDFLAGS) -o $@ $^ $(CUDA_LIBS) $(LDLIBS)

$(OUT)/%.o: %.cpp | $(BUILD)/deps.ok
	@mkdir -p $(@D)
	@echo "  CXX  $<"
	@$(CCACHE) $(CXX) $(CPPFLAGS) $(CXXFLAGS) -c -o $@ $<

define folder_rules
$(OUT)/lib$(1).a: $(call objects,$(1))
	@rm -f $$@
	@ar rcs $$@ $$^
$(OUT)/test_$(1): $(patsubst %.cpp,$(OUT)/%.o,$(wildcard tests/$(1)/*.cpp)) $(call archive,$(DEPS_$(1)))
	@echo "  LINK $$@"
	@$$(CXX) $$(LDFLAGS) -o $$@ $$^ -lgtest_main -lgtest $$(CUDA_LIBS) $$(LDLIBS)
endef
$(foreach f,$(FOLDERS),$(eval $(call folder_rules,$(f))))

# The fuzzer: the readers of files alone, without model and backends.
FUZZED := $(patsubst %.cpp,$(OUT)/%.o,$(wildcard tests/fuzz/*.cpp host/config*.cpp host/verify*.cpp) host/jsonl.cpp model/config.cpp model/params.cpp)
$(OUT)/test_fuzz: $(FUZZED) $(call archive,tokenizer data core)
	@echo "  LINK $@"
	@$(CXX) $(LDFLAGS) -o $@ $^ -lgtest_main -lgtest $(LDLIBS)

# The benchmarks; on CUDA beside cuDNN's attention where its headers are (the library is loaded at run time).
CUDNN_FE := $(firstword $(wildcard $(BUILD)/cudnn_frontend/include $(addsuffix /cudnn_frontend.h,/usr/include /usr/local/include)))
CUDNN_FE := $(patsubst %/cudnn_frontend.h,%,$(CUDNN_FE))
ifneq ($(and $(filter nvcc,$(CUDA)),$(CUDNN_FE),$(wildcard $(CUDA_HOME)/include/cudnn.h /usr/include/cudnn.h)),)
  $(OUT)/bench/parts/cudnn_attention.o: CPPFLAGS += -DDAPO_CUDNN -DNV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING \
    -DCUDNN_FRONTEND_SKIP_JSON_LIB -isystem $(CUDNN_FE) -isystem $(CUDA_HOME)/include
endif
$(OUT)/bench/%.o: CPPFLAGS += $(if $(CUDA_DEPS),-DDAPO_CUDA)
# Ranges that nsys and ncu show (make profile); without a profiler they cost a call through a null pointer.
ifneq ($(and $(filter nvcc,$(CUDA)),$(wildcard $(CUDA_HOME)/include/nvtx3/nvToolsExt.h)),)
  $(OUT)/host/%.o $(OUT)/bench/%.o: CPPFLAGS += -DDAPO_NVTX -isystem $(CUDA_HOME)/include
endif
$(OUT)/bench_%: $(OUT)/bench/%.o $(call objects,bench/parts) $(call archive,$(DEPS_host))
	@echo "  LINK $@"
	@$(CXX) $(LDFLAGS) -o $@ $^ -lbenchmark $(CUDA_LIBS) $(LDLIBS)

# ---- CUDA: the .cu files by g++ for the simulator (sim/README.md), and by nvcc where there is one
# VARIANT=race is release with the race checker: g++ marks each access in the .cu files, sim/race.cpp receives them.
SIM       := $(OUT)/sim
SIMFLAGS   = -Isim -Wno-unknown-pragmas
ifeq ($(VARIANT),race)
  SIMFLAGS += -O1 -fsanitize=thread,alignment,bounds --param=tsan-instrument-func-entry-exit=0 -fno-omit-frame-pointer
endif
CUDA_SIM  := $(patsubst %,$(SIM)/%.o,$(wildcard cuda/*.cu cuda/*.cpp))
$(SIM)/%.cu.o: %.cu | $(BUILD)/deps.ok
	@mkdir -p $(@D)
	@echo "  SIM  $<"
	@$(CCACHE) $(CXX) $(CPPFLAGS) $(CXXFLAGS) $(SIMFLAGS) -x c++ -c -o $@ $<
$(SIM)/cuda/%.cpp.o: cuda/%.cpp | $(BUILD)/deps.ok
	@mkdir -p $(@D)
	@echo "  SIM  $<"
	@$(CCACHE) $(CXX) $(CPPFLAGS) $(CXXFLAGS) -Isim -c -o $@ $<
$(OUT)/sim/%.o $(OUT)/tests/sim/%.o $(OUT)/tests/cuda/%.o: CPPFLAGS += -Isim
$(OUT)/libsim.a: $(call objects,sim)
	@rm -f $@
	@ar rcs $@ $^
$(OUT)/libcuda_sim.a: $(CUDA_SIM)
	@rm -f $@
	@ar rcs $@ $^
$(OUT)/test_sim: $(patsubst %,$(SIM)/%.o,$(wildcard tests/sim/*.cu)) $(SIM)/cuda/launch.cpp.o $(OUT)/libsim.a
	@echo "  LINK $@"
	@$(CXX) $(LDFLAGS) -o $@ $^ -lgtest_main -lgtest -lboost_context -ldl $(LDLIBS)
NVCCFLAGS := -std=c++20 -I. -O3 -lineinfo -Werror all-warnings -Xcompiler -Wall,-Wextra -DFMT_USE_CONSTEXPR=1 \
  -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a -gencode arch=compute_90,code=compute_90
$(OUT)/nvcc/%.o: % | $(BUILD)/deps.ok
	@mkdir -p $(@D)
	@echo "  NVCC $<"
	@$(NVCC) $(NVCCFLAGS) --resource-usage -MD -MP -MF $(@:.o=.d) -c -o $@ $< >$@.log 2>&1 || { cat $@.log; rm -f $@; exit 1; }
NVCC_OBJECTS := $(if $(NVCC),$(patsubst %,$(OUT)/nvcc/%.o,$(wildcard cuda/*.cu cuda/*.cpp)))
$(OUT)/libcuda_nvcc.a: $(NVCC_OBJECTS)
	@rm -f $@
	@ar rcs $@ $^
# The twin of the CPU's tests, in the simulator: the whole trainer included, so the backends are compiled once more, with CUDA.
$(SIM)/host/backends.o: CPPFLAGS += -DDAPO_CUDA
$(SIM)/host/%.o: host/%.cpp | $(BUILD)/deps.ok
	@mkdir -p $(@D)
	@$(CCACHE) $(CXX) $(CPPFLAGS) $(CXXFLAGS) -c -o $@ $<
CUDA_TESTS := $(filter-out tests/cuda/gpu.cpp,$(wildcard tests/cuda/*.cpp)) $(addprefix tests/model/,golden_test.cpp equality_test.cpp)
SIM_PARTS  := $(SIM)/host/backends.o $(call archive,host model cpu tokenizer data cuda_sim sim core)
$(OUT)/test_cuda: $(patsubst %.cpp,$(OUT)/%.o,$(CUDA_TESTS) $(wildcard tests/cuda/sim/*.cpp)) $(SIM_PARTS)
	@echo "  LINK $@"
	@$(CXX) $(LDFLAGS) -o $@ $^ -lgtest_main -lgtest -lboost_context -ldl $(LDLIBS)
# The programs with the simulator as their CUDA device, and the same tests for a real one (CUDA=nvcc).
$(SIM)/dapo $(SIM)/dapo_train: $(SIM)/%: $(OUT)/host/%.o $(SIM_PARTS)
	@$(CXX) $(LDFLAGS) -o $@ $^ -lboost_context -ldl $(LDLIBS)
$(SIM)/bench/%.o: bench/%.cpp | $(BUILD)/deps.ok
	@mkdir -p $(@D)
	@$(CCACHE) $(CXX) $(CPPFLAGS) -DDAPO_CUDA $(CXXFLAGS) -c -o $@ $<
$(SIM)/bench_%: $(SIM)/bench/%.o $(patsubst %.cpp,$(SIM)/%.o,$(wildcard bench/parts/*.cpp)) $(SIM_PARTS)
	@$(CXX) $(LDFLAGS) -o $@ $^ -lbenchmark -lboost_context -ldl $(LDLIBS)
$(OUT)/gpu/%.o: %.cpp | $(BUILD)/deps.ok
	@mkdir -p $(@D)
	@echo "  CXX  $<"
	@$(CCACHE) $(CXX) $(CPPFLAGS) -isystem $(CUDA_HOME)/include $(CXXFLAGS) -c -o $@ $<
$(OUT)/test_gpu: $(patsubst %.cpp,$(OUT)/gpu/%.o,$(CUDA_TESTS) tests/cuda/gpu.cpp) $(call archive,$(DEPS_host))
	@echo "  LINK $@"
	@$(CXX) $(LDFLAGS) -o $@ $^ -lgtest_main -lgtest $(CUDA_LIBS) $(LDLIBS)
cuda-compile: $(NVCC_OBJECTS)  ## cuda/ by nvcc for sm_80 and sm_90a: warnings and register spills are errors
	@$(if $(NVCC),cuda/report.sh --check $(^:=.log),echo "cuda-compile: no nvcc here: nothing compiled")
cuda-report: $(NVCC_OBJECTS)  ## registers, shared memory, spills, occupancy of each kernel
	@$(if $(NVCC),cuda/report.sh $(^:=.log),echo "cuda-report: no nvcc here")
.PHONY: cuda-compile cuda-report test-cuda-build test-cuda-asan

-include $(shell find $(OUT) -name '*.d' 2>/dev/null)

# ---- set-up --------------------------------------------------------------------------------------------------------
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
$(BUILD)/deps.ok: Makefile
	@mkdir -p $(BUILD)
	@missing="$$(for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done | xargs)"; \
	 if [ -n "$$missing" ]; then echo "  DEPS apt-get install $$missing"; \
	   $(SUDO) apt-get update -qq && DEBIAN_FRONTEND=noninteractive $(SUDO) -E apt-get install -y -qq --no-install-recommends $$missing >$(BUILD)/deps.log 2>&1 \
	   || { tail -20 $(BUILD)/deps.log; echo "make: apt-get could not install: $$missing"; exit 1; }; fi
	@touch $@
arrow: $(BUILD)/deps.ok
	@[ -n "$(ARROW_LIBS)" ] || { mkdir -p $(BUILD)/arrow && \
	   python3 -m pip download -q --no-deps --only-binary=:all: -d $(BUILD)/arrow pyarrow==21.0.0 >$(BUILD)/arrow.log 2>&1 && \
	   python3 -m zipfile -e $(BUILD)/arrow/pyarrow-21.0.0-*.whl $(BUILD)/arrow; } || \
	   echo "  DEPS Arrow left out: pip could not fetch pyarrow 21.0.0 ($(BUILD)/arrow.log); .parquet files cannot be read"
deps: $(BUILD)/deps.ok arrow  ## install what is missing: apt packages, and Arrow's wheel into build/
	@echo "CUDA:  $(if $(NVCC),$(NVCC),left out: no nvcc on PATH; the CPU is used)"
	@echo "Arrow: $(if $(ARROW_LIBS)$(wildcard $(ARROW)),found,left out: .parquet files cannot be read)"
	@echo "MPI:   not used yet: one rank"

demo: deps  ## cold start, then DAPO, of a 0.8 M parameter model: about 2 minutes on 2 cores
	@$(MAKE) --no-print-directory all
	@rm -rf runs/demo && ./dapo chain runs/demo
	./dapo sft configs/demo_skill.cfg
	./dapo sft configs/demo_crowd.cfg
	./dapo_train configs/demo.cfg
	@echo; echo "runs/demo/dapo: metrics.jsonl (a line a step), rollouts/ (every response), model/ (Hugging Face folder)"
	@echo "try: ./dapo generate --model runs/demo/dapo/model --template raw --prompt '2+3-1+4                  '$$'\n'"

# ---- tests ---------------------------------------------------------------------------------------------------------
TESTS := $(foreach f,$(FOLDERS),$(if $(wildcard tests/$(f)/*.cpp),$(OUT)/test_$(f))) $(OUT)/test_fuzz $(OUT)/test_sim $(OUT)/test_cuda
# The simulator's tests once more under ASan: it guards the kernels' global, shared and local memory.
ASAN_TESTS := $(if $(filter release,$(VARIANT)),$(BUILD)/asan/test_sim $(BUILD)/asan/test_cuda)
test: deps  ## build and run every test; what is missing is installed first
	@$(MAKE) --no-print-directory run-tests
GPU_CHECK_SIM := $(addprefix $(SIM)/,dapo dapo_train bench_ops bench_step) $(OUT)/test_cuda
run-tests: $(TESTS) all $(if $(filter release,$(VARIANT)),cuda-compile $(GPU_CHECK_SIM))
	@GPU_CHECK_BIN=$(abspath $(SIM)):$(abspath $(OUT)) tests/run.sh $(TESTS) $(if $(filter release,$(VARIANT)),tests/gpu_check_test.py)
test-cuda-build:
	@$(if $(ASAN_TESTS),$(MAKE) --no-print-directory VARIANT=asan $(ASAN_TESTS))
test-cuda-asan: test-cuda-build  ## the kernels' tests in the simulator under ASan
	@tests/run.sh $(ASAN_TESTS)
test-nightly: test sanitize  ## everything, and once more under sanitizers
FUZZ_SECONDS ?= 60
fuzz:  ## every reader of files and model text on mutated inputs, FUZZ_SECONDS a target; inputs kept in build/corpus
	@$(MAKE) --no-print-directory VARIANT=fuzz $(BUILD)/fuzz/test_fuzz
	FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_CORPUS=$(BUILD)/corpus $(BUILD)/fuzz/test_fuzz --gtest_brief=1
sanitize:  ## the tests under ASan and UBSan
	$(MAKE) VARIANT=asan test

BENCHES := $(patsubst bench/%.cpp,$(OUT)/bench_%,$(wildcard bench/*.cpp))
bench: $(BENCHES)  ## build every benchmark and run the ops' (bench/peers/compare.py runs ours against TRL)
	$(OUT)/bench_ops
# ---- for a machine with a GPU and no toolkit
DIST_ARCH ?= x86-64-v3
DIST_PROGRAMS := dapo_train dapo test_gpu bench_ops bench_step
dist:  ## dist/: programs, libraries and gpu-check for a machine with a driver and no toolkit, under 40 MB
	@$(if $(NVCC),,echo "make dist: no nvcc on PATH"; exit 1;) $(MAKE) --no-print-directory BUILD=$(BUILD)/dist VARIANT=release DIST=1 \
	  ARCH=$(DIST_ARCH) CUDA=nvcc ARROW_FLAGS= ARROW_LIBS= $(if $(CUDNN_FE),CUDNN_FE=$(CUDNN_FE)) \
	  $(addprefix $(BUILD)/dist/release/,$(DIST_PROGRAMS))
	@bench/dist.sh $(BUILD)/dist/release dist
gpu-check: $(if $(filter sim,$(DEVICE)),$(GPU_CHECK_SIM),dist)  ## check and measure this machine's GPU; DEVICE=sim: its logic in the simulator, tiny
	@$(if $(filter sim,$(DEVICE)),python3 bench/gpu_check.py --device sim --bin $(SIM):$(OUT) --configs configs --out $(BUILD)/gpu-check,dist/gpu-check) $(STAGES)
bench-cudnn:  ## fetch the headers of cuDNN's frontend, so that bench_ops times cuDNN's attention beside ours
	@mkdir -p $(BUILD)/cudnn_frontend
	@python3 -m pip download -q --no-deps --only-binary=:all: -d $(BUILD)/cudnn_frontend nvidia-cudnn-frontend==1.32.0
	@cd $(BUILD)/cudnn_frontend && python3 -m zipfile -e nvidia_cudnn_frontend-1.32.0-*.whl .
PROFILED ?= $(OUT)/bench_step --device cuda --shape 0.5b --what step --prompts 16 --new-tokens 256
profile:  ## print (and write to build/profile.sh) the nsys and ncu commands for PROFILED; docs/profiling.md says what to read
	@mkdir -p $(BUILD)
	@{ echo "nsys profile --trace=cuda,nvtx --cuda-graph-trace=node --force-overwrite=true -o $(BUILD)/step $(PROFILED)"; \
	  echo "nsys stats --report nvtx_sum,cuda_gpu_kern_sum,cuda_api_sum $(BUILD)/step.nsys-rep"; \
	  for range in update/ rollout/decode/; do \
	    echo "ncu --nvtx --nvtx-include $$range --graph-profiling node --set full --launch-skip 50 --launch-count 60 -f -o $(BUILD)/$$(basename $$range) $(PROFILED) --steps 1"; \
	  done; } | tee $(BUILD)/profile.sh
lint:  ## clang-tidy on the sources that differ from the last commit (ALL=1: on all)
	@command -v clang-tidy >/dev/null || { echo "make lint: no clang-tidy here: apt-get install clang-tidy"; exit 1; }
	@(if [ -n "$(ALL)" ]; then git ls-files '*.cpp'; else git diff --name-only HEAD -- '*.cpp'; fi) | \
	 xargs -r -n 1 -P $(JOBS) sh -c 'clang-tidy --quiet $$0 -- -std=c++20 -I. -Isim -fopenmp -march=$(ARCH) -DSPDLOG_FMT_EXTERNAL 2>/dev/null'

format:  ## clang-format every source
	clang-format -i $(shell git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')
clean:  ## remove build/
	rm -rf $(BUILD) dapo_train dapo
help:  ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/\t/' | expand -t 16
.PHONY: bench bench-cudnn profile dist gpu-check lint all arrow test-nightly deps demo test run-tests fuzz sanitize format clean help
