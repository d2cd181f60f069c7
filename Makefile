# dapo.cu: make help
SHELL := /bin/bash
.DEFAULT_GOAL := all
JOBS    ?= $(shell nproc)
MAKEFLAGS += --no-builtin-rules $(if $(filter 0,$(MAKELEVEL)),-j$(JOBS))
.SECONDARY:

# ---- what to build -------------------------------------------------------------------------------------------------
VARIANT ?= release#   release | asan (ASan + UBSan) | fuzz (asan that counts branches) | tsan | race (sim/README.md)
ARCH    ?= native#    -march; the programs check at start that the CPU has what they were compiled for
BUILD   ?= build
OUT     := $(BUILD)/$(VARIANT)
RELEASE := $(filter release,$(VARIANT))
NVCC    := $(shell command -v nvcc 2>/dev/null)
CUDA    ?= $(if $(and $(RELEASE),$(NVCC)),nvcc,none)#   what the programs' device=cuda is

PACKAGES := g++ make git pkg-config ca-certificates libdnnl-dev libsimdjson-dev nlohmann-json3-dev libtomlplusplus-dev \
  libpcre2-dev libutf8proc-dev libsentencepiece-dev libcli11-dev libfmt-dev libspdlog-dev libboost-context-dev \
  libgtest-dev libbenchmark-dev zlib1g-dev python3-pip

CXX      := $(if $(filter default undefined,$(origin CXX)),g++,$(CXX))
CCACHE   := $(shell command -v ccache 2>/dev/null)
comma    := ,
# g++ 12 sees overlaps and overflows inside std::string and fmt that are not there (gcc bugs 105329, 105651).
WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wno-psabi -Wno-restrict -Wno-stringop-overflow -Wno-array-bounds \
  -Wnon-virtual-dtor -Woverloaded-virtual -Werror
# g++ 12 takes std::regex for uninitialised under ASan (gcc bug 105562).
ASAN     := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -Wno-maybe-uninitialized
SANITIZE := $(if $(filter asan fuzz,$(VARIANT)),$(ASAN)) $(if $(filter fuzz,$(VARIANT)),-fsanitize-coverage=trace-pc) \
  $(if $(filter tsan,$(VARIANT)),-fsanitize=thread)
CPPFLAGS += -I. -MMD -MP -DFMT_HEADER_ONLY=0 -DSPDLOG_FMT_EXTERNAL
CXXFLAGS += -std=c++20 -O$(if $(filter asan fuzz tsan,$(VARIANT)),1,3) -g1 -march=$(ARCH) -fopenmp -fno-math-errno \
  -fno-trapping-math -ffp-contract=fast $(WARNINGS) $(SANITIZE)
LDFLAGS  += -fopenmp $(SANITIZE) $(if $(DIST),-Wl$(comma)--disable-new-dtags$(comma)-rpath$(comma)'$$ORIGIN/../lib')
LDLIBS   += -ldnnl -lsimdjson -lz -lpcre2-8 -lutf8proc -lsentencepiece -lspdlog -lfmt -lpthread -Wl,--as-needed $(ARROW_LIBS)

# Arrow (.parquet files): installed, or the headers and libraries of the pyarrow wheel, fetched before the first file that needs
# them is compiled; so the flags are looked up when they are used. The wheel is pinned: later ones export simdjson's symbols,
# which would replace ours.
ARROW := $(BUILD)/arrow/pyarrow
ifeq ($(shell pkg-config --exists arrow parquet 2>/dev/null && echo yes),yes)
  ARROW_FLAGS := -DDAPO_ARROW $(shell pkg-config --cflags arrow parquet)
  ARROW_LIBS  := $(shell pkg-config --libs parquet arrow)
else
  ARROW_FLAGS = $(shell [ ! -f $(ARROW)/include/arrow/api.h ] || echo -DDAPO_ARROW -isystem $(ARROW)/include)
  ARROW_LIBS  = $(shell ls $(ARROW)/libparquet.so.* $(ARROW)/libarrow.so.* 2>/dev/null && echo -Wl,-rpath,$(abspath $(ARROW)))
