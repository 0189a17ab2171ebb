// SPDX-License-Identifier: Apache-2.0
// The NVLinks of a device, one by one. What the driver does not tell of a link is ER_GPU_UNKNOWN.
#include "gpu.h"

#include <stdio.h>

const char *const er_gpu_nvlink_names[ER_GPU_NVLINK_FIELD_COUNT] = {
#define ER_GPU_NVLINK_NAME(constant, name) [ER_GPU_NVLINK_##constant] = (name),
    ER_GPU_NVLINK_FIELDS(ER_GPU_NVLINK_NAME)
#undef ER_GPU_NVLINK_NAME
};

static void read_numbered(const struct nvml *nvml, struct nvml_device *handle, struct er_gpu_nvlink *link) {
    static const struct {
        unsigned id;
        enum er_gpu_nvlink_field field;
    } rows[] = {
        {NVML_FIELD_LINK_SPEED, ER_GPU_NVLINK_SPEED},
        {NVML_FIELD_LINK_TX, ER_GPU_NVLINK_TX},
        {NVML_FIELD_LINK_RX, ER_GPU_NVLINK_RX},
        {NVML_FIELD_LINK_CRC, ER_GPU_NVLINK_CRC},
    };
    for (size_t i = 0; nvml->fields && i < sizeof rows / sizeof *rows; i++) {
        struct nvml_field field = {.id = rows[i].id, .scope = link->number};
        if (nvml->fields(handle, 1, &field) == NVML_OK && field.code == NVML_OK) {
            link->values[rows[i].field] = nvml_number(&field.value, field.type);
        }
    }
}

static void read_errors(const struct nvml *nvml, struct nvml_device *handle, struct er_gpu_nvlink *link) {
    for (int kind = NVML_LINK_REPLAY; nvml->link_errors && kind <= NVML_LINK_CRC_DATA; kind++) {
        unsigned long long errors = 0;
        if (nvml->link_errors(handle, link->number, kind, &errors) == NVML_OK) {
            link->values[ER_GPU_NVLINK_REPLAY + kind] = (int64_t)errors;
        }
    }
}

// A switch that this machine does not see has an address of ones only.
static void read_ends(const struct nvml *nvml, struct nvml_device *handle, struct er_gpu_nvlink *link) {
    struct nvml_pci pci = {.domain = 0};
    unsigned version = 0;
    int kind = 0;
    if (nvml->link_version && nvml->link_version(handle, link->number, &version) == NVML_OK) {
        link->values[ER_GPU_NVLINK_VERSION] = version;
    }
    if (nvml->link_remote_kind && nvml->link_remote_kind(handle, link->number, &kind) == NVML_OK) {
        link->values[ER_GPU_NVLINK_REMOTE_KIND] = kind;
    }
    if (nvml->link_remote && nvml->link_remote(handle, link->number, &pci) == NVML_OK && pci.domain != UINT32_MAX) {
        snprintf(link->remote, sizeof link->remote, "%08X:%02X:%02X.0", pci.domain, pci.bus, pci.device);
    }
}

static void read_link(const struct nvml *nvml, struct nvml_device *handle, unsigned number, int active,
                      struct er_gpu_nvlink *link) {
    *link = (struct er_gpu_nvlink){.number = number}; // without a name of the other end, where the driver tells none
    for (int i = 0; i < ER_GPU_NVLINK_FIELD_COUNT; i++) {
        link->values[i] = ER_GPU_UNKNOWN;
    }
    link->values[ER_GPU_NVLINK_ACTIVE] = active;
    read_ends(nvml, handle, link);
    read_numbered(nvml, handle, link);
    read_errors(nvml, handle, link);
}

// The links are numbered from 0 without holes: the first that the driver does not know is the end.
enum er_status er_gpu_read_nvlinks(const struct nvml *nvml, struct er_gpu_device *device) {
    int active = 0;
    for (unsigned i = 0; nvml->link_state && i < NVML_MAX_LINKS; i++) {
        int code = nvml->link_state(device->handle, i, &active);
        device->lost = device->lost || code == NVML_GPU_IS_LOST;
        if (code != NVML_OK) {
            return ER_OK;
        }
        struct er_gpu_nvlink *more = er_realloc(device->nvlinks, (i + 1) * sizeof *more);
        if (!more) {
            return ER_NO_MEMORY;
        }
        device->nvlinks = more;
        device->nvlink_count = i + 1;
        read_link(nvml, device->handle, i, active, &more[i]);
    }
    return ER_OK;
}
