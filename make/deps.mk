# Dependencies: apt packages (MPI=none: without Open MPI), and Arrow (.parquet files) from a wheel if it is not installed.
# MPI: several ranks as processes (docs/parallel.md). What it needs is evaluated when it is used: the first make installs it.
# Programs under sanitizers run one rank: MPI's memory is not theirs.
MPI ?= $(if $(RELEASE),auto,none)
MPI_FOUND = $(if $(filter none,$(MPI)),,$(shell pkg-config --exists ompi-c 2>/dev/null && echo yes))
MPI_FLAGS = $(if $(MPI_FOUND),-DDAPO_MPI $(patsubst -I%,-isystem %,$(shell pkg-config --cflags ompi-c)))
MPI_LIBS  = $(if $(MPI_FOUND),$(shell pkg-config --libs ompi-c))
$(shell mkdir -p $(OUT) && { [ "$$(cat $(OUT)/mpi 2>/dev/null)" = "$(or $(MPI_FOUND),none)" ] || echo "$(or $(MPI_FOUND),none)" >$(OUT)/mpi; })
$(OUT)/host/parallel/mpi_comm.o: CPPFLAGS += $(MPI_FLAGS)
$(OUT)/host/parallel/mpi_comm.o: $(OUT)/mpi

PACKAGES := g++ make git curl pkg-config ca-certificates libdnnl-dev libsimdjson-dev nlohmann-json3-dev libtomlplusplus-dev \
  libpcre2-dev libutf8proc-dev libxxhash-dev libsentencepiece-dev libcli11-dev libfmt-dev libspdlog-dev libboost-context-dev \
  libgtest-dev libbenchmark-dev zlib1g-dev python3-pip $(if $(filter none,$(MPI)),,libopenmpi-dev openmpi-bin)
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

$(BUILD)/deps.ok: make/deps.mk
	@mkdir -p $(BUILD)
	@missing="$$(for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done | xargs)"; \
	 if [ -n "$$missing" ]; then echo "  DEPS apt-get install $$missing"; \
	   $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
	     --no-install-recommends $$missing >$(BUILD)/deps.log 2>&1 \
	   || { tail -20 $(BUILD)/deps.log; echo "make: apt-get could not install: $$missing"; exit 1; }; fi
	@touch $@

# Arrow: installed, or the headers and libraries of the pyarrow wheel, downloaded before the first file that needs them
# is compiled; so the flags are evaluated when they are used. The wheel is pinned: later ones export simdjson's symbols,
# which would replace ours.
ARROW := $(BUILD)/arrow/pyarrow
ifeq ($(shell pkg-config --exists arrow parquet 2>/dev/null && echo yes),yes)
  ARROW_FLAGS := -DDAPO_ARROW $(shell pkg-config --cflags arrow parquet)
  ARROW_LIBS  := $(shell pkg-config --libs parquet arrow)
else
  ARROW_FLAGS = $(shell [ ! -f $(ARROW)/include/arrow/api.h ] || echo -DDAPO_ARROW -isystem $(ARROW)/include)
  ARROW_LIBS  = $(shell ls $(ARROW)/libparquet.so.* $(ARROW)/libarrow.so.* 2>/dev/null && echo -Wl,-rpath,$(abspath $(ARROW)))
endif
ARROW_USERS := $(OUT)/data/parquet.o $(OUT)/tests/data/parquet_test.o
$(ARROW_USERS): CPPFLAGS += $(ARROW_FLAGS)
$(ARROW_USERS): $(wildcard $(ARROW)/include/arrow/api.h) | $(BUILD)/arrow.ok

# $(call wheel,NAME,FILE NAME,VERSION,FOLDER): downloaded from PyPI and unpacked. Only headers and libraries are used,
# so the wheel of any Python version works.
wheel = mkdir -p $(4) && python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 -d $(4) \
  $(1)==$(3) >$(BUILD)/$(1).log 2>&1 && python3 -m zipfile -e $(4)/$(2)-$(3)-*.whl $(4)
arrow: $(BUILD)/deps.ok
	@[ -n "$(ARROW_LIBS)" ] || { echo "  DEPS pyarrow 21.0.0"; $(call wheel,pyarrow,pyarrow,21.0.0,$(BUILD)/arrow); } || \
	   echo "  DEPS Arrow left out: pip could not fetch pyarrow 21.0.0 ($(BUILD)/pyarrow.log); .parquet files cannot be read"
# Tried once; `make deps` tries again. A build that sets ARROW_LIBS itself (make dist: none) needs no wheel.
$(BUILD)/arrow.ok: | $(BUILD)/deps.ok
	@$(if $(filter command,$(firstword $(origin ARROW_LIBS))),,$(MAKE) --no-print-directory arrow)
	@touch $@

deps: $(BUILD)/deps.ok arrow  ## install what is missing: apt packages, and Arrow's wheel into build/
	@echo "CUDA:  $(if $(NVCC),$(NVCC),left out: no nvcc on PATH; the CPU is used)"
	@echo "Arrow: $(if $(ARROW_LIBS)$(wildcard $(ARROW)),found,left out: .parquet files cannot be read)"
	@echo "NCCL:  $(if $(NCCL_H),$(firstword $(NCCL_H)),left out: no nccl.h beside nvcc)"
	@echo "MPI:   $(if $(MPI_LIBS),Open MPI $(shell pkg-config --modversion ompi-c 2>/dev/null),left out: one rank only)"
.PHONY: arrow deps
