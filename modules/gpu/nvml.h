// SPDX-License-Identifier: Apache-2.0
// NVML as the driver's library has it: codes, structs and functions, each found by itself; NULL where the driver lacks
// it. Layouts are those of nvml.h, API 13.
#ifndef EIRUN_NVML_H
#define EIRUN_NVML_H

#include "er.h"

enum nvml_code {
    NVML_OK = 0,
    NVML_UNINITIALIZED = 1,
    NVML_INVALID_ARGUMENT = 2,
    NVML_NOT_SUPPORTED = 3,
    NVML_NOT_FOUND = 6,
    NVML_INSUFFICIENT_SIZE = 7,
    NVML_DRIVER_NOT_LOADED = 9,
    NVML_LIBRARY_NOT_FOUND = 12,
    NVML_FUNCTION_NOT_FOUND = 13,
    NVML_GPU_IS_LOST = 15,
    NVML_VERSION_MISMATCH = 25,
    NVML_GPU_NOT_FOUND = 28,
};

enum { NVML_TEXT = 96 };              // room for any name, uuid or version
enum { NVML_MEMORY_V2 = 0x02000028 }; // size 40, version 2
enum { NVML_CLOCK_GRAPHICS, NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_CLOCK_VIDEO };
enum { NVML_LIMIT_SHUTDOWN, NVML_LIMIT_SLOWDOWN, NVML_LIMIT_MEMORY, NVML_LIMIT_GPU };
enum { NVML_ECC_CORRECTED, NVML_ECC_UNCORRECTED };
enum { NVML_ECC_VOLATILE, NVML_ECC_AGGREGATE };
enum { NVML_RETIRED_SINGLE, NVML_RETIRED_DOUBLE };
enum { NVML_P2P_NVLINK = 2, NVML_MAX_LINKS = 36 };
enum { NVML_FIELD_MEMORY_TEMPERATURE = 82, NVML_FIELD_POWER_AVERAGE = 185, NVML_FIELD_POWER_INSTANT = 186 };
enum { NVML_FIELD_LINK_CRC = 163, NVML_FIELD_LINK_SPEED = 164, NVML_FIELD_LINK_SPEEDS = 90 }; // the last: of all alike
enum { NVML_FIELD_LINK_TX = 138, NVML_FIELD_LINK_RX = 139 }; // KiB since the driver was loaded
#define NVML_ALL_LINKS UINT32_MAX
enum { NVML_PCIE_TX, NVML_PCIE_RX };
enum { NVML_LINK_REPLAY, NVML_LINK_RECOVERY, NVML_LINK_CRC_FLIT, NVML_LINK_CRC_DATA };
enum { NVML_MARGIN_V1 = 0x01000008 };      // size 8, version 1
enum { NVML_TEMPERATURE_V1 = 0x0100000C }; // size 12, version 1
enum { NVML_PLACE_DRAM = 2, NVML_PLACE_SRAM = 7 };
enum { NVML_SAMPLED_POWER = 0, NVML_SAMPLED_GPU = 1, NVML_SAMPLED_MEMORY = 2 };
enum { NVML_TIMEOUT = 10 };

struct nvml_device; // opaque

struct nvml_memory {
    unsigned long long total, free, used; // used: with what the driver reserves
};
struct nvml_memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};
struct nvml_rates {
    unsigned gpu, memory;
};
struct nvml_pci { // _v3; _v2 ends with four reserved words in the place of bus_id's first half
    char legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
};
struct nvml_bar1 {
    unsigned long long total, free, used;
};
struct nvml_temperature {
    unsigned version;
    int sensor, celsius;
};
struct nvml_margin {
    unsigned version;
    int celsius;
};
struct nvml_histogram {
    unsigned max, high, partial, low, none;
};
enum { NVML_VALUE_DOUBLE, NVML_VALUE_U32, NVML_VALUE_ULONG, NVML_VALUE_U64, NVML_VALUE_I64, NVML_VALUE_I32 };
union nvml_value {
    double real;
    unsigned u32;
    unsigned long long u64;
};
struct nvml_sample {
    unsigned long long at_us;
    union nvml_value value;
};
struct nvml_event { // before _v2 the last two were missing
    struct nvml_device *device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance; // all ones: none
};
struct nvml_event_set; // opaque
struct nvml_process_v1 {
    unsigned pid;
    unsigned long long memory; // all ones: not known
};
struct nvml_process { // _v2 and _v3
    unsigned pid;
    unsigned long long memory;
    unsigned gpu_instance, compute_instance; // all ones: none
};
struct nvml_process_rates {
    unsigned pid;
    unsigned long long at_us;
    unsigned sm, memory, encoder, decoder;
};
struct nvml_field {
    unsigned id, scope;
    long long at, latency;
    int type, code;
    union nvml_value value;
};

