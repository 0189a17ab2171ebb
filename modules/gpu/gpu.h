// SPDX-License-Identifier: Apache-2.0
// One look at the GPUs of this machine. Blocks as long as the driver does: call it off the loop's thread.
#ifndef EIRUN_GPU_H
#define EIRUN_GPU_H

#include "nvml.h"

// X(constant, name in Lua, kind). Bytes, milliwatts, millijoules, megahertz, degrees Celsius, percent.
// USUAL: in every look; EXTRA: only by name, for asking costs up to 4 ms; FIXED: the same as long as the driver runs,
// asked once.
#define ER_GPU_FIELDS(X)                                                                                               \
    X(NAME, "name", FIXED)                                                                                             \
    X(UUID, "uuid", FIXED)                                                                                             \
    X(SERIAL, "serial", FIXED_EXTRA)                                                                                   \
    X(VBIOS, "vbios_version", FIXED_EXTRA)                                                                             \
    X(PCI, "pci_bus_id", FIXED)                                                                                        \
    X(PCI_DOMAIN, "pci_domain", FIXED)                                                                                 \
    X(PCI_BUS, "pci_bus", FIXED)                                                                                       \
    X(PCI_DEVICE, "pci_device", FIXED)                                                                                 \
    X(PCI_ID, "pci_device_id", FIXED)                                                                                  \
    X(PCI_SUBSYSTEM, "pci_sub_device_id", FIXED)                                                                       \
    X(NUMA, "numa_node", FIXED_EXTRA)                                                                                  \
    X(MINOR, "minor", FIXED)                                                                                           \
    X(COMPUTE_CAPABILITY, "compute_capability", FIXED_EXTRA)                                                           \
    X(MEMORY_TOTAL, "memory_total", USUAL)                                                                             \
    X(MEMORY_USED, "memory_used", USUAL)                                                                               \
    X(MEMORY_FREE, "memory_free", USUAL)                                                                               \
    X(MEMORY_RESERVED, "memory_reserved", USUAL)                                                                       \
    X(BAR1_TOTAL, "bar1_total", EXTRA)                                                                                 \
    X(BAR1_USED, "bar1_used", EXTRA)                                                                                   \
    X(UTIL_GPU, "utilization_gpu", USUAL)                                                                              \
    X(UTIL_MEMORY, "utilization_memory", USUAL)                                                                        \
    X(UTIL_ENCODER, "utilization_encoder", USUAL)                                                                      \
    X(UTIL_DECODER, "utilization_decoder", USUAL)                                                                      \
    X(UTIL_JPEG, "utilization_jpeg", EXTRA)                                                                            \
    X(UTIL_OFA, "utilization_ofa", EXTRA)                                                                              \
    X(TEMPERATURE, "temperature", USUAL)                                                                               \
    X(TEMPERATURE_MEMORY, "temperature_memory", USUAL)                                                                 \
    X(TEMPERATURE_SHUTDOWN, "temperature_shutdown", FIXED)                                                             \
    X(TEMPERATURE_SLOWDOWN, "temperature_slowdown", FIXED)                                                             \
    X(TEMPERATURE_MAX, "temperature_max", FIXED)                                                                       \
    X(TEMPERATURE_MARGIN, "temperature_margin", EXTRA)                                                                 \
    X(FAN, "fan_speed", EXTRA)                                                                                         \
    X(POWER, "power_mw", USUAL)                                                                                        \
    X(POWER_AVERAGE, "power_average_mw", EXTRA)                                                                        \
    X(POWER_INSTANT, "power_instant_mw", EXTRA)                                                                        \
    X(POWER_LIMIT, "power_limit_mw", USUAL)                                                                            \
    X(POWER_REQUESTED, "power_requested_limit_mw", EXTRA)                                                              \
    X(POWER_DEFAULT, "power_default_limit_mw", FIXED)                                                                  \
    X(POWER_MIN, "power_min_limit_mw", FIXED)                                                                          \
    X(POWER_MAX, "power_max_limit_mw", FIXED)                                                                          \
    X(POWER_MANAGEMENT, "power_management", EXTRA)                                                                     \
    X(ENERGY, "energy_mj", EXTRA)                                                                                      \
    X(CLOCK_GRAPHICS, "clock_graphics", USUAL)                                                                         \
    X(CLOCK_SM, "clock_sm", USUAL)                                                                                     \
    X(CLOCK_MEMORY, "clock_memory", USUAL)                                                                             \
    X(CLOCK_VIDEO, "clock_video", USUAL)                                                                               \
    X(CLOCK_MAX_GRAPHICS, "clock_max_graphics", FIXED)                                                                 \
    X(CLOCK_MAX_SM, "clock_max_sm", FIXED)                                                                             \
    X(CLOCK_MAX_MEMORY, "clock_max_memory", FIXED)                                                                     \
    X(CLOCK_SET_GRAPHICS, "clock_applications_graphics", EXTRA)                                                        \
    X(CLOCK_SET_MEMORY, "clock_applications_memory", EXTRA)                                                            \
    X(CLOCK_DEFAULT_GRAPHICS, "clock_default_graphics", FIXED_EXTRA)                                                   \
    X(CLOCK_DEFAULT_MEMORY, "clock_default_memory", FIXED_EXTRA)                                                       \
    X(CLOCK_REASONS, "clock_reasons", USUAL)                                                                           \
    X(CLOCK_REASONS_KNOWN, "clock_reasons_supported", FIXED_EXTRA)                                                     \
    X(PERFORMANCE_STATE, "performance_state", USUAL)                                                                   \
    X(ECC_MODE, "ecc_mode", USUAL)                                                                                     \
    X(ECC_PENDING, "ecc_mode_pending", USUAL)                                                                          \
    X(ECC_CORRECTED, "ecc_corrected", USUAL)                                                                           \
    X(ECC_UNCORRECTED, "ecc_uncorrected", USUAL)                                                                       \
    X(ECC_CORRECTED_TOTAL, "ecc_corrected_aggregate", USUAL)                                                           \
    X(ECC_UNCORRECTED_TOTAL, "ecc_uncorrected_aggregate", USUAL)                                                       \
    X(ECC_DRAM_CORRECTED, "ecc_dram_corrected", EXTRA)                                                                 \
    X(ECC_DRAM_UNCORRECTED, "ecc_dram_uncorrected", EXTRA)                                                             \
    X(ECC_DRAM_CORRECTED_TOTAL, "ecc_dram_corrected_aggregate", EXTRA)                                                 \
    X(ECC_DRAM_UNCORRECTED_TOTAL, "ecc_dram_uncorrected_aggregate", EXTRA)                                             \
    X(ECC_SRAM_CORRECTED, "ecc_sram_corrected", EXTRA)                                                                 \
    X(ECC_SRAM_UNCORRECTED, "ecc_sram_uncorrected", EXTRA)                                                             \
    X(ECC_SRAM_CORRECTED_TOTAL, "ecc_sram_corrected_aggregate", EXTRA)                                                 \
    X(ECC_SRAM_UNCORRECTED_TOTAL, "ecc_sram_uncorrected_aggregate", EXTRA)                                             \
    X(RETIRED_SINGLE, "retired_single_bit", USUAL)                                                                     \
    X(RETIRED_DOUBLE, "retired_double_bit", USUAL)                                                                     \
    X(RETIRED_PENDING, "retired_pending", USUAL)                                                                       \
    X(REMAPPED_CORRECTED, "remapped_corrected", USUAL)                                                                 \
    X(REMAPPED_UNCORRECTED, "remapped_uncorrected", USUAL)                                                             \
    X(REMAPPED_PENDING, "remapped_pending", USUAL)                                                                     \
    X(REMAPPED_FAILURE, "remapped_failure", USUAL)                                                                     \
    X(REMAP_BANKS_MAX, "remap_banks_max", EXTRA)                                                                       \
    X(REMAP_BANKS_HIGH, "remap_banks_high", EXTRA)                                                                     \
    X(REMAP_BANKS_PARTIAL, "remap_banks_partial", EXTRA)                                                               \
    X(REMAP_BANKS_LOW, "remap_banks_low", EXTRA)                                                                       \
    X(REMAP_BANKS_NONE, "remap_banks_none", EXTRA)                                                                     \
    X(PCIE_GENERATION, "pcie_generation", USUAL)                                                                       \
    X(PCIE_GENERATION_MAX, "pcie_generation_max", FIXED)                                                               \
    X(PCIE_GENERATION_GPU_MAX, "pcie_generation_gpu_max", FIXED_EXTRA)                                                 \
    X(PCIE_WIDTH, "pcie_width", USUAL)                                                                                 \
    X(PCIE_WIDTH_MAX, "pcie_width_max", FIXED)                                                                         \
    X(PCIE_REPLAYS, "pcie_replays", EXTRA)                                                                             \
    X(PCIE_TX, "pcie_tx", EXTRA)                                                                                       \
    X(PCIE_RX, "pcie_rx", EXTRA)                                                                                       \
    X(NVLINKS, "nvlinks_active", USUAL)                                                                                \
    X(NVLINKS_SPEED, "nvlink_speed", EXTRA)                                                                            \
    X(NVLINKS_TX, "nvlink_tx", EXTRA)                                                                                  \
    X(NVLINKS_RX, "nvlink_rx", EXTRA)                                                                                  \
    X(PERSISTENCE, "persistence_mode", USUAL)                                                                          \
    X(COMPUTE_MODE, "compute_mode", USUAL)                                                                             \
    X(DISPLAY_ACTIVE, "display_active", EXTRA)                                                                         \
    X(MIG_MODE, "mig_mode", USUAL)                                                                                     \
    X(MIG_PENDING, "mig_mode_pending", USUAL)                                                                          \
    X(GPU_INSTANCE, "gpu_instance", USUAL)                                                                             \
    X(COMPUTE_INSTANCE, "compute_instance", USUAL)

