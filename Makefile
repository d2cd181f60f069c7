# dapo.cu: make help. The set-up is in make/deps.mk, cuda/ by nvcc in cuda.mk and by g++ for the simulator in sim.mk, the tests
# in test.mk, what goes to other machines in dist.mk.
SHELL := /bin/bash
.DEFAULT_GOAL := all
JOBS    ?= $(shell nproc)
MAKEFLAGS += --no-builtin-rules $(if $(filter 0,$(MAKELEVEL)),-j$(JOBS))
.SECONDARY:
.SECONDEXPANSION:

# ---- what to build
VARIANT ?= release#   release | asan (ASan + UBSan) | fuzz (asan that counts branches) | tsan | race (sim/README.md)
ARCH    ?= native#    -march; the programs check at start that the CPU has what they were compiled for
BUILD   ?= build
OUT     := $(BUILD)/$(VARIANT)
RELEASE := $(filter release,$(VARIANT))
NVCC    := $(shell command -v nvcc 2>/dev/null)
CUDA    ?= $(if $(and $(RELEASE),$(NVCC)),nvcc,none)#   what the programs' device=cuda is

CXX    := $(if $(filter default undefined,$(origin CXX)),g++,$(CXX))
CCACHE := $(shell command -v ccache 2>/dev/null)
comma  := ,
# g++ 12 sees overlaps and overflows inside std::string and fmt that are not there (gcc bugs 105329, 105651); g++ 13 and 14 take
# a reference into one argument for one into another, a temporary.
WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wno-psabi -Wno-restrict -Wno-stringop-overflow -Wno-array-bounds \
  -Wno-dangling-reference -Wnon-virtual-dtor -Woverloaded-virtual -Werror
# g++ 12 takes std::regex for uninitialised under ASan (gcc bug 105562).
ASAN     := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -Wno-maybe-uninitialized
SANITIZE := $(if $(filter asan fuzz,$(VARIANT)),$(ASAN)) $(if $(filter fuzz,$(VARIANT)),-fsanitize-coverage=trace-pc) \
  $(if $(filter tsan,$(VARIANT)),-fsanitize=thread)
CPPFLAGS += -I. -MMD -MP -DFMT_HEADER_ONLY=0 -DSPDLOG_FMT_EXTERNAL
CXXFLAGS += -std=c++20 -O$(if $(filter asan fuzz tsan,$(VARIANT)),1,3) -g1 -march=$(ARCH) -fopenmp -fno-math-errno \
  -fno-trapping-math -ffp-contract=fast $(WARNINGS) $(SANITIZE)
LDFLAGS  += -fopenmp $(SANITIZE) $(if $(DIST),-Wl$(comma)--disable-new-dtags$(comma)-rpath$(comma)'$$ORIGIN/../lib')
LDLIBS   += -ldnnl -lsimdjson -lz -lpcre2-8 -lutf8proc -lxxhash -lsentencepiece -lspdlog -lfmt -lpthread -Wl,--as-needed $(ARROW_LIBS) $(MPI_LIBS)

COMPILE = @mkdir -p $(@D) && echo "  CXX  $<" && $(CCACHE) $(CXX) $(CPPFLAGS) $(CXXFLAGS) $(FLAGS) -c -o $@ $<
ARCHIVE = @rm -f $@ && ar rcs $@ $^
LINK    = @echo "  LINK $@" && $(CXX) $(LDFLAGS) -o $@ $^ $(LIBS) $(LDLIBS)
objects = $(patsubst %.cpp,$(OUT)/%.o,$(1))
archive = $(patsubst %,$(OUT)/lib%.a,$(1))