endif
$(OUT)/data/parquet.o $(OUT)/tests/data/parquet_test.o: CPPFLAGS += $(ARROW_FLAGS)
$(OUT)/data/parquet.o $(OUT)/tests/data/parquet_test.o: $(wildcard $(ARROW)/include/arrow/api.h) | $(BUILD)/arrow.ok
# The commit, in a file that changes when it does, so that --version is right and nothing else is rebuilt.
COMMIT := $(shell git describe --always --dirty --abbrev=12 --match=- 2>/dev/null)
$(shell mkdir -p $(OUT) && { [ "$$(cat $(OUT)/commit 2>/dev/null)" = "$(COMMIT)" ] || echo "$(COMMIT)" >$(OUT)/commit; })
$(OUT)/host/version.o: CPPFLAGS += -DDAPO_COMMIT='"$(COMMIT)"'
$(OUT)/host/version.o: $(OUT)/commit
ifeq ($(CUDA),nvcc)
  CUDA_HOME ?= $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
  CUDA_DEPS := $(OUT)/libcuda.a
  CUDA_LIBS := -L$(CUDA_HOME)/lib64 -lcudart_static -lrt -ldl
  $(OUT)/host/backends.o $(OUT)/bench/%.o: CPPFLAGS += -DDAPO_CUDA
  # Ranges that nsys and ncu show (make profile); without a profiler they cost a call through a null pointer.
  $(OUT)/host/%.o $(OUT)/bench/%.o: CPPFLAGS += $(if $(wildcard $(CUDA_HOME)/include/nvtx3/nvToolsExt.h),-DDAPO_NVTX -isystem $(CUDA_HOME)/include)
  # Beside cuDNN's attention where its headers are (the library is loaded at run time).
  CUDNN_FE := $(patsubst %/cudnn_frontend.h,%,$(firstword $(wildcard $(addsuffix /cudnn_frontend.h,$(BUILD)/cudnn_frontend/include /usr/include /usr/local/include))))
  $(OUT)/bench/parts/cudnn_attention.o: CPPFLAGS += $(if $(and $(CUDNN_FE),$(wildcard $(CUDA_HOME)/include/cudnn.h /usr/include/cudnn.h)),-DDAPO_CUDNN \
    -DNV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING -DCUDNN_FRONTEND_SKIP_JSON_LIB -isystem $(CUDNN_FE))
  $(OUT)/bench/parts/cudnn_attention.o: $(if $(CUDNN_FE),$(CUDNN_FE)/cudnn_frontend.h)
endif

# ---- how: one rule to compile, to archive, to link -------------------------------------------------------------------
# $(call compile,TARGET PATTERN,SOURCE PATTERN,LABEL,FLAGS)  $(call library,NAME,OBJECTS)  $(call program,FILE,INPUTS,LIBRARIES)
define compile
$(1): $(2) | $(BUILD)/deps.ok
	@mkdir -p $$(@D)
	@echo "  $(3)  $$<"
	@$$(CCACHE) $$(CXX) $$(CPPFLAGS) $$(CXXFLAGS) $(4) -c -o $$@ $$<
endef
define library
$(OUT)/lib$(1).a: $(2)
	@rm -f $$@
	@ar rcs $$@ $$^
endef
define program
$(1): $(2)
	@echo "  LINK $$@"
	@$$(CXX) $$(LDFLAGS) -o $$@ $$^ $(3) $$(LDLIBS)
endef
objects = $(patsubst %.cpp,$(OUT)/%.o,$(1))
archive = $(foreach l,$(1),$(OUT)/lib$(l).a)