enum er_gpu_field {
#define ER_GPU_CONSTANT(constant, name, kind) ER_GPU_##constant,
    ER_GPU_FIELDS(ER_GPU_CONSTANT)
#undef ER_GPU_CONSTANT
        ER_GPU_FIELD_COUNT
};
enum er_gpu_field_kind { ER_GPU_USUAL = 0, ER_GPU_EXTRA = 1, ER_GPU_FIXED = 2, ER_GPU_FIXED_EXTRA = 3 };
struct er_gpu_field_row {
    const char *name;
    enum er_gpu_field_kind kind;
};
extern const struct er_gpu_field_row er_gpu_field_rows[ER_GPU_FIELD_COUNT];

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

enum er_gpu_series_kind { ER_GPU_SAMPLED_POWER, ER_GPU_SAMPLED_GPU, ER_GPU_SAMPLED_MEMORY, ER_GPU_SERIES_COUNT };
extern const char *const er_gpu_series_names[ER_GPU_SERIES_COUNT]; // "power_mw", "gpu", "memory"
struct er_gpu_sample {
    int64_t at_us; // since the epoch
    int64_t value;
};
struct er_gpu_series { // what the driver sampled by itself lately, oldest first
    struct er_gpu_sample *samples;
    size_t count;
};

// X(constant, name in Lua): of one NVLink. Speed in MB/s, what went through in KiB since the driver was loaded.
#define ER_GPU_NVLINK_FIELDS(X)                                                                                        \
    X(ACTIVE, "active")                                                                                                \
    X(VERSION, "version")                                                                                              \
    X(SPEED, "speed")                                                                                                  \
    X(REMOTE_KIND, "remote_kind")                                                                                      \
    X(TX, "tx")                                                                                                        \
    X(RX, "rx")                                                                                                        \
    X(REPLAY, "replay_errors")                                                                                         \
    X(RECOVERY, "recovery_errors")                                                                                     \
    X(CRC_FLIT, "crc_flit_errors")                                                                                     \
    X(CRC_DATA, "crc_data_errors")                                                                                     \
    X(CRC, "crc_errors")

