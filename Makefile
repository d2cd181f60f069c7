# dapo.cu: make help
SHELL := /bin/bash
.DEFAULT_GOAL := all
.SECONDARY:
MAKEFLAGS += --no-builtin-rules

# ---- what to build -------------------------------------------------------------------------------------------------
VARIANT ?= release#   release | asan (ASan + UBSan) | tsan | sim (device=cuda runs in the simulator)
ARCH    ?= native#    -march; the programs check at start that the CPU has what they were compiled for
BUILD   ?= build
OUT     := $(BUILD)/$(VARIANT)
JOBS    ?= $(shell nproc)

PACKAGES := g++ make git pkg-config ca-certificates libdnnl-dev libsimdjson-dev nlohmann-json3-dev libtomlplusplus-dev \
  libpcre2-dev libutf8proc-dev libsentencepiece-dev libcli11-dev libfmt-dev libspdlog-dev libboost-context-dev \
  libgtest-dev libbenchmark-dev

CXX      := $(if $(filter default undefined,$(origin CXX)),g++,$(CXX))
CCACHE   := $(shell command -v ccache 2>/dev/null)
WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wno-psabi -Wnon-virtual-dtor -Woverloaded-virtual -Werror
CPPFLAGS += -I. -MMD -MP -DFMT_HEADER_ONLY=0 -DSPDLOG_FMT_EXTERNAL
CXXFLAGS += -std=c++20 -O3 -g1 -march=$(ARCH) -fopenmp -fno-math-errno -fno-trapping-math -ffp-contract=fast $(WARNINGS)
LDFLAGS  += -fopenmp
LDLIBS   += -ldnnl -lsimdjson -lpcre2-8 -lutf8proc -lsentencepiece -lspdlog -lfmt -lpthread

ifeq ($(VARIANT),asan)
  SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
  CXXFLAGS := $(patsubst -O3,-O1,$(CXXFLAGS)) $(SANITIZE)
  LDFLAGS  += $(SANITIZE)
else ifeq ($(VARIANT),tsan)
  CXXFLAGS := $(patsubst -O3,-O1,$(CXXFLAGS)) -fsanitize=thread
  LDFLAGS  += -fsanitize=thread
endif

# ---- folders: one static library each; a test program links only what its folder may know (DESIGN: arrows never point up)
FOLDERS := core cpu model tokenizer data host
MAINS   := host/dapo_train.cpp host/dapo.cpp
sources  = $(filter-out $(MAINS),$(wildcard $(1)/*.cpp))
objects  = $(patsubst %.cpp,$(OUT)/%.o,$(call sources,$(1)))
archive  = $(patsubst %,$(OUT)/lib%.a,$(1))

DEPS_core      := core
DEPS_cpu       := cpu core
DEPS_tokenizer := tokenizer core
DEPS_data      := data core
DEPS_model     := model cpu core
DEPS_host      := host model cpu tokenizer data core

all: dapo_train dapo  ## build ./dapo_train and ./dapo

dapo_train dapo: %: $(OUT)/%
	@ln -sf $< $@
$(OUT)/dapo_train $(OUT)/dapo: $(OUT)/%: $(OUT)/host/%.o $(call archive,$(DEPS_host))
	$(CXX) $(LDFLAGS) -o $@ $^ $(LDLIBS)

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
	@$$(CXX) $$(LDFLAGS) -o $$@ $$^ -lgtest_main -lgtest $$(LDLIBS)
endef
$(foreach f,$(FOLDERS),$(eval $(call folder_rules,$(f))))

$(OUT)/bench_%: $(OUT)/bench/%.o $(call archive,$(DEPS_host))
	@$(CXX) $(LDFLAGS) -o $@ $^ -lbenchmark $(LDLIBS)

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
deps: $(BUILD)/deps.ok  ## install what is missing (apt packages)

# ---- tests ---------------------------------------------------------------------------------------------------------
TESTS := $(foreach f,$(FOLDERS),$(if $(wildcard tests/$(f)/*.cpp),$(OUT)/test_$(f)))
test: $(TESTS) all  ## build and run every test
	@tests/run.sh $(TESTS)
sanitize:  ## the tests under ASan and UBSan
	$(MAKE) VARIANT=asan test

format:  ## clang-format every source
	clang-format -i $(shell git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')
clean:  ## remove build/
	rm -rf $(BUILD) dapo_train dapo
help:  ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/\t/' | expand -t 16
.PHONY: all deps test sanitize format clean help
