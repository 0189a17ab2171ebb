// SPDX-License-Identifier: Apache-2.0
#include "nvml.h"

#include <dlfcn.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct {
    const char *name, *older;
    size_t offset;
} functions[] = {
#define NVML_ROW(member, arguments, name, older) {name, older, offsetof(struct nvml, member)},
    NVML_FUNCTIONS(NVML_ROW)
#undef NVML_ROW
};

// The C library keeps what the last failed look-up said until its thread ends; asked a second time, it frees that. A
// thread of ours may still be about to end when the program does.
static void forget_failures(void) {
    (void)dlerror();
    (void)dlerror();
}

static void find_functions(struct nvml *nvml) {
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *symbol = dlsym(nvml->library, functions[i].name);
        if (!symbol && functions[i].older) {
            symbol = dlsym(nvml->library, functions[i].older);
        }
        memcpy((char *)nvml + functions[i].offset, &symbol, sizeof symbol);
    }
    forget_failures();
}

static const struct {
    int code;
    const char *text;
} codes[] = {
    {1, "not initialised"},
    {NVML_NOT_SUPPORTED, "not supported"},
    {4, "no permission"},
    {NVML_NOT_FOUND, "not found"},
    {8, "external power is not attached"},
    {NVML_DRIVER_NOT_LOADED, "the driver is not loaded"},
    {10, "timed out"},
    {NVML_LIBRARY_NOT_FOUND, "a library of the driver is missing"},
    {NVML_FUNCTION_NOT_FOUND, "the driver has no such function"},
    {NVML_GPU_IS_LOST, "the GPU is lost"},
    {16, "the GPU needs a reset"},
    {17, "the operating system refused"},
    {18, "driver and library differ in version"},
    {20, "out of memory"},
    {NVML_GPU_NOT_FOUND, "no GPU is found"},
};

const char *nvml_code_text(int code) {
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        if (codes[i].code == code) {
            return codes[i].text;
        }
    }
    return "unknown error";
}

int64_t nvml_number(const union nvml_value *value, int type) {
    switch (type) {
    case NVML_VALUE_DOUBLE:
        return (int64_t)value->real;
    case NVML_VALUE_U32:
        return value->u32;
    case NVML_VALUE_I32:
        return (int32_t)value->u32;
    default:
        return (int64_t)value->u64;
    }
}

static bool means_no_driver(int code) {
    return code == NVML_DRIVER_NOT_LOADED || code == NVML_LIBRARY_NOT_FOUND || code == NVML_GPU_NOT_FOUND;
}

static enum er_status start(struct nvml *nvml, struct er_error *err) {
    if (!nvml->init || !nvml->count || !nvml->by_index) {
        return er_fail(err, ER_INTERNAL, "the driver's library is no NVML: it has no nvmlInit");
    }
    int code = nvml->init();
    if (code != NVML_OK) {
        return er_fail(err, means_no_driver(code) ? ER_NOT_FOUND : ER_INTERNAL, "cannot start NVML: %s (code %d)",
                       nvml_code_text(code), code);
    }
    nvml->started = true;
    return ER_OK;
}

enum { HUGE_PAGE = 2 << 20 };

// The part of a segment that is in no file: it reads as zeros until it is written.
static void want_huge_pages(ElfW(Addr) base, const ElfW(Phdr) * segment) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = (base + segment->p_vaddr + segment->p_filesz + page - 1) & ~(page - 1);
    uintptr_t to = (base + segment->p_vaddr + segment->p_memsz) & ~(page - 1);
    if (to > from && to - from >= HUGE_PAGE) {
        madvise((void *)from, to - from, MADV_HUGEPAGE);
    }
}

static int look_at_library(struct dl_phdr_info *info, size_t size, void *data) {
    const struct link_map *library = data;
    (void)size;
    for (int i = 0; info->dlpi_addr == library->l_addr && i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type == PT_LOAD && (info->dlpi_phdr[i].p_flags & PF_W)) {
            want_huge_pages(info->dlpi_addr, &info->dlpi_phdr[i]);
        }
    }
    return 0;
}

// NVML 580 clears 14 MB of its own when it starts. In small pages those are 3,400 faults, and 4 of the 25 ms that one
// `eirun gpu` took on an H100.
static void prepare_memory(void *library) {
    struct link_map *map = NULL;
    if (dlinfo(library, RTLD_DI_LINKMAP, &map) == 0) {
        dl_iterate_phdr(look_at_library, map);
    }
}

enum er_status nvml_open(struct nvml *nvml, const char *path, struct er_error *err) {
    *nvml = (struct nvml){.library = dlopen(path ? path : "libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)};
    if (!nvml->library) {
        er_fail(err, ER_NOT_FOUND, "no NVIDIA driver here: %s", dlerror());
        forget_failures();
        return ER_NOT_FOUND;
    }
    prepare_memory(nvml->library);
    find_functions(nvml);
    enum er_status status = start(nvml, err);
    if (status != ER_OK) {
        dlclose(nvml->library);
        *nvml = (struct nvml){0};
    }
    return status;
}
