// SPDX-License-Identifier: Apache-2.0
// One look at the GPUs of this machine. Blocks as long as the driver does: call it off the loop's thread.
#ifndef EIRUN_GPU_H
#define EIRUN_GPU_H

#include "nvml.h"

// X(constant, name in Lua). Bytes, milliwatts, millijoules, megahertz, degrees Celsius, percent.
#define ER_GPU_FIELDS(X)                                                                                               \
    X(NAME, "name")                                                                                                    \
    X(UUID, "uuid")                                                                                                    \
    X(PCI, "pci_bus_id")                                                                                               \
    X(MINOR, "minor")                                                                                                  \
    X(NUMA, "numa_node")                                                                                               \
    X(MEMORY_TOTAL, "memory_total")                                                                                    \
    X(MEMORY_USED, "memory_used")                                                                                      \
    X(MEMORY_FREE, "memory_free")                                                                                      \
    X(MEMORY_RESERVED, "memory_reserved")                                                                              \
    X(UTIL_GPU, "utilization_gpu")                                                                                     \
    X(UTIL_MEMORY, "utilization_memory")                                                                               \
    X(UTIL_ENCODER, "utilization_encoder")                                                                             \
    X(UTIL_DECODER, "utilization_decoder")                                                                             \
    X(TEMPERATURE, "temperature")                                                                                      \
    X(TEMPERATURE_MEMORY, "temperature_memory")                                                                        \
    X(TEMPERATURE_SHUTDOWN, "temperature_shutdown")                                                                    \
    X(TEMPERATURE_SLOWDOWN, "temperature_slowdown")                                                                    \
    X(TEMPERATURE_MAX, "temperature_max")                                                                              \
    X(POWER, "power_mw")                                                                                               \
    X(POWER_LIMIT, "power_limit_mw")                                                                                   \
    X(POWER_DEFAULT, "power_default_limit_mw")                                                                         \
    X(POWER_MIN, "power_min_limit_mw")                                                                                 \
    X(POWER_MAX, "power_max_limit_mw")                                                                                 \
    X(ENERGY, "energy_mj")                                                                                             \
    X(CLOCK_GRAPHICS, "clock_graphics")                                                                                \
    X(CLOCK_SM, "clock_sm")                                                                                            \
    X(CLOCK_MEMORY, "clock_memory")                                                                                    \
    X(CLOCK_VIDEO, "clock_video")                                                                                      \
    X(CLOCK_MAX_GRAPHICS, "clock_max_graphics")                                                                        \
    X(CLOCK_MAX_SM, "clock_max_sm")                                                                                    \
    X(CLOCK_MAX_MEMORY, "clock_max_memory")                                                                            \
    X(CLOCK_REASONS, "clock_reasons")                                                                                  \
    X(PERFORMANCE_STATE, "performance_state")                                                                          \
    X(ECC_MODE, "ecc_mode")                                                                                            \
    X(ECC_CORRECTED, "ecc_corrected")                                                                                  \
    X(ECC_UNCORRECTED, "ecc_uncorrected")                                                                              \
    X(ECC_CORRECTED_TOTAL, "ecc_corrected_aggregate")                                                                  \
    X(ECC_UNCORRECTED_TOTAL, "ecc_uncorrected_aggregate")                                                              \
    X(RETIRED_SINGLE, "retired_single_bit")                                                                            \
    X(RETIRED_DOUBLE, "retired_double_bit")                                                                            \
    X(RETIRED_PENDING, "retired_pending")                                                                              \
    X(REMAPPED_CORRECTED, "remapped_corrected")                                                                        \
    X(REMAPPED_UNCORRECTED, "remapped_uncorrected")                                                                    \
    X(REMAPPED_PENDING, "remapped_pending")                                                                            \
    X(REMAPPED_FAILURE, "remapped_failure")                                                                            \
    X(PCIE_GENERATION, "pcie_generation")                                                                              \
    X(PCIE_GENERATION_MAX, "pcie_generation_max")                                                                      \
    X(PCIE_WIDTH, "pcie_width")                                                                                        \
    X(PCIE_WIDTH_MAX, "pcie_width_max")                                                                                \
    X(NVLINKS, "nvlinks_active")                                                                                       \
    X(PERSISTENCE, "persistence_mode")                                                                                 \
    X(COMPUTE_MODE, "compute_mode")                                                                                    \
    X(MIG_MODE, "mig_mode")                                                                                            \
    X(GPU_INSTANCE, "gpu_instance")                                                                                    \
    X(COMPUTE_INSTANCE, "compute_instance")

enum er_gpu_field {
#define ER_GPU_CONSTANT(constant, name) ER_GPU_##constant,
    ER_GPU_FIELDS(ER_GPU_CONSTANT)
#undef ER_GPU_CONSTANT
        ER_GPU_FIELD_COUNT
};
extern const char *const er_gpu_field_names[ER_GPU_FIELD_COUNT];

struct er_gpu_value {
    enum { ER_GPU_NA, ER_GPU_NUMBER, ER_GPU_TEXT } kind; // ER_GPU_NA: the driver does not tell
    int64_t number;
    char text[NVML_TEXT];
};

enum { ER_GPU_NO_INSTANCE = -1 };
struct er_gpu_process {
    uint32_t pid;
    bool graphics, compute;
    bool has_memory, has_rates;
    uint64_t memory;
    int64_t gpu_instance; // of MIG; ER_GPU_NO_INSTANCE
    uint32_t sm, memory_rate;
    char name[256];
    char cgroup[1024]; // /proc/PID/cgroup as it is; empty where it cannot be read
};

struct er_gpu_device {
    struct nvml_device *handle;
    struct er_gpu_value values[ER_GPU_FIELD_COUNT];
    int code;                  // of the call for the handle: not NVML_OK, and nothing else is known
    bool lost;                 // some call said so
    struct er_gpu_device *mig; // instances
    struct er_gpu_process *processes;
    size_t mig_count, process_count;
};

struct er_gpu_link {
    int ancestor; // NVML's level: 0 same board, 10 one switch, 20 switches, 30 host bridge, 40 NUMA node, 50 system; -1
    bool nvlink;
};

struct er_gpu_snapshot {
    char missing[256]; // why there is no driver to ask; then the rest is empty
    char driver[NVML_TEXT];
    int cuda; // 13020 is 13.2; 0: not known
    struct er_gpu_device *devices;
    struct er_gpu_link *links; // device_count squared, row by row; NULL unless asked for
    size_t device_count;
};

struct er_gpu_wish {
    bool processes, topology;
};

// Opens the driver's library once for the process. ER_OK with `missing` set where there is none.
enum er_status er_gpu_look(const struct er_gpu_wish *wish, struct er_gpu_snapshot *into, struct er_error *err);
// The same through a library that the caller opened.
enum er_status er_gpu_look_through(const struct nvml *nvml, const struct er_gpu_wish *wish,
                                   struct er_gpu_snapshot *into, struct er_error *err);
void er_gpu_release(struct er_gpu_snapshot *snapshot); // may run twice

// Parts of a look, for snapshot.c.
void er_gpu_read_device(const struct nvml *nvml, struct er_gpu_device *device);
void er_gpu_read_instance(const struct nvml *nvml, struct er_gpu_device *device); // of MIG
enum er_status er_gpu_read_processes(const struct nvml *nvml, struct er_gpu_device *device);

#endif
