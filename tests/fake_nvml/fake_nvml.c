// SPDX-License-Identifier: Apache-2.0
// A libnvidia-ml.so.1 that answers by script. EIRUN_FAKE_NVML holds words, e.g. "devices=16 fail=nvmlDeviceGetName:3
// hang=nvmlDeviceGetUUID mig=1 lost=1":
//   devices=N      how many (default 2)
//   fail=CALL:CODE that call answers CODE (CALL may be "all": each but init, count and handles)
//   hang=CALL      that call never comes back
//   mig=N          device 0 has MIG on with N instances
//   lost=I         device I has fallen off the bus
//   lost_from=CALL ... but only when it comes to that call
//   events=I:BITS:DATA,I:BITS:DATA  what the event set tells, one after the other, then nothing more
//   odd_name=1     a process has a name that is no UTF-8, and would clear a terminal
//   event_lost=1   ... then that a GPU is lost
//   event_end=CODE ... then that code
// Built a second time with FAKE_OLD it has only what a driver of 2016 had: no versioned names, old layouts.
#include "nvml.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
enum { MAX = 64, INSTANCES = 8 };

// The real library clears its own memory when it starts, too: in pages that its opener asked to be huge.
static char own_memory[8 << 20];
static int clear_memory(void) {
    memset(own_memory, 0, sizeof own_memory);
    return own_memory[sizeof own_memory / 2];
}

struct nvml_device {
    unsigned index;
    int instance; // of MIG; -1: a whole device
};
static struct nvml_device devices[MAX], instances[INSTANCES]; // the instances are device 0's

__attribute__((constructor)) static void number_devices(void) {
    for (unsigned i = 0; i < MAX; i++) {
        devices[i] = (struct nvml_device){.index = i, .instance = -1};
    }
    for (int i = 0; i < INSTANCES; i++) {
        instances[i] = (struct nvml_device){.index = 0, .instance = i};
    }
}

static const char *word(const char *key) {
    const char *script = getenv("EIRUN_FAKE_NVML");
    size_t length = strlen(key);
    while (script && *script) {
        script += strspn(script, " \n");
        if (strncmp(script, key, length) == 0 && script[length] == '=') {
            return script + length + 1;
        }
        script += strcspn(script, " \n");
    }
    return NULL;
}

static int number(const char *key, int otherwise) {
    const char *text = word(key);
    return text ? atoi(text) : otherwise;
}

static bool names(const char *text, const char *call) {
    size_t length = strlen(call);
    return text && strncmp(text, call, length) == 0 && strchr(" :\n", text[length]);
}

static int code_of(const char *call) {
    if (names(word("hang"), call)) {
        for (;;) {
            pause();
        }
    }
    const char *fail = word("fail");
    bool basic = strstr(call, "Init") || strstr(call, "GetCount") || strstr(call, "GetHandleByIndex");
    return names(fail, call) || (names(fail, "all") && !basic) ? atoi(strchr(fail, ':') + 1) : NVML_OK;
}

static int enter(const char *call, const struct nvml_device *device) {
    static atomic_bool fallen; // as the real one, this library is called from several threads
    if (names(word("lost_from"), call)) {
        fallen = true;
    }
    if (device && (int)device->index == number("lost", -1) && (fallen || !word("lost_from"))) {
        return NVML_GPU_IS_LOST;
    }
    return code_of(call);
}