enum er_gpu_nvlink_field {
#define ER_GPU_NVLINK_CONSTANT(constant, name) ER_GPU_NVLINK_##constant,
    ER_GPU_NVLINK_FIELDS(ER_GPU_NVLINK_CONSTANT)
#undef ER_GPU_NVLINK_CONSTANT
        ER_GPU_NVLINK_FIELD_COUNT
};
extern const char *const er_gpu_nvlink_names[ER_GPU_NVLINK_FIELD_COUNT];
enum { ER_GPU_UNKNOWN = -1 };
struct er_gpu_nvlink {
    unsigned number;
    int64_t values[ER_GPU_NVLINK_FIELD_COUNT]; // or ER_GPU_UNKNOWN
    char remote[NVML_TEXT];                    // PCI address of the other end; empty: not known
};

struct er_gpu_device {
    struct nvml_device *handle;
    const bool *wanted; // by field; while the device is read
    struct er_gpu_value values[ER_GPU_FIELD_COUNT];
    int code;                  // of the call for the handle: not NVML_OK, and nothing else is known
    bool lost;                 // some call said so
    struct er_gpu_device *mig; // instances
    struct er_gpu_process *processes;
    struct er_gpu_nvlink *nvlinks;
    size_t mig_count, process_count, nvlink_count;
    struct er_gpu_series series[ER_GPU_SERIES_COUNT]; // empty unless asked for
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

struct er_gpu_cache; // the fixed fields of each device
struct er_gpu_wish {
    bool processes, topology, instances, samples, nvlinks;
    bool fields[ER_GPU_FIELD_COUNT];
    struct er_gpu_cache *cache; // NULL: everything is asked for
};
void er_gpu_wish_usual(struct er_gpu_wish *wish); // the fields of a usual look, and the instances

// Opens the driver's library once for the process. ER_OK with `missing` set where there is none.
enum er_status er_gpu_look(const struct er_gpu_wish *wish, struct er_gpu_snapshot *into, struct er_error *err);
// The same through a library that the caller opened.
enum er_status er_gpu_look_through(const struct nvml *nvml, const struct er_gpu_wish *wish,
                                   struct er_gpu_snapshot *into, struct er_error *err);
void er_gpu_release(struct er_gpu_snapshot *snapshot); // may run twice
// Opens the driver's library for a look that will come, or finds it open.
enum er_status er_gpu_open(struct nvml *into, struct er_error *err);

// Parts of a look, for snapshot.c.
void er_gpu_read_device(const struct nvml *nvml, struct er_gpu_device *device);
void er_gpu_read_instance(const struct nvml *nvml, struct er_gpu_device *device); // of MIG
enum er_status er_gpu_read_processes(const struct nvml *nvml, struct er_gpu_device *device);
enum er_status er_gpu_read_nvlinks(const struct nvml *nvml, struct er_gpu_device *device);
enum er_status er_gpu_read_samples(const struct nvml *nvml, struct er_gpu_device *device);

// The cache belongs to the process. A device that was read is remembered; one that is to be read gets what is known.
struct er_gpu_cache *er_gpu_shared_cache(void);
void er_gpu_recall(struct er_gpu_cache *cache, struct er_gpu_device *device);
void er_gpu_remember(struct er_gpu_cache *cache, const struct er_gpu_device *device);

#endif
