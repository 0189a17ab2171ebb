// SPDX-License-Identifier: Apache-2.0
#include "gpu.h"

#include <pthread.h>
#include <stdio.h>

enum { MAX_DEVICES = 256, MAX_INSTANCES = 64 };

static const bool of_instance[ER_GPU_FIELD_COUNT] = {[ER_GPU_NAME] = true, [ER_GPU_UUID] = true};

static enum er_status add_instances(const struct nvml *nvml, struct er_gpu_device *device) {
    unsigned count = 0;
    if (device->values[ER_GPU_MIG_MODE].number != 1 || !nvml->mig_count || !nvml->mig_device ||
        nvml->mig_count(device->handle, &count) != NVML_OK || !count || count > MAX_INSTANCES) {
        return ER_OK;
    }
    device->mig = er_calloc(count, sizeof *device->mig);
    if (!device->mig) {
        return ER_NO_MEMORY;
    }
    for (unsigned i = 0; i < count; i++) {
        struct er_gpu_device *instance = &device->mig[device->mig_count];
        if (nvml->mig_device(device->handle, i, &instance->handle) == NVML_OK) { // places may be empty
            instance->wanted = of_instance;
            er_gpu_read_instance(nvml, instance);
            device->mig_count++;
        }
    }
    return ER_OK;
}

static void read_device(const struct nvml *nvml, const struct er_gpu_wish *wish, struct er_gpu_device *device) {
    device->wanted = wish->fields;
    if (wish->cache) {
        er_gpu_recall(wish->cache, device);
    }
    er_gpu_read_device(nvml, device);
    if (wish->cache) {
        er_gpu_remember(wish->cache, device);
    }
}

static enum er_status add_device(const struct nvml *nvml, const struct er_gpu_wish *wish, unsigned index,
                                 struct er_gpu_device *device) {
    device->code = nvml->by_index(index, &device->handle);
    if (device->code != NVML_OK) {
        device->lost = device->code == NVML_GPU_IS_LOST;
        return ER_OK;
    }
    read_device(nvml, wish, device);
    enum er_status status = wish->instances ? add_instances(nvml, device) : ER_OK;
    if (status == ER_OK && wish->processes) {
        status = er_gpu_read_processes(nvml, device);
    }
    if (status == ER_OK && wish->nvlinks) {
        status = er_gpu_read_nvlinks(nvml, device);
    }
    return status == ER_OK && wish->samples ? er_gpu_read_samples(nvml, device) : status;
}

static struct er_gpu_link link_of(const struct nvml *nvml, struct er_gpu_device *a, struct er_gpu_device *b) {
    struct er_gpu_link link = {.ancestor = -1};
    int level = 0, status = 0;
    if (a == b || !a->handle || !b->handle) {
        return link;
    }
    if (nvml->ancestor && nvml->ancestor(a->handle, b->handle, &level) == NVML_OK) {
        link.ancestor = level;
    }
    link.nvlink = nvml->p2p && nvml->p2p(a->handle, b->handle, NVML_P2P_NVLINK, &status) == NVML_OK && status == 0;
    return link;
}

static enum er_status add_links(const struct nvml *nvml, struct er_gpu_snapshot *into) {
    size_t count = into->device_count;
    into->links = er_calloc(count * count + 1, sizeof *into->links);
    for (size_t i = 0; into->links && i < count * count; i++) {
        into->links[i] = link_of(nvml, &into->devices[i / count], &into->devices[i % count]);
    }
    return into->links ? ER_OK : ER_NO_MEMORY;
}

static void add_versions(const struct nvml *nvml, struct er_gpu_snapshot *into) {
    if (nvml->driver_version && nvml->driver_version(into->driver, sizeof into->driver) != NVML_OK) {
        into->driver[0] = '\0';
    }
    if (nvml->cuda_version && nvml->cuda_version(&into->cuda) != NVML_OK) {
        into->cuda = 0;
    }
}

static enum er_status add_devices(const struct nvml *nvml, const struct er_gpu_wish *wish, struct er_gpu_snapshot *into,
                                  unsigned count) {
    into->devices = er_calloc(count + 1, sizeof *into->devices);
    enum er_status status = into->devices ? ER_OK : ER_NO_MEMORY;
    for (unsigned i = 0; status == ER_OK && i < count; i++) {
        into->device_count++;
        status = add_device(nvml, wish, i, &into->devices[i]);
    }
    return status == ER_OK && wish->topology ? add_links(nvml, into) : status;
}

enum er_status er_gpu_look_through(const struct nvml *nvml, const struct er_gpu_wish *wish,
                                   struct er_gpu_snapshot *into, struct er_error *err) {
    unsigned count = 0;
    add_versions(nvml, into);
    int code = nvml->count(&count);
    if (code != NVML_OK) {
        return er_fail(err, ER_INTERNAL, "cannot count the GPUs: %s (code %d)", nvml_code_text(code), code);
    }
    enum er_status status = add_devices(nvml, wish, into, count < MAX_DEVICES ? count : MAX_DEVICES);
    return status == ER_OK ? ER_OK : er_fail(err, status, "not enough memory for %u GPUs", count);
}

// The library belongs to the process and stays open. Where it could not be started the next look tries again.
enum er_status er_gpu_open(struct nvml *into, struct er_error *err) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct nvml nvml;
    pthread_mutex_lock(&lock);
    enum er_status status = nvml.started ? ER_OK : nvml_open(&nvml, NULL, err);
    *into = nvml;
    pthread_mutex_unlock(&lock);
    return status;
}

enum er_status er_gpu_look(const struct er_gpu_wish *wish, struct er_gpu_snapshot *into, struct er_error *err) {
    struct nvml nvml;
    enum er_status status = er_gpu_open(&nvml, err);
    if (status == ER_NOT_FOUND) {
        snprintf(into->missing, sizeof into->missing, "%.255s", err->message);
        return ER_OK;
    }
    return status == ER_OK ? er_gpu_look_through(&nvml, wish, into, err) : status;
}

void er_gpu_release(struct er_gpu_snapshot *snapshot) {
    for (size_t i = 0; i < snapshot->device_count; i++) {
        er_free(snapshot->devices[i].mig);
        er_free(snapshot->devices[i].processes);
        er_free(snapshot->devices[i].nvlinks);
        for (int j = 0; j < ER_GPU_SERIES_COUNT; j++) {
            er_free(snapshot->devices[i].series[j].samples);
        }
    }
    er_free(snapshot->devices);
    er_free(snapshot->links);
    *snapshot = (struct er_gpu_snapshot){0};
}