# ---- the rooms: one static library each. A room's test program links what the room may know (docs/design.md: an arrow
# never points up).
FOLDER_verify := host/verify
FOLDER_parallel := host/parallel
FOLDER_rollout := host/rollout
FOLDER_train := host/train
FOLDER_app := host/app
folder = $(or $(FOLDER_$(1)),$(1))
KNOWS_core := core
KNOWS_cpu := cpu core
KNOWS_model := model cpu core
KNOWS_tokenizer := tokenizer core
KNOWS_data := data core
KNOWS_verify := verify data core
KNOWS_parallel := parallel core
KNOWS_rollout := rollout model cpu tokenizer core
KNOWS_train := train rollout verify model cpu tokenizer data core
KNOWS_app := app parallel train rollout verify model cpu tokenizer data
ROOMS := core cpu model tokenizer data verify parallel rollout train app
MAINS := host/app/dapo_train.cpp host/app/dapo.cpp
BENCHES := $(patsubst bench/%.cpp,%,$(wildcard bench/*.cpp))
BENCH_PARTS := $(wildcard bench/parts/*.cpp)

all: dapo_train dapo  ## build ./dapo_train and ./dapo; what is missing is installed first, as `make deps` does
	@$(if $(ARROW_LIBS),,echo "left out: .parquet files cannot be read, as pyarrow could not be fetched ($(BUILD)/pyarrow.log); make deps tries again")
include make/deps.mk
APP := $(call archive,$(KNOWS_app)) $(if $(filter nvcc,$(CUDA)),$(OUT)/libcuda.a) $(OUT)/libcore.a
include make/cuda.mk make/sim.mk make/dist.mk make/test.mk

$(OUT)/%.o: %.cpp | $(BUILD)/deps.ok
	$(COMPILE)
$(call archive,$(ROOMS)): $(OUT)/lib%.a: $$(call objects,$$(filter-out $(MAINS),$$(wildcard $$(call folder,$$*)/*.cpp)))
	$(ARCHIVE)
$(OUT)/dapo $(OUT)/dapo_train: LIBS = $(CUDA_LIBS)
$(OUT)/dapo $(OUT)/dapo_train: $(OUT)/%: $(OUT)/host/app/%.o $(APP)
	$(LINK)
$(BENCHES:%=$(OUT)/bench_%): LIBS = -lbenchmark $(CUDA_LIBS)
$(BENCHES:%=$(OUT)/bench_%): $(OUT)/bench_%: $(OUT)/bench/%.o $(call objects,$(BENCH_PARTS)) $(APP)
	$(LINK)
dapo_train dapo: %: $(OUT)/%
	@ln -sf $< $@
# The commit, in a file that changes when it does, so that --version is right and nothing else is rebuilt.
COMMIT := $(shell git describe --always --dirty --abbrev=12 --match=- 2>/dev/null)
$(shell mkdir -p $(OUT) && { [ "$$(cat $(OUT)/commit 2>/dev/null)" = "$(COMMIT)" ] || echo "$(COMMIT)" >$(OUT)/commit; })
$(OUT)/host/app/version.o: CPPFLAGS += -DDAPO_COMMIT='"$(COMMIT)"'
$(OUT)/host/app/version.o: $(OUT)/commit
-include $(shell find $(OUT) -name '*.d' 2>/dev/null)

# ---- to use
demo: deps  ## cold start, then DAPO, of a 0.8 M parameter model: about 2 minutes on 2 cores
	@$(MAKE) --no-print-directory all
	@rm -rf runs/demo && ./dapo chain runs/demo
	./dapo sft configs/demo_skill.cfg
	./dapo sft configs/demo_crowd.cfg
	./dapo_train configs/demo.cfg
	@echo; echo "runs/demo/dapo: report.html (charts), metrics.jsonl (a line a step), rollouts/ (every response), model/ (Hugging Face folder)"
	@echo "try: ./dapo generate --model runs/demo/dapo/model --template raw --prompt '2+3-1+4                  '$$'\n'"

bench: $(BENCHES:%=$(OUT)/bench_%)  ## build every benchmark and run the ops' (bench/peers/compare.py runs ours against TRL)
	$(OUT)/bench_ops
format:  ## clang-format every source
	clang-format -i $(shell git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')
docs: dapo_train  ## write docs/settings.md and docs/metrics.md anew, from the program
	./dapo_train --settings --markdown >docs/settings.md
	./dapo_train --metrics >docs/metrics.md
clean:  ## remove build/
	rm -rf $(BUILD) dapo_train dapo
help:  ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile make/*.mk | sed -E 's/:.*##/\t/' | expand -t 16 | sort
.PHONY: all bench clean demo docs format help
