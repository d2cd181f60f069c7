# A relocatable folder for a GPU machine, gpu-check, and profiles.
GPU_CHECK_SIM := $(addprefix $(SIM)/,dapo dapo_train bench_ops bench_step) $(OUT)/test_cuda
dist:  ## dist/: programs, libraries and gpu-check for a machine with a driver and no toolkit, under 40 MB; plus golden models
	@$(if $(NVCC),,echo "make dist: no nvcc on PATH"; exit 1;) [ -n "$(CUDNN_FE)" ] || $(MAKE) --no-print-directory bench-cudnn || true
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/dist VARIANT=release DIST=1 ARCH=$(or $(DIST_ARCH),x86-64-v3) CUDA=nvcc \
	  ARROW_FLAGS= ARROW_LIBS= MPI=none CUDNN_FE="$(or $(CUDNN_FE),$$(ls -d $(BUILD)/cudnn_frontend/include 2>/dev/null))" \
	  $(addprefix $(BUILD)/dist/release/,dapo_train dapo test_gpu bench_ops bench_step)
	@bench/dist.sh $(BUILD)/dist/release dist
bench-cudnn: $(BUILD)/deps.ok  ## fetch the headers of cuDNN's frontend, so that bench_ops also times cuDNN's attention
	@$(call wheel,nvidia-cudnn-frontend,nvidia_cudnn_frontend,1.32.0,$(BUILD)/cudnn_frontend) || { cat $(BUILD)/nvidia-cudnn-frontend.log; exit 1; }
ifeq ($(DEVICE),sim)
gpu-check: $(GPU_CHECK_SIM)
	@python3 bench/gpu_check.py --device sim --bin $(SIM):$(OUT) --configs configs --out $(BUILD)/gpu-check $(STAGES)
else
gpu-check: dist  ## check and measure this machine's GPU; DEVICE=sim: its logic in the simulator, tiny
	@dist/gpu-check $(STAGES)
endif
profile:  ## print (and write to build/profile.sh) the nsys and ncu commands for PROFILED; docs/profiling.md says what to read
	@mkdir -p $(BUILD) && bench/profile.sh $(BUILD) $(or $(PROFILED),$(OUT)/bench_step --device cuda --shape 0.5b --what step --steps 1 --prompts 16 --new-tokens 256)
.PHONY: bench-cudnn dist gpu-check profile
