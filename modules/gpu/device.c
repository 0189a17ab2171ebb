// SPDX-License-Identifier: Apache-2.0
// The fields of one device. A function that the driver lacks, or that fails, leaves its fields unknown.
#include "gpu.h"

#include <stdio.h>

const char *const er_gpu_field_names[ER_GPU_FIELD_COUNT] = {
#define ER_GPU_NAME_ROW(constant, name) [ER_GPU_##constant] = (name),
    ER_GPU_FIELDS(ER_GPU_NAME_ROW)
#undef ER_GPU_NAME_ROW
};

// True when the call went well; remembers a GPU that fell off the bus. The call is not made where there is none.
#define ASK(device, function, ...) ((function) && went_well((device), (function)(__VA_ARGS__)))

static bool went_well(struct er_gpu_device *device, int code) {
    device->lost = device->lost || code == NVML_GPU_IS_LOST;
    return code == NVML_OK;
}

static void set(struct er_gpu_device *device, enum er_gpu_field field, uint64_t number) {
    device->values[field] = (struct er_gpu_value){.kind = ER_GPU_NUMBER, .number = (int64_t)number};
}

static void set_text(struct er_gpu_device *device, enum er_gpu_field field, const char *text) {
    struct er_gpu_value *value = &device->values[field];
    value->kind = ER_GPU_TEXT;
    snprintf(value->text, sizeof value->text, "%s", text);
}

static void read_names(const struct nvml *nvml, struct er_gpu_device *device) {
    char text[NVML_TEXT] = {0};
    if (ASK(device, nvml->name, device->handle, text, sizeof text)) {
        set_text(device, ER_GPU_NAME, text);
    }
    if (ASK(device, nvml->uuid, device->handle, text, sizeof text)) {
        set_text(device, ER_GPU_UUID, text);
    }
}

// The kernel's name of the bus has four digits of domain in lower case.
static void read_numa(struct er_gpu_device *device, const struct nvml_pci *pci) {
    char path[128];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%04x:%02x:%02x.0/numa_node", pci->domain, pci->bus, pci->device);
    FILE *file = fopen(path, "re");
    int node = -1;
    if (file && fscanf(file, "%d", &node) == 1 && node >= 0) {
        set(device, ER_GPU_NUMA, (uint64_t)node);
    }
    if (file) {
        fclose(file);
    }
}

static void read_pci(const struct nvml *nvml, struct er_gpu_device *device) {
    struct nvml_pci pci = {.domain = 0};
    if (!ASK(device, nvml->pci, device->handle, &pci)) {
        return;
    }
    char text[NVML_TEXT];
    snprintf(text, sizeof text, "%08X:%02X:%02X.0", pci.domain, pci.bus, pci.device);
    set_text(device, ER_GPU_PCI, text);
    read_numa(device, &pci);
}

static bool read_memory_v2(const struct nvml *nvml, struct er_gpu_device *device) {
    struct nvml_memory_v2 memory = {.version = NVML_MEMORY_V2};
    if (!ASK(device, nvml->memory_v2, device->handle, &memory)) {
        return false;
    }
    set(device, ER_GPU_MEMORY_TOTAL, memory.total);
    set(device, ER_GPU_MEMORY_USED, memory.used);
    set(device, ER_GPU_MEMORY_FREE, memory.free);
    set(device, ER_GPU_MEMORY_RESERVED, memory.reserved);
    return true;
}

static void read_memory(const struct nvml *nvml, struct er_gpu_device *device) {
    struct nvml_memory memory = {0};
    if (read_memory_v2(nvml, device) || !ASK(device, nvml->memory, device->handle, &memory)) {
        return;
    }
    set(device, ER_GPU_MEMORY_TOTAL, memory.total);
    set(device, ER_GPU_MEMORY_USED, memory.used);
    set(device, ER_GPU_MEMORY_FREE, memory.free);
}

static void read_rates(const struct nvml *nvml, struct er_gpu_device *device) {
    struct nvml_rates rates = {0};
    if (ASK(device, nvml->rates, device->handle, &rates)) {
        set(device, ER_GPU_UTIL_GPU, rates.gpu);
        set(device, ER_GPU_UTIL_MEMORY, rates.memory);
    }
    unsigned rate = 0, period = 0;
    if (ASK(device, nvml->encoder, device->handle, &rate, &period)) {
        set(device, ER_GPU_UTIL_ENCODER, rate);
    }
    if (ASK(device, nvml->decoder, device->handle, &rate, &period)) {
        set(device, ER_GPU_UTIL_DECODER, rate);
    }
}

