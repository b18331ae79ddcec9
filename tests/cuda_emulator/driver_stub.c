/* A CUDA driver that does nothing but say what it was asked for, to test roi_ops/cuda/driver.py without a GPU.
   DRIVER_STUB_QUIET in the environment: it says nothing, so that host time can be measured. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define printf(...) (getenv("DRIVER_STUB_QUIET") ? 0 : printf(__VA_ARGS__))

int cuDriverGetVersion(int* version) { return *version = 13000, 0; }
int cuCtxGetCurrent(void** context) { return *context = 0, 0; }
int cuDeviceGet(int* device, int index) { return *device = index, 0; }
int cuDevicePrimaryCtxRetain(void** context, int device) { return *context = (void*)(intptr_t)(0x700 + device), 0; }
int cuCtxSetCurrent(void* context) { return printf("context %p\n", context), 0; }
int cuModuleGetFunction(void** function, void* module, const char* name) {
  return *function = (void*)0x900, printf("function %s of %p\n", name, module), 0;
}

int cuThreadExchangeStreamCaptureMode(int* mode) {
  const int before = 0;
  printf("capture mode %d\n", *mode);
  return *mode = before, 0;
}

int cuModuleLoadData(void** module, const char* code) {
  if (code[1] != 'E' || code[2] != 'L' || code[3] != 'F') return 200; /* CUDA_ERROR_INVALID_IMAGE */
  return *module = (void*)0x800, printf("module\n"), 0;
}

/* The first word of the argument struct is the address of the first feature map. */
int cuLaunchKernel(
    void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void* stream,
    void** arguments, void** extra) {
  printf("launch %p grid %u %u %u block %u %u %u shared %u stream %p extra %d map %p\n", f, gx, gy, gz, bx, by, bz, shared,
         stream, extra != 0, *(void**)arguments[0]);
  return fflush(stdout), 0;
}

static int nothing(void) { return 0; }

int cuGetProcAddress_v2(const char* name, void** function, int version, uint64_t flags, int* status) {
  void* found = dlsym(RTLD_DEFAULT, name);
  *function = found ? found : (void*)nothing;
  if (status) *status = 0;
  return 0;
}
