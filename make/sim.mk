# cuda/ by g++, in the simulator: under ASan and UBSan. VARIANT=race: g++ marks each access in the .cu files for
# sim/race.cpp (sim/README.md).
SIM := $(OUT)/sim
SIM_OF = $(patsubst %,$(SIM)/%.o,$(1))
SIMFLAGS := -x c++ -Isim -DDAPO_CUDA -Wno-unknown-pragmas
SIM_LIBS := -lboost_context -ldl
ifeq ($(VARIANT),race)
  $(SIM)/%.cu.o: SIMFLAGS += -O1 -fsanitize=thread,alignment,bounds --param=tsan-instrument-func-entry-exit=0 -fno-omit-frame-pointer
else
  $(SIM)/cuda/%.o $(SIM)/sim/%.o $(SIM)/tests/%.o: SIMFLAGS += -O2 $(ASAN)
  # The scheduler never touches a kernel's memory.
  $(SIM)/sim/engine.cpp.o: SIMFLAGS += -fno-sanitize=undefined --param=asan-instrument-reads=0 --param=asan-instrument-writes=0
  SIM_LIBS += $(ASAN)
endif
# Most of a long test's time, on arrays of the simulator's own. A function of the standard library that is not inlined there
# would be another file's, with its checks, so attributes of single functions are not enough.
$(SIM)/sim/tensor_core.cpp.o: SIMFLAGS += -O3 -fno-sanitize=all
# Its own backends.cpp, which names cuda, comes before the app's.
SIM_APP := $(SIM)/host/app/backends.cpp.o $(call archive,app parallel train rollout verify model cpu tokenizer data cuda_sim sim core)

$(SIM)/%.o: FLAGS = $(SIMFLAGS)
$(SIM)/%.o: % | $(BUILD)/deps.ok
	$(COMPILE)
$(OUT)/libsim.a: $(call SIM_OF,$(wildcard sim/*.cpp))
	$(ARCHIVE)
$(OUT)/libcuda_sim.a: $(call SIM_OF,$(CUDA_SOURCES))
	$(ARCHIVE)
$(OUT)/test_sim $(OUT)/test_cuda: LIBS = $(GTEST) $(SIM_LIBS)
# launch.cpp first: the race checker does not mark it, so that its copies of fmt's functions, and not a test's, format faults.
$(OUT)/test_sim: $(call SIM_OF,cuda/launch.cpp $(wildcard tests/sim/*.cu tests/sim/*.cpp)) $(OUT)/libsim.a
	$(LINK)
$(OUT)/test_cuda: $(call SIM_OF,$(filter-out tests/cuda/gpu.cpp,$(CUDA_TESTS)) $(wildcard tests/cuda/sim/*.cpp)) $(SIM_APP)
	$(LINK)
$(SIM)/dapo $(SIM)/dapo_train: LIBS = $(SIM_LIBS)
$(SIM)/dapo $(SIM)/dapo_train: $(SIM)/%: $(OUT)/host/app/%.o $(SIM_APP)
	$(LINK)
$(SIM)/bench_ops $(SIM)/bench_step: LIBS = -lbenchmark $(SIM_LIBS)
$(SIM)/bench_ops $(SIM)/bench_step: $(SIM)/bench_%: $(SIM)/bench/%.cpp.o $(call SIM_OF,$(BENCH_PARTS)) $(SIM_APP)
	$(LINK)
race:  ## the kernels' tests in the simulator with its race checker
	@$(MAKE) --no-print-directory VARIANT=race $(BUILD)/race/test_sim $(BUILD)/race/test_cuda && tests/run.sh $(BUILD)/race/test_sim $(BUILD)/race/test_cuda
.PHONY: race