// X(member, arguments, newest name, older name or NULL); both names of a row take the same arguments.
#define NVML_FUNCTIONS(X)                                                                                              \
    X(init, (void), "nvmlInit_v2", "nvmlInit")                                                                         \
    X(driver_version, (char *, unsigned), "nvmlSystemGetDriverVersion", NULL)                                          \
    X(cuda_version, (int *), "nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetCudaDriverVersion")                    \
    X(process_name, (unsigned, char *, unsigned), "nvmlSystemGetProcessName", NULL)                                    \
    X(count, (unsigned *), "nvmlDeviceGetCount_v2", "nvmlDeviceGetCount")                                              \
    X(by_index, (unsigned, struct nvml_device **), "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex")      \
    X(name, (struct nvml_device *, char *, unsigned), "nvmlDeviceGetName", NULL)                                       \
    X(uuid, (struct nvml_device *, char *, unsigned), "nvmlDeviceGetUUID", NULL)                                       \
    X(serial, (struct nvml_device *, char *, unsigned), "nvmlDeviceGetSerial", NULL)                                   \
    X(vbios, (struct nvml_device *, char *, unsigned), "nvmlDeviceGetVbiosVersion", NULL)                              \
    X(capability, (struct nvml_device *, int *, int *), "nvmlDeviceGetCudaComputeCapability", NULL)                    \
    X(bar1, (struct nvml_device *, struct nvml_bar1 *), "nvmlDeviceGetBAR1MemoryInfo", NULL)                           \
    X(jpeg, (struct nvml_device *, unsigned *, unsigned *), "nvmlDeviceGetJpgUtilization", NULL)                       \
    X(ofa, (struct nvml_device *, unsigned *, unsigned *), "nvmlDeviceGetOfaUtilization", NULL)                        \
    X(samples, (struct nvml_device *, int, unsigned long long, int *, unsigned *, struct nvml_sample *),               \
      "nvmlDeviceGetSamples", NULL)                                                                                    \
    X(margin, (struct nvml_device *, struct nvml_margin *), "nvmlDeviceGetMarginTemperature", NULL)                    \
    X(fan, (struct nvml_device *, unsigned *), "nvmlDeviceGetFanSpeed", NULL)                                          \
    X(power_requested, (struct nvml_device *, unsigned *), "nvmlDeviceGetPowerManagementLimit", NULL)                  \
    X(power_management, (struct nvml_device *, int *), "nvmlDeviceGetPowerManagementMode", NULL)                       \
    X(clock_set, (struct nvml_device *, int, unsigned *), "nvmlDeviceGetApplicationsClock", NULL)                      \
    X(clock_default, (struct nvml_device *, int, unsigned *), "nvmlDeviceGetDefaultApplicationsClock", NULL)           \
    X(clock_reasons_known, (struct nvml_device *, unsigned long long *), "nvmlDeviceGetSupportedClocksEventReasons",   \
      "nvmlDeviceGetSupportedClocksThrottleReasons")                                                                   \
    X(ecc_counter, (struct nvml_device *, int, int, int, unsigned long long *), "nvmlDeviceGetMemoryErrorCounter",     \
      NULL)                                                                                                            \
    X(histogram, (struct nvml_device *, struct nvml_histogram *), "nvmlDeviceGetRowRemapperHistogram", NULL)           \
    X(pcie_generation_gpu_max, (struct nvml_device *, unsigned *), "nvmlDeviceGetGpuMaxPcieLinkGeneration", NULL)      \
    X(pcie_rate, (struct nvml_device *, int, unsigned *), "nvmlDeviceGetPcieThroughput", NULL)                         \
    X(pcie_replays, (struct nvml_device *, unsigned *), "nvmlDeviceGetPcieReplayCounter", NULL)                        \
    X(display_active, (struct nvml_device *, int *), "nvmlDeviceGetDisplayActive", NULL)                               \
    X(event_types, (struct nvml_device *, unsigned long long *), "nvmlDeviceGetSupportedEventTypes", NULL)             \
    X(event_register, (struct nvml_device *, unsigned long long, struct nvml_event_set *), "nvmlDeviceRegisterEvents", \
      NULL)                                                                                                            \
    X(event_set, (struct nvml_event_set **), "nvmlEventSetCreate", NULL)                                               \
    X(event_wait, (struct nvml_event_set *, struct nvml_event *, unsigned), "nvmlEventSetWait_v2", "nvmlEventSetWait") \
    X(event_free, (struct nvml_event_set *), "nvmlEventSetFree", NULL)                                                 \
    X(minor, (struct nvml_device *, unsigned *), "nvmlDeviceGetMinorNumber", NULL)                                     \
    X(pci, (struct nvml_device *, struct nvml_pci *), "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetPciInfo_v2")            \
    X(memory_v2, (struct nvml_device *, struct nvml_memory_v2 *), "nvmlDeviceGetMemoryInfo_v2", NULL)                  \
    X(memory, (struct nvml_device *, struct nvml_memory *), "nvmlDeviceGetMemoryInfo", NULL)                           \
    X(rates, (struct nvml_device *, struct nvml_rates *), "nvmlDeviceGetUtilizationRates", NULL)                       \
    X(encoder, (struct nvml_device *, unsigned *, unsigned *), "nvmlDeviceGetEncoderUtilization", NULL)                \
    X(decoder, (struct nvml_device *, unsigned *, unsigned *), "nvmlDeviceGetDecoderUtilization", NULL)                \
    X(temperature_v, (struct nvml_device *, struct nvml_temperature *), "nvmlDeviceGetTemperatureV", NULL)             \
    X(temperature, (struct nvml_device *, int, unsigned *), "nvmlDeviceGetTemperature", NULL)                          \
    X(temperature_limit, (struct nvml_device *, int, unsigned *), "nvmlDeviceGetTemperatureThreshold", NULL)           \
    X(fields, (struct nvml_device *, int, struct nvml_field *), "nvmlDeviceGetFieldValues", NULL)                      \
    X(power, (struct nvml_device *, unsigned *), "nvmlDeviceGetPowerUsage", NULL)                                      \
    X(power_limit, (struct nvml_device *, unsigned *), "nvmlDeviceGetEnforcedPowerLimit", NULL)                        \
    X(power_default, (struct nvml_device *, unsigned *), "nvmlDeviceGetPowerManagementDefaultLimit", NULL)             \
    X(power_range, (struct nvml_device *, unsigned *, unsigned *), "nvmlDeviceGetPowerManagementLimitConstraints",     \
      NULL)                                                                                                            \
    X(energy, (struct nvml_device *, unsigned long long *), "nvmlDeviceGetTotalEnergyConsumption", NULL)               \
    X(clock, (struct nvml_device *, int, unsigned *), "nvmlDeviceGetClockInfo", NULL)                                  \
    X(clock_max, (struct nvml_device *, int, unsigned *), "nvmlDeviceGetMaxClockInfo", NULL)                           \
    X(clock_reasons, (struct nvml_device *, unsigned long long *), "nvmlDeviceGetCurrentClocksEventReasons",           \
      "nvmlDeviceGetCurrentClocksThrottleReasons")                                                                     \
    X(performance_state, (struct nvml_device *, int *), "nvmlDeviceGetPerformanceState", NULL)                         \
    X(ecc_mode, (struct nvml_device *, int *, int *), "nvmlDeviceGetEccMode", NULL)                                    \
    X(ecc_errors, (struct nvml_device *, int, int, unsigned long long *), "nvmlDeviceGetTotalEccErrors", NULL)         \
    X(retired, (struct nvml_device *, int, unsigned *, unsigned long long *), "nvmlDeviceGetRetiredPages", NULL)       \
    X(retired_pending, (struct nvml_device *, int *), "nvmlDeviceGetRetiredPagesPendingStatus", NULL)                  \
    X(remapped, (struct nvml_device *, unsigned *, unsigned *, unsigned *, unsigned *), "nvmlDeviceGetRemappedRows",   \
      NULL)                                                                                                            \
    X(pcie_generation, (struct nvml_device *, unsigned *), "nvmlDeviceGetCurrPcieLinkGeneration", NULL)                \
    X(pcie_generation_max, (struct nvml_device *, unsigned *), "nvmlDeviceGetMaxPcieLinkGeneration", NULL)             \
    X(pcie_width, (struct nvml_device *, unsigned *), "nvmlDeviceGetCurrPcieLinkWidth", NULL)                          \
    X(pcie_width_max, (struct nvml_device *, unsigned *), "nvmlDeviceGetMaxPcieLinkWidth", NULL)                       \
    X(link_state, (struct nvml_device *, unsigned, int *), "nvmlDeviceGetNvLinkState", NULL)                           \
    X(link_version, (struct nvml_device *, unsigned, unsigned *), "nvmlDeviceGetNvLinkVersion", NULL)                  \
    X(link_remote, (struct nvml_device *, unsigned, struct nvml_pci *), "nvmlDeviceGetNvLinkRemotePciInfo_v2", NULL)   \
    X(link_remote_kind, (struct nvml_device *, unsigned, int *), "nvmlDeviceGetNvLinkRemoteDeviceType", NULL)          \
    X(link_errors, (struct nvml_device *, unsigned, int, unsigned long long *), "nvmlDeviceGetNvLinkErrorCounter",     \
      NULL)                                                                                                            \
    X(p2p, (struct nvml_device *, struct nvml_device *, int, int *), "nvmlDeviceGetP2PStatus", NULL)                   \
    X(ancestor, (struct nvml_device *, struct nvml_device *, int *), "nvmlDeviceGetTopologyCommonAncestor", NULL)      \
    X(memory_affinity, (struct nvml_device *, unsigned, unsigned long *, int), "nvmlDeviceGetMemoryAffinity", NULL)    \
    X(persistence, (struct nvml_device *, int *), "nvmlDeviceGetPersistenceMode", NULL)                                \
    X(compute_mode, (struct nvml_device *, int *), "nvmlDeviceGetComputeMode", NULL)                                   \
    X(mig_mode, (struct nvml_device *, unsigned *, unsigned *), "nvmlDeviceGetMigMode", NULL)                          \
    X(mig_count, (struct nvml_device *, unsigned *), "nvmlDeviceGetMaxMigDeviceCount", NULL)                           \
    X(mig_device, (struct nvml_device *, unsigned, struct nvml_device **), "nvmlDeviceGetMigDeviceHandleByIndex",      \
      NULL)                                                                                                            \
    X(gpu_instance, (struct nvml_device *, unsigned *), "nvmlDeviceGetGpuInstanceId", NULL)                            \
    X(compute_instance, (struct nvml_device *, unsigned *), "nvmlDeviceGetComputeInstanceId", NULL)                    \
    X(compute, (struct nvml_device *, unsigned *, struct nvml_process *), "nvmlDeviceGetComputeRunningProcesses_v3",   \
      "nvmlDeviceGetComputeRunningProcesses_v2")                                                                       \
    X(compute_v1, (struct nvml_device *, unsigned *, struct nvml_process_v1 *),                                        \
      "nvmlDeviceGetComputeRunningProcesses", NULL)                                                                    \
    X(graphics, (struct nvml_device *, unsigned *, struct nvml_process *), "nvmlDeviceGetGraphicsRunningProcesses_v3", \
      "nvmlDeviceGetGraphicsRunningProcesses_v2")                                                                      \
    X(graphics_v1, (struct nvml_device *, unsigned *, struct nvml_process_v1 *),                                       \
      "nvmlDeviceGetGraphicsRunningProcesses", NULL)                                                                   \
    X(process_rates, (struct nvml_device *, struct nvml_process_rates *, unsigned *, unsigned long long),              \
      "nvmlDeviceGetProcessUtilization", NULL)

struct nvml {
    void *library;
    bool started;
#define NVML_MEMBER(member, arguments, name, older) int(*member) arguments;
    NVML_FUNCTIONS(NVML_MEMBER)
#undef NVML_MEMBER
};

// Opens `path` (libnvidia-ml.so.1 where NULL) and starts it. ER_NOT_FOUND: no library, no driver, no GPU; ER_INTERNAL:
// there is one and it failed. After a failure the struct is empty again. May block as long as the driver likes.
enum er_status nvml_open(struct nvml *nvml, const char *path, struct er_error *err);
const char *nvml_code_text(int code);
int64_t nvml_number(const union nvml_value *value, int type); // a fraction is cut off

#endif
