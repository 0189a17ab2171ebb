// SPDX-License-Identifier: Apache-2.0
// The fields of one device. A function that the driver lacks, or that fails, leaves its fields unknown.
#include "gpu.h"

#include <stdio.h>

const struct er_gpu_field_row er_gpu_field_rows[ER_GPU_FIELD_COUNT] = {
#define ER_GPU_ROW(constant, name, kind) [ER_GPU_##constant] = {(name), ER_GPU_##kind},
    ER_GPU_FIELDS(ER_GPU_ROW)
#undef ER_GPU_ROW
};

void er_gpu_wish_usual(struct er_gpu_wish *wish) {
    for (int i = 0; i < ER_GPU_FIELD_COUNT; i++) {
        wish->fields[i] = !(er_gpu_field_rows[i].kind & ER_GPU_EXTRA);
    }
    wish->instances = true;
}

// True when the call went well; remembers a GPU that fell off the bus. The call is not made where there is none.
#define ASK(device, function, ...) ((function) && went_well((device), (function)(__VA_ARGS__)))

static bool went_well(struct er_gpu_device *device, int code) {
    device->lost = device->lost || code == NVML_GPU_IS_LOST;
    return code == NVML_OK;
}

static bool needs(const struct er_gpu_device *device, enum er_gpu_field field) {
    return device->wanted[field] && device->values[field].kind == ER_GPU_NA;
}

static bool needs_any(const struct er_gpu_device *device, enum er_gpu_field first, enum er_gpu_field last) {
    for (unsigned field = first; field <= (unsigned)last; field++) {
        if (needs(device, (enum er_gpu_field)field)) {
            return true;
        }
    }
    return false;
}

static void set(struct er_gpu_device *device, enum er_gpu_field field, uint64_t number) {
    device->values[field] = (struct er_gpu_value){.kind = ER_GPU_NUMBER, .number = (int64_t)number};
}

static void set_text(struct er_gpu_device *device, enum er_gpu_field field, const char *text) {
    struct er_gpu_value *value = &device->values[field];
    value->kind = ER_GPU_TEXT;
    snprintf(value->text, sizeof value->text, "%s", text);
}

// Calls that answer a text.
static void read_texts(const struct nvml *nvml, struct er_gpu_device *device) {
    const struct {
        int (*function)(struct nvml_device *, char *, unsigned);
        enum er_gpu_field field;
    } rows[] = {
        {nvml->name, ER_GPU_NAME},
        {nvml->uuid, ER_GPU_UUID},
        {nvml->serial, ER_GPU_SERIAL},
        {nvml->vbios, ER_GPU_VBIOS},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[NVML_TEXT] = {0};
        if (needs(device, rows[i].field) && ASK(device, rows[i].function, device->handle, text, sizeof text)) {
            text[sizeof text - 1] = '\0';
            set_text(device, rows[i].field, text);
        }
    }
}

static void read_capability(const struct nvml *nvml, struct er_gpu_device *device) {
    int major = 0, minor = 0;
    if (ASK(device, nvml->capability, device->handle, &major, &minor)) {
        char text[NVML_TEXT];
        snprintf(text, sizeof text, "%d.%d", major, minor);
        set_text(device, ER_GPU_COMPUTE_CAPABILITY, text);
    }
}

// The kernel's name of the bus has four digits of domain in lower case.
// Where the kernel does not know, as in a virtual machine: the node whose memory is near, if it is one. Takes 5 ms.
static void ask_numa(const struct nvml *nvml, struct er_gpu_device *device) {
    unsigned long nodes = 0;
    if (ASK(device, nvml->memory_affinity, device->handle, 1, &nodes, 0) && nodes && !(nodes & (nodes - 1))) {
        set(device, ER_GPU_NUMA, (uint64_t)__builtin_ctzl(nodes));
    }
}