static void read_memory_temperature(const struct nvml *nvml, struct er_gpu_device *device) {
    struct nvml_field field = {.id = NVML_FIELD_MEMORY_TEMPERATURE};
    if (ASK(device, nvml->fields, device->handle, 1, &field) && field.code == NVML_OK) {
        set(device, ER_GPU_TEMPERATURE_MEMORY, field.value.u32);
    }
}

// Calls that answer one number for one selector.
static void read_selected(const struct nvml *nvml, struct er_gpu_device *device) {
    const struct {
        int (*function)(struct nvml_device *, int, unsigned *);
        int selector;
        enum er_gpu_field field;
    } rows[] = {
        {nvml->temperature, 0, ER_GPU_TEMPERATURE},
        {nvml->temperature_limit, NVML_LIMIT_SHUTDOWN, ER_GPU_TEMPERATURE_SHUTDOWN},
        {nvml->temperature_limit, NVML_LIMIT_SLOWDOWN, ER_GPU_TEMPERATURE_SLOWDOWN},
        {nvml->temperature_limit, NVML_LIMIT_GPU, ER_GPU_TEMPERATURE_MAX},
        {nvml->clock, NVML_CLOCK_GRAPHICS, ER_GPU_CLOCK_GRAPHICS},
        {nvml->clock, NVML_CLOCK_SM, ER_GPU_CLOCK_SM},
        {nvml->clock, NVML_CLOCK_MEM, ER_GPU_CLOCK_MEMORY},
        {nvml->clock, NVML_CLOCK_VIDEO, ER_GPU_CLOCK_VIDEO},
        {nvml->clock_max, NVML_CLOCK_GRAPHICS, ER_GPU_CLOCK_MAX_GRAPHICS},
        {nvml->clock_max, NVML_CLOCK_SM, ER_GPU_CLOCK_MAX_SM},
        {nvml->clock_max, NVML_CLOCK_MEM, ER_GPU_CLOCK_MAX_MEMORY},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned number = 0;
        if (ASK(device, rows[i].function, device->handle, rows[i].selector, &number)) {
            set(device, rows[i].field, number);
        }
    }
}

// Calls that answer one number.
static void read_plain(const struct nvml *nvml, struct er_gpu_device *device) {
    const struct {
        int (*function)(struct nvml_device *, unsigned *);
        enum er_gpu_field field;
    } rows[] = {
        {nvml->minor, ER_GPU_MINOR},
        {nvml->power, ER_GPU_POWER},
        {nvml->power_limit, ER_GPU_POWER_LIMIT},
        {nvml->power_default, ER_GPU_POWER_DEFAULT},
        {nvml->pcie_generation, ER_GPU_PCIE_GENERATION},
        {nvml->pcie_generation_max, ER_GPU_PCIE_GENERATION_MAX},
        {nvml->pcie_width, ER_GPU_PCIE_WIDTH},
        {nvml->pcie_width_max, ER_GPU_PCIE_WIDTH_MAX},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned number = 0;
        if (ASK(device, rows[i].function, device->handle, &number)) {
            set(device, rows[i].field, number);
        }
    }
}

