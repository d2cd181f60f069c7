# cuda/ by nvcc if it is installed; otherwise the programs are built for the CPU only.
CUDA_SOURCES := $(wildcard cuda/*.cu cuda/*.cpp)
CUDA_TESTS   := $(wildcard tests/cuda/*.cpp) tests/model/golden_test.cpp tests/model/equality_test.cpp
# NCCL, between GPUs, if its header is present; the library is loaded at run time.
NCCL_H       := $(if $(NVCC),$(wildcard $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))/include/nccl.h /usr/include/nccl.h))
NVCC_OBJECTS := $(if $(NVCC),$(patsubst %,$(OUT)/nvcc/%.o,$(CUDA_SOURCES)))
NVCCFLAGS := -std=c++20 -I. -O3 -lineinfo -Werror all-warnings -Xcompiler -Wall,-Wextra -DFMT_USE_CONSTEXPR=1 \
  -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a -gencode arch=compute_90,code=compute_90

ifeq ($(CUDA),nvcc)
  CUDA_HOME ?= $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
  CUDA_DEPS := $(OUT)/libcuda.a
  CUDA_LIBS := -L$(CUDA_HOME)/lib64 -lcudart_static -lrt -ldl
  $(OUT)/host/app/backends.o $(OUT)/bench/%.o: CPPFLAGS += -DDAPO_CUDA
  # Ranges that nsys and ncu show (make profile); without a profiler they cost a call through a null pointer.
  NVTX := $(if $(wildcard $(CUDA_HOME)/include/nvtx3/nvToolsExt.h),-DDAPO_NVTX -isystem $(CUDA_HOME)/include)
  $(OUT)/host/%.o $(OUT)/bench/%.o: CPPFLAGS += $(NVTX)
  # cuDNN's attention for comparison, if its headers are present (the library is loaded at run time).
  CUDNN_FE := $(patsubst %/cudnn_frontend.h,%,$(firstword $(wildcard $(addsuffix /cudnn_frontend.h,\
    $(BUILD)/cudnn_frontend/include /usr/include /usr/local/include))))
  CUDNN_H  := $(wildcard $(CUDA_HOME)/include/cudnn.h /usr/include/cudnn.h)
  $(OUT)/bench/parts/cudnn_attention.o: CPPFLAGS += $(if $(and $(CUDNN_FE),$(CUDNN_H)),-DDAPO_CUDNN \
    -DNV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING -DCUDNN_FRONTEND_SKIP_JSON_LIB -isystem $(CUDNN_FE))
  $(OUT)/bench/parts/cudnn_attention.o: $(if $(CUDNN_FE),$(CUDNN_FE)/cudnn_frontend.h)
endif

$(OUT)/nvcc/%.o: % | $(BUILD)/deps.ok
	@mkdir -p $(@D)
	@echo "  NVCC $<"
	@$(NVCC) $(NVCCFLAGS) --resource-usage -MD -MP -MF $(@:.o=.d) -c -o $@ $< >$@.log 2>&1 || { cat $@.log; rm -f $@; exit 1; }
$(OUT)/libcuda.a: $(NVCC_OBJECTS)
	$(ARCHIVE)
# The tests for a GPU: host code, so g++ compiles it.
$(OUT)/gpu/%.o: FLAGS = -isystem $(CUDA_HOME)/include
$(OUT)/gpu/%.o: %.cpp | $(BUILD)/deps.ok
	$(COMPILE)
$(OUT)/test_gpu: LIBS = $(GTEST) $(CUDA_LIBS)
$(OUT)/test_gpu: $(CUDA_TESTS:%.cpp=$(OUT)/gpu/%.o) $(APP)
	$(LINK)
bench-wgmma: $(OUT)/bench_wgmma  ## build bench_wgmma: the wgmma product beside cuBLASLt, for a Hopper card
$(OUT)/bench_wgmma: bench/wgmma.cu cuda/wgmma_product.cuh cuda/wgmma.cuh cuda/hopper.cuh cuda/ptx.cuh
	@echo "  NVCC $<"
	@$(NVCC) -std=c++20 -I. -O3 -Werror all-warnings -Xcompiler -Wall,-Wextra -gencode arch=compute_90a,code=sm_90a -o $@ $< -lcublasLt
bench-timeline: $(OUT)/libtimeline.so  ## build libtimeline.so, which records what runs on a GPU and when (docs/profiling.md)
$(OUT)/libtimeline.so: bench/timeline.cpp
	@mkdir -p $(@D) && echo "  CXX  $<" && $(CXX) -std=c++20 -O2 -fPIC -shared $(WARNINGS) -isystem $(CUDA_HOME)/include -o $@ $< -L$(CUDA_HOME)/lib64 -lcupti
# Every instruction of cuda/hopper.cuh and cuda/wgmma.cuh, whether a kernel uses it or not.
cuda-compile: $(NVCC_OBJECTS) $(if $(NVCC),$(OUT)/nvcc/tests/sim/wrappers.cu.o)  ## cuda/ by nvcc for sm_80 and sm_90a: warnings and register spills are errors
	@$(if $(NVCC),cuda/report.sh --check $(^:=.log),echo "cuda-compile: no nvcc here: nothing compiled")
cuda-report: $(NVCC_OBJECTS)  ## registers, shared memory, spills, occupancy of each kernel
	@$(if $(NVCC),cuda/report.sh $(^:=.log),echo "cuda-report: no nvcc here")
.PHONY: bench-wgmma bench-timeline cuda-compile cuda-report