static void read_numa(const struct nvml *nvml, struct er_gpu_device *device, const struct nvml_pci *pci) {
    char path[128];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%04x:%02x:%02x.0/numa_node", pci->domain, pci->bus, pci->device);
    FILE *file = fopen(path, "re");
    int node = -1;
    if (file && fscanf(file, "%d", &node) == 1 && node >= 0) {
        set(device, ER_GPU_NUMA, (uint64_t)node);
    } else {
        ask_numa(nvml, device);
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
    set(device, ER_GPU_PCI_DOMAIN, pci.domain);
    set(device, ER_GPU_PCI_BUS, pci.bus);
    set(device, ER_GPU_PCI_DEVICE, pci.device);
    set(device, ER_GPU_PCI_ID, pci.id);
    set(device, ER_GPU_PCI_SUBSYSTEM, pci.subsystem);
    if (needs(device, ER_GPU_NUMA)) {
        read_numa(nvml, device, &pci);
    }
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

static void read_bar1(const struct nvml *nvml, struct er_gpu_device *device) {
    struct nvml_bar1 memory = {0};
    if (ASK(device, nvml->bar1, device->handle, &memory)) {
        set(device, ER_GPU_BAR1_TOTAL, memory.total);
        set(device, ER_GPU_BAR1_USED, memory.used);
    }
}

static void read_rates(const struct nvml *nvml, struct er_gpu_device *device) {
    struct nvml_rates rates = {0};
    if (ASK(device, nvml->rates, device->handle, &rates)) {
        set(device, ER_GPU_UTIL_GPU, rates.gpu);
        set(device, ER_GPU_UTIL_MEMORY, rates.memory);
    }
}

// Calls that answer a rate and the period over which it was taken.
static void read_engines(const struct nvml *nvml, struct er_gpu_device *device) {
    const struct {
        int (*function)(struct nvml_device *, unsigned *, unsigned *);
        enum er_gpu_field field;
    } rows[] = {
        {nvml->encoder, ER_GPU_UTIL_ENCODER},
        {nvml->decoder, ER_GPU_UTIL_DECODER},
        {nvml->jpeg, ER_GPU_UTIL_JPEG},
        {nvml->ofa, ER_GPU_UTIL_OFA},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned rate = 0, period = 0;
        if (needs(device, rows[i].field) && ASK(device, rows[i].function, device->handle, &rate, &period)) {
            set(device, rows[i].field, rate);
        }
    }
}

// Values that have a number instead of a function.
static void read_numbered(const struct nvml *nvml, struct er_gpu_device *device) {
    static const struct {
        unsigned id, scope;
        enum er_gpu_field field;
    } rows[] = {
        {NVML_FIELD_MEMORY_TEMPERATURE, 0, ER_GPU_TEMPERATURE_MEMORY},
        {NVML_FIELD_POWER_AVERAGE, 0, ER_GPU_POWER_AVERAGE},
        {NVML_FIELD_POWER_INSTANT, 0, ER_GPU_POWER_INSTANT},
        {NVML_FIELD_LINK_SPEEDS, 0, ER_GPU_NVLINKS_SPEED},
        {NVML_FIELD_LINK_SPEED, 0, ER_GPU_NVLINKS_SPEED}, // Hopper tells it of a link only
        {NVML_FIELD_LINK_TX, NVML_ALL_LINKS, ER_GPU_NVLINKS_TX},
        {NVML_FIELD_LINK_RX, NVML_ALL_LINKS, ER_GPU_NVLINKS_RX},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct nvml_field field = {.id = rows[i].id, .scope = rows[i].scope};
        if (needs(device, rows[i].field) && ASK(device, nvml->fields, device->handle, 1, &field) &&
            field.code == NVML_OK) {
            set(device, rows[i].field, (uint64_t)nvml_number(&field.value, field.type));
        }
    }
}

// The older call of the same is one of read_selected's.
static void read_temperature(const struct nvml *nvml, struct er_gpu_device *device) {
    struct nvml_temperature now = {.version = NVML_TEMPERATURE_V1};
    if (ASK(device, nvml->temperature_v, device->handle, &now)) {
        device->values[ER_GPU_TEMPERATURE] = (struct er_gpu_value){.kind = ER_GPU_NUMBER, .number = now.celsius};
    }
}

static void read_margin(const struct nvml *nvml, struct er_gpu_device *device) {
    struct nvml_margin margin = {.version = NVML_MARGIN_V1};
    if (ASK(device, nvml->margin, device->handle, &margin)) {
        device->values[ER_GPU_TEMPERATURE_MARGIN] =
            (struct er_gpu_value){.kind = ER_GPU_NUMBER, .number = margin.celsius};
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
        {nvml->clock_set, NVML_CLOCK_GRAPHICS, ER_GPU_CLOCK_SET_GRAPHICS},
        {nvml->clock_set, NVML_CLOCK_MEM, ER_GPU_CLOCK_SET_MEMORY},
        {nvml->clock_default, NVML_CLOCK_GRAPHICS, ER_GPU_CLOCK_DEFAULT_GRAPHICS},
        {nvml->clock_default, NVML_CLOCK_MEM, ER_GPU_CLOCK_DEFAULT_MEMORY},
        {nvml->pcie_rate, NVML_PCIE_TX, ER_GPU_PCIE_TX}, // measures for 20 ms
        {nvml->pcie_rate, NVML_PCIE_RX, ER_GPU_PCIE_RX},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned number = 0;
        if (needs(device, rows[i].field) && ASK(device, rows[i].function, device->handle, rows[i].selector, &number)) {
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
        {nvml->power_requested, ER_GPU_POWER_REQUESTED},
        {nvml->power_default, ER_GPU_POWER_DEFAULT},
        {nvml->fan, ER_GPU_FAN},
        {nvml->pcie_generation, ER_GPU_PCIE_GENERATION},
        {nvml->pcie_generation_max, ER_GPU_PCIE_GENERATION_MAX},
        {nvml->pcie_generation_gpu_max, ER_GPU_PCIE_GENERATION_GPU_MAX},
        {nvml->pcie_width, ER_GPU_PCIE_WIDTH},
        {nvml->pcie_width_max, ER_GPU_PCIE_WIDTH_MAX},
        {nvml->pcie_replays, ER_GPU_PCIE_REPLAYS},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned number = 0;
        if (needs(device, rows[i].field) && ASK(device, rows[i].function, device->handle, &number)) {
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
        {nvml->display_active, ER_GPU_DISPLAY_ACTIVE},
        {nvml->power_management, ER_GPU_POWER_MANAGEMENT},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int mode = 0;
        if (needs(device, rows[i].field) && ASK(device, rows[i].function, device->handle, &mode) && mode >= 0) {
            set(device, rows[i].field, (uint64_t)mode);
        }
    }
}

// Calls that answer 64 bits.
static void read_wide(const struct nvml *nvml, struct er_gpu_device *device) {
    const struct {
        int (*function)(struct nvml_device *, unsigned long long *);
        enum er_gpu_field field;
    } rows[] = {
        {nvml->energy, ER_GPU_ENERGY},
        {nvml->clock_reasons, ER_GPU_CLOCK_REASONS},
        {nvml->clock_reasons_known, ER_GPU_CLOCK_REASONS_KNOWN},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned long long number = 0;
        if (needs(device, rows[i].field) && ASK(device, rows[i].function, device->handle, &number)) {
            set(device, rows[i].field, number);
        }
    }
}

static void read_power_range(const struct nvml *nvml, struct er_gpu_device *device) {
    unsigned low = 0, high = 0;
    if (ASK(device, nvml->power_range, device->handle, &low, &high)) {
        set(device, ER_GPU_POWER_MIN, low);
        set(device, ER_GPU_POWER_MAX, high);
    }
}

static void read_ecc_mode(const struct nvml *nvml, struct er_gpu_device *device) {
    int current = 0, pending = 0;
    if (ASK(device, nvml->ecc_mode, device->handle, &current, &pending)) {
        set(device, ER_GPU_ECC_MODE, current != 0);
        set(device, ER_GPU_ECC_PENDING, pending != 0);
    }
}

// In the order of the fields: corrected and uncorrected since the driver came up, then of the GPU's life.
static void read_ecc(const struct nvml *nvml, struct er_gpu_device *device) {
    for (int i = 0; i < 4; i++) {
        enum er_gpu_field field = (enum er_gpu_field)(ER_GPU_ECC_CORRECTED + i);
        unsigned long long errors = 0;
        if (needs(device, field) && ASK(device, nvml->ecc_errors, device->handle, i % 2, i / 2, &errors)) {
            set(device, field, errors);
        }
    }
}

static void read_ecc_places(const struct nvml *nvml, struct er_gpu_device *device) {
    for (int i = 0; i < 8; i++) {
        enum er_gpu_field field = (enum er_gpu_field)(ER_GPU_ECC_DRAM_CORRECTED + i);
        unsigned long long errors = 0;
        if (needs(device, field) && ASK(device, nvml->ecc_counter, device->handle, i % 2, i / 2 % 2,
                                        i / 4 ? NVML_PLACE_SRAM : NVML_PLACE_DRAM, &errors)) {
            set(device, field, errors);
        }
    }
}

// Without room the call answers how many there are.
static void read_retired(const struct nvml *nvml, struct er_gpu_device *device) {
    for (int cause = NVML_RETIRED_SINGLE; cause <= NVML_RETIRED_DOUBLE; cause++) {
        unsigned pages = 0;
        int code = nvml->retired ? nvml->retired(device->handle, cause, &pages, NULL) : NVML_FUNCTION_NOT_FOUND;
        if (went_well(device, code) || code == NVML_INSUFFICIENT_SIZE) {
            set(device, cause == NVML_RETIRED_SINGLE ? ER_GPU_RETIRED_SINGLE : ER_GPU_RETIRED_DOUBLE, pages);
        }
    }
}

static void read_histogram(const struct nvml *nvml, struct er_gpu_device *device) {
    struct nvml_histogram banks = {0};
    if (ASK(device, nvml->histogram, device->handle, &banks)) {
        set(device, ER_GPU_REMAP_BANKS_MAX, banks.max);
        set(device, ER_GPU_REMAP_BANKS_HIGH, banks.high);
        set(device, ER_GPU_REMAP_BANKS_PARTIAL, banks.partial);
        set(device, ER_GPU_REMAP_BANKS_LOW, banks.low);
        set(device, ER_GPU_REMAP_BANKS_NONE, banks.none);
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
        set(device, ER_GPU_MIG_PENDING, pending);
    }
}

// Calls that answer several fields at once, and lists that pick by field themselves.
static const struct {
    void (*read)(const struct nvml *nvml, struct er_gpu_device *device);
    enum er_gpu_field first, last;
} readers[] = {
    {read_texts, ER_GPU_NAME, ER_GPU_VBIOS},
    {read_pci, ER_GPU_PCI, ER_GPU_NUMA},
    {read_capability, ER_GPU_COMPUTE_CAPABILITY, ER_GPU_COMPUTE_CAPABILITY},
    {read_memory, ER_GPU_MEMORY_TOTAL, ER_GPU_MEMORY_RESERVED},
    {read_bar1, ER_GPU_BAR1_TOTAL, ER_GPU_BAR1_USED},
    {read_rates, ER_GPU_UTIL_GPU, ER_GPU_UTIL_MEMORY},
    {read_engines, ER_GPU_UTIL_ENCODER, ER_GPU_UTIL_OFA},
    {read_temperature, ER_GPU_TEMPERATURE, ER_GPU_TEMPERATURE},
    {read_selected, ER_GPU_TEMPERATURE, ER_GPU_PCIE_RX},
    {read_numbered, ER_GPU_TEMPERATURE_MEMORY, ER_GPU_NVLINKS_RX},
    {read_margin, ER_GPU_TEMPERATURE_MARGIN, ER_GPU_TEMPERATURE_MARGIN},
    {read_plain, ER_GPU_MINOR, ER_GPU_PCIE_REPLAYS},
    {read_modes, ER_GPU_POWER_MANAGEMENT, ER_GPU_DISPLAY_ACTIVE},
    {read_wide, ER_GPU_ENERGY, ER_GPU_CLOCK_REASONS_KNOWN},
    {read_power_range, ER_GPU_POWER_MIN, ER_GPU_POWER_MAX},
    {read_ecc_mode, ER_GPU_ECC_MODE, ER_GPU_ECC_PENDING},
    {read_ecc, ER_GPU_ECC_CORRECTED, ER_GPU_ECC_UNCORRECTED_TOTAL},
    {read_ecc_places, ER_GPU_ECC_DRAM_CORRECTED, ER_GPU_ECC_SRAM_UNCORRECTED_TOTAL},
    {read_retired, ER_GPU_RETIRED_SINGLE, ER_GPU_RETIRED_DOUBLE},
    {read_remapped, ER_GPU_REMAPPED_CORRECTED, ER_GPU_REMAPPED_FAILURE},
    {read_histogram, ER_GPU_REMAP_BANKS_MAX, ER_GPU_REMAP_BANKS_NONE},
    {read_links, ER_GPU_NVLINKS, ER_GPU_NVLINKS},
    {read_mig_mode, ER_GPU_MIG_MODE, ER_GPU_MIG_PENDING},
};

void er_gpu_read_device(const struct nvml *nvml, struct er_gpu_device *device) {
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
        if (needs_any(device, readers[i].first, readers[i].last)) {
            readers[i].read(nvml, device);
        }
    }
}

void er_gpu_read_instance(const struct nvml *nvml, struct er_gpu_device *device) {
    unsigned id = 0;
    read_texts(nvml, device);
    read_memory(nvml, device);
    if (ASK(device, nvml->gpu_instance, device->handle, &id)) {
        set(device, ER_GPU_GPU_INSTANCE, id);
    }
    if (ASK(device, nvml->compute_instance, device->handle, &id)) {
        set(device, ER_GPU_COMPUTE_INSTANCE, id);
    }
}