# ---- folders: one static library each; a test program links only what its folder may know (docs/design.md 1: arrows never point up)
FOLDERS := core cpu model tokenizer data host
MAINS   := host/dapo_train.cpp host/dapo.cpp
DEPS_core      := core
DEPS_cpu       := cpu core
DEPS_tokenizer := tokenizer core
DEPS_data      := data core
DEPS_model     := model cpu core
DEPS_host      := host model cpu tokenizer data
HOST  = $(call archive,$(DEPS_host)) $(CUDA_DEPS) $(OUT)/libcore.a
GTEST := -lgtest_main -lgtest
$(eval $(call compile,$(OUT)/%.o,%.cpp,CXX))
$(foreach f,$(FOLDERS),$(eval $(call library,$(f),$(call objects,$(filter-out $(MAINS),$(wildcard $(f)/*.cpp))))))
$(foreach f,$(FOLDERS),$(eval $(call program,$(OUT)/test_$(f),$(call objects,$(wildcard tests/$(f)/*.cpp)) $(if $(filter host,$(f)),$(HOST),$(call archive,$(DEPS_$(f)))),$(GTEST) $(CUDA_LIBS))))
$(foreach p,dapo_train dapo,$(eval $(call program,$(OUT)/$(p),$(OUT)/host/$(p).o $(HOST),$(CUDA_LIBS))))
BENCHES := $(patsubst bench/%.cpp,%,$(wildcard bench/*.cpp))
BENCH_PARTS := $(wildcard bench/parts/*.cpp)
$(foreach b,$(BENCHES),$(eval $(call program,$(OUT)/bench_$(b),$(OUT)/bench/$(b).o $(call objects,$(BENCH_PARTS)) $(HOST),-lbenchmark $(CUDA_LIBS))))
# The fuzzer: the readers of files alone, without model and backends.
FUZZED := $(wildcard tests/fuzz/*.cpp host/config*.cpp host/verify*.cpp) host/jsonl.cpp host/objective.cpp host/streams.cpp model/config.cpp model/params.cpp
$(eval $(call program,$(OUT)/test_fuzz,$(call objects,$(FUZZED)) $(call archive,tokenizer data core),$(GTEST)))
all: dapo_train dapo  ## build ./dapo_train and ./dapo; what is missing is installed first, as `make deps` does
	@$(if $(ARROW_LIBS),,echo "left out: .parquet files cannot be read, as pyarrow could not be fetched ($(BUILD)/pyarrow.log); make deps tries again")
dapo_train dapo: %: $(OUT)/%
	@ln -sf $< $@

# ---- CUDA by nvcc, where there is one
NVCCFLAGS := -std=c++20 -I. -O3 -lineinfo -Werror all-warnings -Xcompiler -Wall,-Wextra -DFMT_USE_CONSTEXPR=1 \
  -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a -gencode arch=compute_90,code=compute_90
CUDA_SOURCES := $(wildcard cuda/*.cu cuda/*.cpp)
NVCC_OBJECTS := $(if $(NVCC),$(CUDA_SOURCES:%=$(OUT)/nvcc/%.o))
CUDA_TESTS   := $(wildcard tests/cuda/*.cpp) tests/model/golden_test.cpp tests/model/equality_test.cpp
$(OUT)/nvcc/%.o: % | $(BUILD)/deps.ok
	@mkdir -p $(@D)
	@echo "  NVCC $<"
	@$(NVCC) $(NVCCFLAGS) --resource-usage -MD -MP -MF $(@:.o=.d) -c -o $@ $< >$@.log 2>&1 || { cat $@.log; rm -f $@; exit 1; }
$(eval $(call library,cuda,$(NVCC_OBJECTS)))
$(eval $(call compile,$(OUT)/gpu/%.o,%.cpp,CXX,-isystem $(CUDA_HOME)/include))
$(eval $(call program,$(OUT)/test_gpu,$(CUDA_TESTS:%.cpp=$(OUT)/gpu/%.o) $(HOST),$(GTEST) $(CUDA_LIBS)))
cuda-compile: $(NVCC_OBJECTS)  ## cuda/ by nvcc for sm_80 and sm_90a: warnings and register spills are errors
	@$(if $(NVCC),cuda/report.sh --check $(^:=.log),echo "cuda-compile: no nvcc here: nothing compiled")
cuda-report: $(NVCC_OBJECTS)  ## registers, shared memory, spills, occupancy of each kernel
	@$(if $(NVCC),cuda/report.sh $(^:=.log),echo "cuda-report: no nvcc here")

# ---- CUDA by g++, in the simulator: under ASan and UBSan; VARIANT=race: g++ marks each access in the .cu files for sim/race.cpp
SIM := $(OUT)/sim
SIMFLAGS := -Isim -DDAPO_CUDA -Wno-unknown-pragmas
ifeq ($(VARIANT),race)
  $(SIM)/%.cu.o: SIMFLAGS += -O1 -fsanitize=thread,alignment,bounds --param=tsan-instrument-func-entry-exit=0 -fno-omit-frame-pointer
else
  $(SIM)/cuda/%.o $(SIM)/sim/%.o $(SIM)/tests/%.o: SIMFLAGS += -O2 $(ASAN)
  # The scheduler never touches a kernel's memory.
  $(SIM)/sim/engine.cpp.o: SIMFLAGS += -fno-sanitize=undefined --param=asan-instrument-reads=0 --param=asan-instrument-writes=0
  SIM_LIBS := $(ASAN)
endif
SIM_LIBS  += -lboost_context -ldl
SIM_PARTS := $(SIM)/host/backends.cpp.o $(call archive,$(DEPS_host) cuda_sim sim core)
$(eval $(call compile,$(SIM)/%.o,%,SIM,-x c++ $$(SIMFLAGS)))
$(eval $(call library,sim,$(patsubst %,$(SIM)/%.o,$(wildcard sim/*.cpp))))
$(eval $(call library,cuda_sim,$(CUDA_SOURCES:%=$(SIM)/%.o)))
$(eval $(call program,$(OUT)/test_sim,$(patsubst %,$(SIM)/%.o,$(wildcard tests/sim/*.cu) cuda/launch.cpp) $(OUT)/libsim.a,$(GTEST) $(SIM_LIBS)))
$(eval $(call program,$(OUT)/test_cuda,$(patsubst %,$(SIM)/%.o,$(filter-out tests/cuda/gpu.cpp,$(CUDA_TESTS)) $(wildcard tests/cuda/sim/*.cpp)) $(SIM_PARTS),$(GTEST) $(SIM_LIBS)))
$(foreach p,dapo_train dapo,$(eval $(call program,$(SIM)/$(p),$(OUT)/host/$(p).o $(SIM_PARTS),$(SIM_LIBS))))
$(foreach b,ops step,$(eval $(call program,$(SIM)/bench_$(b),$(patsubst %,$(SIM)/%.o,bench/$(b).cpp $(BENCH_PARTS)) $(SIM_PARTS),-lbenchmark $(SIM_LIBS))))
-include $(shell find $(OUT) -name '*.d' 2>/dev/null)

# ---- set-up --------------------------------------------------------------------------------------------------------
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
$(BUILD)/deps.ok: Makefile
	@mkdir -p $(BUILD)
	@missing="$$(for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done | xargs)"; \
	 if [ -n "$$missing" ]; then echo "  DEPS apt-get install $$missing"; \
	   $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >$(BUILD)/deps.log 2>&1 \
	   || { tail -20 $(BUILD)/deps.log; echo "make: apt-get could not install: $$missing"; exit 1; }; fi
	@touch $@
# $(call wheel,NAME,FILE NAME,VERSION,FOLDER): fetched from PyPI and unpacked; for one Python, whichever is here, as only its
# headers and libraries are used
wheel = mkdir -p $(4) && python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 -d $(4) $(1)==$(3) >$(BUILD)/$(1).log 2>&1 && \
  python3 -m zipfile -e $(4)/$(2)-$(3)-*.whl $(4)
arrow: $(BUILD)/deps.ok
	@[ -n "$(ARROW_LIBS)" ] || { echo "  DEPS pyarrow 21.0.0"; $(call wheel,pyarrow,pyarrow,21.0.0,$(BUILD)/arrow); } || \
	   echo "  DEPS Arrow left out: pip could not fetch pyarrow 21.0.0 ($(BUILD)/pyarrow.log); .parquet files cannot be read"
# Tried once; `make deps` tries again. A build that names ARROW_LIBS itself (make dist: none) needs no wheel.
$(BUILD)/arrow.ok: | $(BUILD)/deps.ok
	@$(if $(filter command,$(firstword $(origin ARROW_LIBS))),,$(MAKE) --no-print-directory arrow)
	@touch $@
bench-cudnn: $(BUILD)/deps.ok  ## fetch the headers of cuDNN's frontend, so that bench_ops times cuDNN's attention beside ours
	@$(call wheel,nvidia-cudnn-frontend,nvidia_cudnn_frontend,1.32.0,$(BUILD)/cudnn_frontend) || { cat $(BUILD)/nvidia-cudnn-frontend.log; exit 1; }
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
# The simulator's are under ASan as they are.
TESTS := $(addprefix $(OUT)/test_,$(FOLDERS) fuzz $(if $(RELEASE),sim cuda))
GPU_CHECK_SIM := $(addprefix $(SIM)/,dapo dapo_train bench_ops bench_step) $(OUT)/test_cuda
test: deps  ## build and run every test; what is missing is installed first
	@$(MAKE) --no-print-directory run-tests
run-tests: $(TESTS) all $(if $(RELEASE),cuda-compile $(GPU_CHECK_SIM))
	@$(if $(RELEASE),$(MAKE) --no-print-directory VARIANT=race $(BUILD)/race/test_sim)
	@rm -f $(OUT)/launched && KERNELS_LAUNCHED=$(abspath $(OUT))/launched SIM_OBJECTS=$(SIM)/cuda GPU_CHECK_BIN=$(abspath $(SIM)):$(abspath $(OUT)) \
	  tests/run.sh $(TESTS) $(if $(RELEASE),tests/kernels_test.py $(BUILD)/race/test_sim tests/gpu_check_test.py)
test-nightly: test sanitize race  ## everything, and once more under sanitizers, and the kernels with the race checker
sanitize:  ## the tests under ASan and UBSan
	@$(MAKE) --no-print-directory VARIANT=asan test
race:  ## the kernels' tests in the simulator with its race checker
	@$(MAKE) --no-print-directory VARIANT=race $(BUILD)/race/test_sim $(BUILD)/race/test_cuda && tests/run.sh $(BUILD)/race/test_sim $(BUILD)/race/test_cuda
PYTHON ?= python3
goldens:  ## make tests/goldens again, the same bytes, with PYTHON (tests/goldens/README.md says what it needs)
	$(PYTHON) tests/goldens/make.py
FUZZ_SECONDS ?= 60
fuzz:  ## every reader of files and model text on mutated inputs, FUZZ_SECONDS a target; inputs kept in build/corpus
	@$(MAKE) --no-print-directory VARIANT=fuzz $(BUILD)/fuzz/test_fuzz
	FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_CORPUS=$(BUILD)/corpus $(BUILD)/fuzz/test_fuzz --gtest_brief=1

# ---- measuring -----------------------------------------------------------------------------------------------------
bench: $(BENCHES:%=$(OUT)/bench_%)  ## build every benchmark and run the ops' (bench/peers/compare.py runs ours against TRL)
	$(OUT)/bench_ops
dist:  ## dist/: programs, libraries and gpu-check for a machine with a driver and no toolkit, under 40 MB; golden models beside
	@$(if $(NVCC),,echo "make dist: no nvcc on PATH"; exit 1;) [ -n "$(CUDNN_FE)" ] || $(MAKE) --no-print-directory bench-cudnn || true
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/dist VARIANT=release DIST=1 ARCH=$(or $(DIST_ARCH),x86-64-v3) CUDA=nvcc \
	  ARROW_FLAGS= ARROW_LIBS= CUDNN_FE="$(or $(CUDNN_FE),$$(ls -d $(BUILD)/cudnn_frontend/include 2>/dev/null))" \
	  $(addprefix $(BUILD)/dist/release/,dapo_train dapo test_gpu bench_ops bench_step)
	@bench/dist.sh $(BUILD)/dist/release dist
gpu-check: $(if $(filter sim,$(DEVICE)),$(GPU_CHECK_SIM),dist)  ## check and measure this machine's GPU; DEVICE=sim: its logic in the simulator, tiny
	@$(if $(filter sim,$(DEVICE)),python3 bench/gpu_check.py --device sim --bin $(SIM):$(OUT) --configs configs --out $(BUILD)/gpu-check,dist/gpu-check) $(STAGES)
profile:  ## print (and write to build/profile.sh) the nsys and ncu commands for PROFILED; docs/profiling.md says what to read
	@mkdir -p $(BUILD) && bench/profile.sh $(BUILD) $(or $(PROFILED),$(OUT)/bench_step --device cuda --shape 0.5b --what step --steps 1 --prompts 16 --new-tokens 256)
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
.PHONY: all arrow bench bench-cudnn clean cuda-compile cuda-report demo deps dist format fuzz goldens gpu-check help lint profile race run-tests sanitize test test-nightly
