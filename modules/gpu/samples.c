// SPDX-License-Identifier: Apache-2.0
// What the driver measured by itself in the last seconds: finer than a value now and then.
#include "gpu.h"

enum { MAX_SAMPLES = 4096 };

const char *const er_gpu_series_names[ER_GPU_SERIES_COUNT] = {"power_mw", "gpu", "memory"};
static const int kinds[ER_GPU_SERIES_COUNT] = {NVML_SAMPLED_POWER, NVML_SAMPLED_GPU, NVML_SAMPLED_MEMORY};

// Samples that the driver has room for and did not take yet have no time.
static void keep(struct er_gpu_series *series, const struct nvml_sample *samples, unsigned count, int type) {
    for (unsigned i = 0; i < count; i++) {
        if (samples[i].at_us) {
            series->samples[series->count++] =
                (struct er_gpu_sample){(int64_t)samples[i].at_us, nvml_number(&samples[i].value, type)};
        }
    }
}

static enum er_status read_series(const struct nvml *nvml, struct er_gpu_device *device, int kind,
                                  struct er_gpu_series *series) {
    unsigned room = 0;
    int type = NVML_VALUE_U32;
    if (nvml->samples(device->handle, kind, 0, &type, &room, NULL) != NVML_OK || !room || room > MAX_SAMPLES) {
        return ER_OK;
    }
    struct nvml_sample *samples = er_calloc(room, sizeof *samples);
    series->samples = er_calloc(room, sizeof *series->samples);
    unsigned count = room;
    if (samples && series->samples && nvml->samples(device->handle, kind, 0, &type, &count, samples) == NVML_OK) {
        keep(series, samples, count < room ? count : room, type);
    }
    enum er_status status = samples && series->samples ? ER_OK : ER_NO_MEMORY;
    er_free(samples);
    return status;
}

enum er_status er_gpu_read_samples(const struct nvml *nvml, struct er_gpu_device *device) {
    enum er_status status = ER_OK;
    for (int i = 0; nvml->samples && status == ER_OK && i < ER_GPU_SERIES_COUNT; i++) {
        status = read_series(nvml, device, kinds[i], &device->series[i]);
    }
    return status;
}