// A call with one result that depends on nothing but the device.
#define ANSWER(call, type, expression)                                                                                 \
    EXPORT int call(struct nvml_device *device, type *into);                                                           \
    int call(struct nvml_device *device, type *into) {                                                                 \
        int code = enter(#call, device);                                                                               \
        if (code == NVML_OK) {                                                                                         \
            *into = (type)(expression);                                                                                \
        }                                                                                                              \
        return code;                                                                                                   \
    }
#define CALL(call, device, arguments, work)                                                                            \
    EXPORT int call arguments;                                                                                         \
    int call arguments {                                                                                               \
        int code = enter(#call, device);                                                                               \
        if (code == NVML_OK) {                                                                                         \
            work;                                                                                                      \
        }                                                                                                              \
        return code;                                                                                                   \
    }

#ifdef FAKE_OLD
CALL(nvmlInit, NULL, (void), clear_memory())
CALL(nvmlDeviceGetCount, NULL, (unsigned *count), *count = (unsigned)number("devices", 2))
#define BY_INDEX nvmlDeviceGetHandleByIndex
#define BY_INDEX_NAME "nvmlDeviceGetHandleByIndex"
#else
CALL(nvmlInit_v2, NULL, (void), clear_memory())
CALL(nvmlDeviceGetCount_v2, NULL, (unsigned *count), *count = (unsigned)number("devices", 2))
#define BY_INDEX nvmlDeviceGetHandleByIndex_v2
#define BY_INDEX_NAME "nvmlDeviceGetHandleByIndex_v2"
#endif

EXPORT int BY_INDEX(unsigned index, struct nvml_device **into);
int BY_INDEX(unsigned index, struct nvml_device **into) {
    *into = &devices[index % MAX];
    return enter(BY_INDEX_NAME, number("lost_handle", 0) ? *into : NULL);
}

CALL(nvmlSystemGetDriverVersion, NULL, (char *text, unsigned size), snprintf(text, size, "580.95.05"))
CALL(nvmlDeviceGetName, device, (struct nvml_device * device, char *text, unsigned size),
     snprintf(text, size, device->instance < 0 ? "NVIDIA Fake 80GB" : "NVIDIA Fake 80GB MIG 1g.10gb"))
CALL(nvmlDeviceGetUUID, device, (struct nvml_device * device, char *text, unsigned size),
     snprintf(text, size, "%s-%08x-0000-0000-0000-%012d", device->instance < 0 ? "GPU" : "MIG", device->index,
              device->instance + 1))
CALL(nvmlDeviceGetMemoryInfo, device, (struct nvml_device * device, struct nvml_memory *memory),
     (*memory = (struct nvml_memory){80ULL << 30, 60ULL << 30, 20ULL << 30}))
CALL(nvmlDeviceGetUtilizationRates, device, (struct nvml_device * device, struct nvml_rates *rates),
     (*rates = (struct nvml_rates){37, 12}))
CALL(nvmlDeviceGetTemperature, device, (struct nvml_device * device, int sensor, unsigned *into),
     ((void)sensor, *into = 41))
CALL(nvmlDeviceGetTemperatureThreshold, device, (struct nvml_device * device, int limit, unsigned *into),
     *into = 95 - (unsigned)limit)
CALL(nvmlDeviceGetClockInfo, device, (struct nvml_device * device, int clock, unsigned *into),
     *into = 1000 + (unsigned)clock)
CALL(nvmlDeviceGetMaxClockInfo, device, (struct nvml_device * device, int clock, unsigned *into),
     *into = 2000 + (unsigned)clock)
CALL(nvmlDeviceGetEccMode, device, (struct nvml_device * device, int *current, int *pending), *current = *pending = 1)
CALL(nvmlDeviceGetTotalEccErrors, device,
     (struct nvml_device * device, int error, int counter, unsigned long long *into),
     *into = (unsigned long long)(error * 10 + counter))
CALL(nvmlDeviceGetPowerManagementLimitConstraints, device, (struct nvml_device * device, unsigned *low, unsigned *high),
     (*low = 200000, *high = 700000))
ANSWER(nvmlDeviceGetMinorNumber, unsigned, device->index)
ANSWER(nvmlDeviceGetPowerUsage, unsigned, 123456)
ANSWER(nvmlDeviceGetEnforcedPowerLimit, unsigned, 700000)
ANSWER(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, 700000)
ANSWER(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, 4)
ANSWER(nvmlDeviceGetMaxPcieLinkGeneration, unsigned, 5)
ANSWER(nvmlDeviceGetCurrPcieLinkWidth, unsigned, 8)
ANSWER(nvmlDeviceGetMaxPcieLinkWidth, unsigned, 16)
ANSWER(nvmlDeviceGetPerformanceState, int, 2)
ANSWER(nvmlDeviceGetPersistenceMode, int, 1)
ANSWER(nvmlDeviceGetComputeMode, int, 3)
CALL(nvmlDeviceGetTopologyCommonAncestor, a, (struct nvml_device * a, struct nvml_device *b, int *level),
     *level = a->index / 8 == b->index / 8 ? 40 : 50)

EXPORT int nvmlSystemGetProcessName(unsigned pid, char *text, unsigned size);
int nvmlSystemGetProcessName(unsigned pid, char *text, unsigned size) {
    int code = enter("nvmlSystemGetProcessName", NULL);
    if (code == NVML_OK && pid != (unsigned)getpid()) {
        return NVML_NOT_FOUND;
    }
    if (code == NVML_OK) {
        snprintf(text, size, "/usr/bin/fake%s", number("odd_name", 0) ? "\xff\033[2J" : "");
    }
    return code;
}

#ifdef FAKE_OLD
CALL(nvmlDeviceGetPciInfo_v2, device, (struct nvml_device * device, struct nvml_pci *pci),
     (pci->domain = 0, pci->bus = 16 + device->index, pci->device = 0))
ANSWER(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, 4)

EXPORT int nvmlDeviceGetComputeRunningProcesses(struct nvml_device *device, unsigned *count,
                                                struct nvml_process_v1 *into);
int nvmlDeviceGetComputeRunningProcesses(struct nvml_device *device, unsigned *count, struct nvml_process_v1 *into) {
    int code = enter("nvmlDeviceGetComputeRunningProcesses", device);
    if (code == NVML_OK) {
        into[0] = (struct nvml_process_v1){(unsigned)getpid(), 1 << 20};
        into[1] = (struct nvml_process_v1){1, UINT64_MAX};
        *count = 2;
    }
    return code;
}
#else
CALL(nvmlSystemGetCudaDriverVersion_v2, NULL, (int *version), *version = 13000)
CALL(nvmlDeviceGetPciInfo_v3, device, (struct nvml_device * device, struct nvml_pci *pci),
     (pci->domain = 0, pci->bus = 16 + device->index, pci->device = 0, pci->id = 0x233010DE,
      pci->subsystem = 0x16C110DE))
CALL(nvmlDeviceGetSerial, device, (struct nvml_device * device, char *text, unsigned size),
     snprintf(text, size, "%u", 1000 + device->index))
CALL(nvmlDeviceGetVbiosVersion, device, (struct nvml_device * device, char *text, unsigned size),
     snprintf(text, size, "96.00.DA.00.0C"))
CALL(nvmlDeviceGetCudaComputeCapability, device, (struct nvml_device * device, int *major, int *minor),
     (*major = 9, *minor = 0))
CALL(nvmlDeviceGetBAR1MemoryInfo, device, (struct nvml_device * device, struct nvml_bar1 *memory),
     (*memory = (struct nvml_bar1){128ULL << 30, 127ULL << 30, 1ULL << 30}))
CALL(nvmlDeviceGetJpgUtilization, device, (struct nvml_device * device, unsigned *rate, unsigned *period),
     (*rate = 7, *period = 1000))
CALL(nvmlDeviceGetOfaUtilization, device, (struct nvml_device * device, unsigned *rate, unsigned *period),
     (*rate = 8, *period = 1000))
CALL(nvmlDeviceGetApplicationsClock, device, (struct nvml_device * device, int clock, unsigned *into),
     *into = 3000 + (unsigned)clock)
CALL(nvmlDeviceGetDefaultApplicationsClock, device, (struct nvml_device * device, int clock, unsigned *into),
     *into = 4000 + (unsigned)clock)
CALL(nvmlDeviceGetMemoryErrorCounter, device,
     (struct nvml_device * device, int error, int counter, int place, unsigned long long *into),
     *into = (unsigned long long)(1000 + error * 10 + counter * 100 + place))
CALL(nvmlDeviceGetRowRemapperHistogram, device, (struct nvml_device * device, struct nvml_histogram *banks),
     (*banks = (struct nvml_histogram){2560, 2, 3, 4, 5}))
ANSWER(nvmlDeviceGetFanSpeed, unsigned, 30)
ANSWER(nvmlDeviceGetPowerManagementLimit, unsigned, 650000)
ANSWER(nvmlDeviceGetPowerManagementMode, int, 1)
ANSWER(nvmlDeviceGetSupportedClocksEventReasons, unsigned long long, 0x1ff)
ANSWER(nvmlDeviceGetGpuMaxPcieLinkGeneration, unsigned, 6)
ANSWER(nvmlDeviceGetPcieReplayCounter, unsigned, 9)
ANSWER(nvmlDeviceGetDisplayActive, int, 0)
ANSWER(nvmlDeviceGetSupportedEventTypes, unsigned long long, 0xff9f)

EXPORT int nvmlDeviceGetTemperatureV(struct nvml_device *device, struct nvml_temperature *now);
int nvmlDeviceGetTemperatureV(struct nvml_device *device, struct nvml_temperature *now) {
    int code = enter("nvmlDeviceGetTemperatureV", device);
    if (code == NVML_OK && (now->version != NVML_TEMPERATURE_V1 || now->sensor != 0)) {
        return NVML_VERSION_MISMATCH;
    }
    now->celsius = code == NVML_OK ? 40 : 0; // the older call says 41
    return code;
}

EXPORT int nvmlDeviceGetMarginTemperature(struct nvml_device *device, struct nvml_margin *margin);
int nvmlDeviceGetMarginTemperature(struct nvml_device *device, struct nvml_margin *margin) {
    int code = enter("nvmlDeviceGetMarginTemperature", device);
    if (code == NVML_OK && margin->version != NVML_MARGIN_V1) {
        return NVML_VERSION_MISMATCH;
    }
    margin->celsius = code == NVML_OK ? 52 : 0;
    return code;
}

EXPORT int nvmlDeviceGetSamples(struct nvml_device *device, int kind, unsigned long long since, int *type,
                                unsigned *count, struct nvml_sample *into);
int nvmlDeviceGetSamples(struct nvml_device *device, int kind, unsigned long long since, int *type, unsigned *count,
                         struct nvml_sample *into) {
    int code = enter("nvmlDeviceGetSamples", device);
    (void)since;
    *type = NVML_VALUE_U32;
    *count = code == NVML_OK ? 4 : 0;
    for (unsigned i = 0; code == NVML_OK && into && i < 3; i++) { // the fourth was not taken yet
        into[i].at_us = 1000001 + i;
        into[i].value.u32 = (i + 1) * 10 + (kind == NVML_SAMPLED_POWER ? 100000 : 0);
    }
    return code;
}

struct nvml_event_set {
    atomic_int told;
};
static struct nvml_event_set only_set;
CALL(nvmlEventSetCreate, NULL, (struct nvml_event_set * *set), *set = &only_set)
CALL(nvmlDeviceRegisterEvents, device,
     (struct nvml_device * device, unsigned long long mask, struct nvml_event_set *set), ((void)mask, set->told = 0))
EXPORT int nvmlEventSetFree(struct nvml_event_set *set);
int nvmlEventSetFree(struct nvml_event_set *set) {
    (void)set;
    return code_of("nvmlEventSetFree");
}

// The n-th of "0:8:79,1:2:0"; NULL after the last one.
static const char *nth_event(int n) {
    const char *text = word("events");
    for (; text && n > 0; n--) {
        text += strcspn(text, ", ");
        text = *text == ',' ? text + 1 : NULL;
    }
    return text;
}

EXPORT int nvmlEventSetWait_v2(struct nvml_event_set *set, struct nvml_event *event, unsigned wait_ms);
int nvmlEventSetWait_v2(struct nvml_event_set *set, struct nvml_event *event, unsigned wait_ms) {
    int code = enter("nvmlEventSetWait_v2", NULL);
    const char *text = nth_event(set->told);
    unsigned index = 0;
    if (code == NVML_OK && text &&
        sscanf(text, "%u:%lli:%lli", &index, (long long *)&event->type, (long long *)&event->data) == 3) {
        set->told++;
        event->device = &devices[index % MAX];
        return NVML_OK;
    }
    usleep(word("event_lost") || word("event_end") ? 0 : wait_ms * 100);
    return code != NVML_OK      ? code
           : word("event_end")  ? number("event_end", 0)
           : word("event_lost") ? NVML_GPU_IS_LOST
                                : NVML_TIMEOUT;
}
ANSWER(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, 4)
ANSWER(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, 5000000000ULL)
ANSWER(nvmlDeviceGetRetiredPagesPendingStatus, int, 0)
ANSWER(nvmlDeviceGetMaxMigDeviceCount, unsigned, INSTANCES)
ANSWER(nvmlDeviceGetGpuInstanceId, unsigned, 7 + device->instance)
ANSWER(nvmlDeviceGetComputeInstanceId, unsigned, 0)
CALL(nvmlDeviceGetEncoderUtilization, device, (struct nvml_device * device, unsigned *rate, unsigned *period),
     (*rate = 5, *period = 1000))
CALL(nvmlDeviceGetDecoderUtilization, device, (struct nvml_device * device, unsigned *rate, unsigned *period),
     (*rate = 6, *period = 1000))
// Counters of one link in KiB, and of all links together; the speed of each.
static void answer_field(struct nvml_field *field) {
    bool counter = field->id == NVML_FIELD_LINK_TX || field->id == NVML_FIELD_LINK_RX;
    field->code = NVML_OK;
    field->type = counter ? NVML_VALUE_U64 : NVML_VALUE_U32;
    if (counter) {
        unsigned long long links = field->scope == NVML_ALL_LINKS ? 12 : 1;
        field->value.u64 = links * (field->id == NVML_FIELD_LINK_TX ? 5000000000ULL : 6000000000ULL);
    } else if (field->id == NVML_FIELD_LINK_SPEED) {
        field->value.u32 = 26562;
    } else if (field->id == NVML_FIELD_LINK_SPEEDS) { // of Pascal to Ampere
        field->code = NVML_NOT_SUPPORTED;
    } else if (field->id == NVML_FIELD_LINK_CRC) {
        field->value.u32 = 7;
    } else {
        field->value.u32 = field->id == NVML_FIELD_MEMORY_TEMPERATURE ? 52 : field->id * 1000;
    }
}
CALL(nvmlDeviceGetFieldValues, device, (struct nvml_device * device, int count, struct nvml_field *field),
     ((void)count, answer_field(field)))
CALL(nvmlDeviceGetRemappedRows, device,
     (struct nvml_device * device, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failure),
     (*corrected = 1, *uncorrected = 2, *pending = 1, *failure = 0))
CALL(nvmlDeviceGetMigMode, device, (struct nvml_device * device, unsigned *current, unsigned *pending),
     *current = *pending = device->index == 0 && number("mig", 0) > 0)

// 18 links, of which 12 are active: the first six to the GPU's neighbour, the others to a switch, of which some have no
// address.
EXPORT int nvmlDeviceGetNvLinkState(struct nvml_device *device, unsigned link, int *state);
int nvmlDeviceGetNvLinkState(struct nvml_device *device, unsigned link, int *state) {
    int code = enter("nvmlDeviceGetNvLinkState", device);
    if (code == NVML_OK && link >= 18) {
        return NVML_INVALID_ARGUMENT;
    }
    *state = code == NVML_OK && link < 12;
    return code;
}
CALL(nvmlDeviceGetNvLinkVersion, device, (struct nvml_device * device, unsigned link, unsigned *version),
     ((void)link, *version = 6))
CALL(nvmlDeviceGetNvLinkRemoteDeviceType, device, (struct nvml_device * device, unsigned link, int *kind),
     *kind = link < 6 ? 0 : 2)
CALL(nvmlDeviceGetNvLinkRemotePciInfo_v2, device, (struct nvml_device * device, unsigned link, struct nvml_pci *pci),
     (pci->domain = link < 9 ? 0 : UINT32_MAX, pci->bus = link < 6 ? 16 + (device->index ^ 1) : 0xC0 + link,
      pci->device = 0))
CALL(nvmlDeviceGetMemoryAffinity, device,
     (struct nvml_device * device, unsigned words, unsigned long *nodes, int scope),
     ((void)scope, *nodes = words == 1 ? 1UL << (device->index / 2) : 0))
CALL(nvmlDeviceGetNvLinkErrorCounter, device,
     (struct nvml_device * device, unsigned link, int counter, unsigned long long *errors),
     *errors = link * 10 + (unsigned)counter)
CALL(nvmlDeviceGetPcieThroughput, device, (struct nvml_device * device, int direction, unsigned *rate),
     *rate = 1500 + (unsigned)direction)
CALL(nvmlDeviceGetP2PStatus, a, (struct nvml_device * a, struct nvml_device *b, int what, int *status),
     ((void)what, *status = a->index / 2 != b->index / 2))

EXPORT int nvmlDeviceGetMemoryInfo_v2(struct nvml_device *device, struct nvml_memory_v2 *memory);
int nvmlDeviceGetMemoryInfo_v2(struct nvml_device *device, struct nvml_memory_v2 *memory) {
    int code = enter("nvmlDeviceGetMemoryInfo_v2", device);
    if (code == NVML_OK && memory->version != 0x02000028) {
        return NVML_VERSION_MISMATCH;
    }
    if (code == NVML_OK) {
        *memory = (struct nvml_memory_v2){memory->version, 80ULL << 30, 1ULL << 30, 60ULL << 30, 19ULL << 30};
    }
    return code;
}

EXPORT int nvmlDeviceGetRetiredPages(struct nvml_device *device, int cause, unsigned *count, unsigned long long *into);
int nvmlDeviceGetRetiredPages(struct nvml_device *device, int cause, unsigned *count, unsigned long long *into) {
    int code = enter("nvmlDeviceGetRetiredPages", device);
    if (code == NVML_OK) {
        *count = cause == NVML_RETIRED_DOUBLE ? 3 : 0;
    }
    return code == NVML_OK && !into && *count ? NVML_INSUFFICIENT_SIZE : code;
}

EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(struct nvml_device *device, unsigned index, struct nvml_device **into);
int nvmlDeviceGetMigDeviceHandleByIndex(struct nvml_device *device, unsigned index, struct nvml_device **into) {
    int code = enter("nvmlDeviceGetMigDeviceHandleByIndex", device);
    if (code == NVML_OK && (int)index >= number("mig", 0)) {
        return NVML_NOT_FOUND;
    }
    *into = &instances[index % INSTANCES];
    return code;
}

static int list(const char *call, struct nvml_device *device, unsigned *count, struct nvml_process *into) {
    int code = enter(call, device);
    if (code == NVML_OK) {
        into[0] = (struct nvml_process){(unsigned)getpid(), 1 << 20, UINT32_MAX, UINT32_MAX};
        into[1] = (struct nvml_process){1, UINT64_MAX, 7, 0};
        *count = strstr(call, "Graphics") ? 1 : 2;
    }
    return code;
}
EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(struct nvml_device *device, unsigned *count,
                                                   struct nvml_process *into);
int nvmlDeviceGetComputeRunningProcesses_v3(struct nvml_device *device, unsigned *count, struct nvml_process *into) {
    return list("nvmlDeviceGetComputeRunningProcesses_v3", device, count, into);
}
EXPORT int nvmlDeviceGetGraphicsRunningProcesses_v3(struct nvml_device *device, unsigned *count,
                                                    struct nvml_process *into);
int nvmlDeviceGetGraphicsRunningProcesses_v3(struct nvml_device *device, unsigned *count, struct nvml_process *into) {
    return list("nvmlDeviceGetGraphicsRunningProcesses_v3", device, count, into);
}

EXPORT int nvmlDeviceGetProcessUtilization(struct nvml_device *device, struct nvml_process_rates *into, unsigned *count,
                                           unsigned long long since);
int nvmlDeviceGetProcessUtilization(struct nvml_device *device, struct nvml_process_rates *into, unsigned *count,
                                    unsigned long long since) {
    int code = enter("nvmlDeviceGetProcessUtilization", device);
    (void)since;
    if (code == NVML_OK && !into) {
        *count = 2;
        return NVML_INSUFFICIENT_SIZE;
    }
    if (code == NVML_OK) {
        into[0] = (struct nvml_process_rates){.pid = (unsigned)getpid(), .at_us = 1, .sm = 20, .memory = 3};
        into[1] = (struct nvml_process_rates){.pid = (unsigned)getpid(), .at_us = 2, .sm = 33, .memory = 4};
        *count = 2;
    }
    return code;
}
#endif
