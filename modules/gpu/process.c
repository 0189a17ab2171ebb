// SPDX-License-Identifier: Apache-2.0
// Who uses a device. What the driver does not say of a process comes from /proc.
#include "gpu.h"

#include <stdio.h>
#include <string.h>

enum { MAX_PROCESSES = 4096 };

typedef int list_function(struct nvml_device *, unsigned *, struct nvml_process *);
typedef int list_function_v1(struct nvml_device *, unsigned *, struct nvml_process_v1 *);

// The newest list that the driver has, in the newest layout. `count`: room, then how many.
static bool list(list_function *newer, list_function_v1 *older, struct nvml_device *handle, struct nvml_process *into,
                 unsigned *count) {
    if (newer) {
        return newer(handle, count, into) == NVML_OK;
    }
    struct nvml_process_v1 *old = older ? er_calloc(*count, sizeof *old) : NULL;
    bool done = old && older(handle, count, old) == NVML_OK;
    for (unsigned i = 0; done && i < *count; i++) {
        into[i] = (struct nvml_process){old[i].pid, old[i].memory, UINT32_MAX, UINT32_MAX};
    }
    er_free(old);
    return done;
}

static void read_proc(char *into, size_t size, unsigned pid, const char *name) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/%s", pid, name);
    FILE *file = fopen(path, "re");
    size_t length = file ? fread(into, 1, size - 1, file) : 0;
    into[length] = '\0';
    if (file) {
        fclose(file);
    }
}

static void describe(const struct nvml *nvml, struct er_gpu_process *process) {
    int code = nvml->process_name ? nvml->process_name(process->pid, process->name, sizeof process->name) : -1;
    process->name[sizeof process->name - 1] = '\0';
    if (code != NVML_OK && code != NVML_INSUFFICIENT_SIZE) {
        read_proc(process->name, sizeof process->name, process->pid, "comm");
        process->name[strcspn(process->name, "\n")] = '\0';
    }
    read_proc(process->cgroup, sizeof process->cgroup, process->pid, "cgroup");
}

// A process that computes and draws is in both lists.
static struct er_gpu_process *find_or_add(struct er_gpu_device *device, const struct nvml_process *told) {
    for (size_t i = 0; i < device->process_count; i++) {
        struct er_gpu_process *known = &device->processes[i];
        if (known->pid == told->pid &&
            known->gpu_instance ==
                (told->gpu_instance == UINT32_MAX ? ER_GPU_NO_INSTANCE : (int64_t)told->gpu_instance)) {
            return known;
        }
    }
    struct er_gpu_process *more = er_realloc(device->processes, (device->process_count + 1) * sizeof *more);
    if (!more) {
        return NULL;
    }
    device->processes = more;
    more += device->process_count++;
    *more = (struct er_gpu_process){
        .pid = told->pid,
        .gpu_instance = told->gpu_instance == UINT32_MAX ? ER_GPU_NO_INSTANCE : (int64_t)told->gpu_instance,
        .has_memory = told->memory != UINT64_MAX,
        .memory = told->memory,
    };
    return more;
}

static enum er_status add_list(const struct nvml *nvml, struct er_gpu_device *device, bool graphics,
                               struct nvml_process *room) {
    unsigned count = MAX_PROCESSES;
    if (!list(graphics ? nvml->graphics : nvml->compute, graphics ? nvml->graphics_v1 : nvml->compute_v1,
              device->handle, room, &count)) {
        return ER_OK;
    }
    for (unsigned i = 0; i < count && i < MAX_PROCESSES; i++) {
        size_t before = device->process_count;
        struct er_gpu_process *process = find_or_add(device, &room[i]);
        if (!process) {
            return ER_NO_MEMORY;
        }
        process->graphics = process->graphics || graphics;
        process->compute = process->compute || !graphics;
        if (device->process_count > before) {
            describe(nvml, process);
        }
    }
    return ER_OK;
}

// The samples come oldest first; the last one of a pid is kept.
static void add_rates(const struct nvml *nvml, struct er_gpu_device *device) {
    unsigned count = 0;
    if (!device->process_count || !nvml->process_rates ||
        nvml->process_rates(device->handle, NULL, &count, 0) != NVML_INSUFFICIENT_SIZE || !count ||
        count > MAX_PROCESSES) {
        return;
    }
    struct nvml_process_rates *samples = er_calloc(count, sizeof *samples);
    if (samples && nvml->process_rates(device->handle, samples, &count, 0) == NVML_OK) {
        for (size_t i = 0; i < count * device->process_count; i++) {
            struct er_gpu_process *process = &device->processes[i % device->process_count];
            const struct nvml_process_rates *sample = &samples[i / device->process_count];
            if (sample->pid == process->pid) {
                process->has_rates = true;
                process->sm = sample->sm;
                process->memory_rate = sample->memory;
            }
        }
    }
    er_free(samples);
}

enum er_status er_gpu_read_processes(const struct nvml *nvml, struct er_gpu_device *device) {
    struct nvml_process *room = er_calloc(MAX_PROCESSES, sizeof *room);
    if (!room) {
        return ER_NO_MEMORY;
    }
    enum er_status status = add_list(nvml, device, false, room);
    if (status == ER_OK) {
        status = add_list(nvml, device, true, room);
    }
    er_free(room);
    add_rates(nvml, device);
    return status;
}