// Calls that answer one of an enumeration, never negative.
static void read_modes(const struct nvml *nvml, struct er_gpu_device *device) {
    const struct {
        int (*function)(struct nvml_device *, int *);
        enum er_gpu_field field;
    } rows[] = {
        {nvml->performance_state, ER_GPU_PERFORMANCE_STATE},
        {nvml->retired_pending, ER_GPU_RETIRED_PENDING},
        {nvml->persistence, ER_GPU_PERSISTENCE},
        {nvml->compute_mode, ER_GPU_COMPUTE_MODE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int mode = 0;
        if (ASK(device, rows[i].function, device->handle, &mode) && mode >= 0) {
            set(device, rows[i].field, (uint64_t)mode);
        }
    }
}

static void read_wide(const struct nvml *nvml, struct er_gpu_device *device) {
    unsigned long long number = 0;
    if (ASK(device, nvml->energy, device->handle, &number)) {
        set(device, ER_GPU_ENERGY, number);
    }
    if (ASK(device, nvml->clock_reasons, device->handle, &number)) {
        set(device, ER_GPU_CLOCK_REASONS, number);
    }
    unsigned low = 0, high = 0;
    if (ASK(device, nvml->power_range, device->handle, &low, &high)) {
        set(device, ER_GPU_POWER_MIN, low);
        set(device, ER_GPU_POWER_MAX, high);
    }
}

static void read_ecc(const struct nvml *nvml, struct er_gpu_device *device) {
    static const struct {
        int error, counter;
        enum er_gpu_field field;
    } rows[] = {
        {NVML_ECC_CORRECTED, NVML_ECC_VOLATILE, ER_GPU_ECC_CORRECTED},
        {NVML_ECC_UNCORRECTED, NVML_ECC_VOLATILE, ER_GPU_ECC_UNCORRECTED},
        {NVML_ECC_CORRECTED, NVML_ECC_AGGREGATE, ER_GPU_ECC_CORRECTED_TOTAL},
        {NVML_ECC_UNCORRECTED, NVML_ECC_AGGREGATE, ER_GPU_ECC_UNCORRECTED_TOTAL},
    };
    int current = 0, pending = 0;
    if (ASK(device, nvml->ecc_mode, device->handle, &current, &pending)) {
        set(device, ER_GPU_ECC_MODE, current != 0);
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned long long errors = 0;
        if (ASK(device, nvml->ecc_errors, device->handle, rows[i].error, rows[i].counter, &errors)) {
            set(device, rows[i].field, errors);
        }
    }
}

// Without room the call answers how many there are.
static void read_retired(const struct nvml *nvml, struct er_gpu_device *device, int cause, enum er_gpu_field field) {
    unsigned pages = 0;
    int code = nvml->retired ? nvml->retired(device->handle, cause, &pages, NULL) : NVML_FUNCTION_NOT_FOUND;
    if (went_well(device, code) || code == NVML_INSUFFICIENT_SIZE) {
        set(device, field, pages);
    }
}

static void read_remapped(const struct nvml *nvml, struct er_gpu_device *device) {
    unsigned corrected = 0, uncorrected = 0, pending = 0, failure = 0;
    if (ASK(device, nvml->remapped, device->handle, &corrected, &uncorrected, &pending, &failure)) {
        set(device, ER_GPU_REMAPPED_CORRECTED, corrected);
        set(device, ER_GPU_REMAPPED_UNCORRECTED, uncorrected);
        set(device, ER_GPU_REMAPPED_PENDING, pending);
        set(device, ER_GPU_REMAPPED_FAILURE, failure);
    }
}

static void read_links(const struct nvml *nvml, struct er_gpu_device *device) {
    unsigned active = 0;
    bool known = false;
    for (unsigned link = 0; link < NVML_MAX_LINKS; link++) {
        int state = 0;
        if (!ASK(device, nvml->link_state, device->handle, link, &state)) {
            break;
        }
        known = true;
        active += state == 1;
    }
    if (known) {
        set(device, ER_GPU_NVLINKS, active);
    }
}

static void read_mig_mode(const struct nvml *nvml, struct er_gpu_device *device) {
    unsigned current = 0, pending = 0;
    if (ASK(device, nvml->mig_mode, device->handle, &current, &pending)) {
        set(device, ER_GPU_MIG_MODE, current);
    }
}

void er_gpu_read_device(const struct nvml *nvml, struct er_gpu_device *device) {
    read_names(nvml, device);
    read_pci(nvml, device);
    read_memory(nvml, device);
    read_rates(nvml, device);
    read_selected(nvml, device);
    read_memory_temperature(nvml, device);
    read_plain(nvml, device);
    read_modes(nvml, device);
    read_wide(nvml, device);
    read_ecc(nvml, device);
    read_retired(nvml, device, NVML_RETIRED_SINGLE, ER_GPU_RETIRED_SINGLE);
    read_retired(nvml, device, NVML_RETIRED_DOUBLE, ER_GPU_RETIRED_DOUBLE);
    read_remapped(nvml, device);
    read_links(nvml, device);
    read_mig_mode(nvml, device);
}

void er_gpu_read_instance(const struct nvml *nvml, struct er_gpu_device *device) {
    unsigned id = 0;
    read_names(nvml, device);
    read_memory(nvml, device);
    if (ASK(device, nvml->gpu_instance, device->handle, &id)) {
        set(device, ER_GPU_GPU_INSTANCE, id);
    }
    if (ASK(device, nvml->compute_instance, device->handle, &id)) {
        set(device, ER_GPU_COMPUTE_INSTANCE, id);
    }
}
