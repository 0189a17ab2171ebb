// SPDX-License-Identifier: Apache-2.0
// Keeps a GPU busy for some seconds, or makes it fault: `load SECONDS MIB`, `load fault`. Needs only the driver's
// libcuda, opened at run time; the kernels are PTX that the driver compiles.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char kernels[] =
    ".version 6.0\n.target sm_50\n.address_size 64\n"
    ".visible .entry spin(.param .u64 into, .param .u32 rounds) {\n"
    ".reg .u64 %a; .reg .u32 %n; .reg .f32 %x; .reg .pred %p;\n"
    "ld.param.u64 %a, [into]; ld.param.u32 %n, [rounds]; mov.f32 %x, 0f3F800000;\n"
    "again: fma.rn.f32 %x, %x, %x, %x; sub.u32 %n, %n, 1; setp.ne.u32 %p, %n, 0; @%p bra again;\n"
    "st.global.f32 [%a], %x; ret; }\n"
    ".visible .entry fault() { .reg .u64 %a; mov.u64 %a, 64; st.global.u64 [%a], %a; ret; }\n";

static void *cuda;

#define CALL(name, types, ...)                                                                                         \
    do {                                                                                                               \
        int(*called) types = (int(*) types)dlsym(cuda, name);                                                          \
        int code = called ? called(__VA_ARGS__) : -1;                                                                  \
        if (code != 0) {                                                                                               \
            fprintf(stderr, "%s: code %d\n", name, code);                                                              \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int launch(void *function, void **arguments, unsigned blocks) {
    CALL("cuLaunchKernel",
         (void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **),
         function, blocks, 1, 1, 256, 1, 1, 0, NULL, arguments, NULL);
    CALL("cuCtxSynchronize", (void), );
    return 0;
}

static int run(void *module, double seconds, size_t mib) {
    unsigned long long memory = 0;
    unsigned rounds = 2000000;
    void *spin = NULL, *arguments[] = {&memory, &rounds};
    CALL("cuMemAlloc_v2", (unsigned long long *, size_t), &memory, mib << 20);
    CALL("cuModuleGetFunction", (void **, void *, const char *), &spin, module, "spin");
    puts("busy");
    fflush(stdout);
    for (double end = now() + seconds; now() < end;) {
        if (launch(spin, arguments, 4096) != 0) {
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    void *context = NULL, *module = NULL, *fault = NULL;
    cuda = dlopen("libcuda.so.1", RTLD_NOW);
    if (!cuda || argc < 2) {
        fprintf(stderr, "%s\n", cuda ? "usage: load SECONDS MIB | load fault" : dlerror());
        return 2;
    }
    CALL("cuInit", (unsigned), 0);
    CALL("cuDevicePrimaryCtxRetain", (void **, int), &context, 0);
    CALL("cuCtxSetCurrent", (void *), context);
    CALL("cuModuleLoadData", (void **, const void *), &module, kernels);
    if (strcmp(argv[1], "fault") != 0) {
        return run(module, atof(argv[1]), argc > 2 ? strtoul(argv[2], NULL, 10) : 256);
    }
    CALL("cuModuleGetFunction", (void **, void *, const char *), &fault, module, "fault");
    return launch(fault, NULL, 1) == 0; // the fault is the purpose
}
