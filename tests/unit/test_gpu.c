// SPDX-License-Identifier: Apache-2.0
// A look through drivers that answer by script; see tests/fake_nvml.
#include "gpu.h"

#include "check.h"

#include <stdlib.h>
#include <unistd.h>

#define NEW EIRUN_FAKE_NVML_DIR "/new/libnvidia-ml.so.1"
#define OLD EIRUN_FAKE_NVML_DIR "/old/libnvidia-ml.so.1"

static struct er_gpu_wish wish_for_all(void) {
    struct er_gpu_wish wish = {
        .processes = true, .topology = true, .instances = true, .samples = true, .nvlinks = true};
    for (int i = 0; i < ER_GPU_FIELD_COUNT; i++) {
        wish.fields[i] = true;
    }
    return wish;
}

static enum er_status look(const char *library, const char *script, struct er_gpu_snapshot *into,
                           struct er_error *err) {
    struct nvml nvml;
    *into = (struct er_gpu_snapshot){0};
    setenv("EIRUN_FAKE_NVML", script, 1);
    enum er_status status = nvml_open(&nvml, library, err);
    struct er_gpu_wish everything = wish_for_all();
    return status == ER_OK ? er_gpu_look_through(&nvml, &everything, into, err) : status;
}

static size_t known(const struct er_gpu_device *device) {
    size_t count = 0;
    for (int i = 0; i < ER_GPU_FIELD_COUNT; i++) {
        count += device->values[i].kind != ER_GPU_NA;
    }
    return count;
}

static int64_t number(const struct er_gpu_device *device, enum er_gpu_field field) {
    return device->values[field].kind == ER_GPU_NUMBER ? device->values[field].number : -1;
}

static void each_field_is_what_the_driver_says(void) {
    struct er_gpu_snapshot shot;
    struct er_error err;
    CHECK(look(NEW, "", &shot, &err) == ER_OK);
    CHECK(shot.device_count == 2 && shot.cuda == 13000);
    CHECK_STR(shot.driver, "580.95.05");
    const struct er_gpu_device *gpu = &shot.devices[1];
    CHECK_STR(gpu->values[ER_GPU_NAME].text, "NVIDIA Fake 80GB");
    CHECK_STR(gpu->values[ER_GPU_PCI].text, "00000000:11:00.0");
    CHECK_STR(gpu->values[ER_GPU_COMPUTE_CAPABILITY].text, "9.0");
    CHECK_STR(gpu->values[ER_GPU_VBIOS].text, "96.00.DA.00.0C");
    static const struct {
        enum er_gpu_field field;
        int64_t number;
    } rows[] = {
        {ER_GPU_MINOR, 1},
        {ER_GPU_MEMORY_TOTAL, 80LL << 30},
        {ER_GPU_MEMORY_USED, 19LL << 30},
        {ER_GPU_MEMORY_FREE, 60LL << 30},
        {ER_GPU_MEMORY_RESERVED, 1LL << 30},
        {ER_GPU_UTIL_GPU, 37},
        {ER_GPU_UTIL_MEMORY, 12},
        {ER_GPU_UTIL_ENCODER, 5},
        {ER_GPU_UTIL_DECODER, 6},
        {ER_GPU_TEMPERATURE, 40},
        {ER_GPU_TEMPERATURE_MEMORY, 52},
        {ER_GPU_TEMPERATURE_SHUTDOWN, 95},
        {ER_GPU_TEMPERATURE_SLOWDOWN, 94},
        {ER_GPU_TEMPERATURE_MAX, 92},
        {ER_GPU_POWER, 123456},
        {ER_GPU_POWER_MIN, 200000},
        {ER_GPU_POWER_MAX, 700000},
        {ER_GPU_ENERGY, 5000000000},
        {ER_GPU_CLOCK_SM, 1001},
        {ER_GPU_CLOCK_MEMORY, 1002},
        {ER_GPU_CLOCK_MAX_MEMORY, 2002},
        {ER_GPU_CLOCK_REASONS, 4},
        {ER_GPU_PERFORMANCE_STATE, 2},
        {ER_GPU_ECC_UNCORRECTED, 10},
        {ER_GPU_ECC_CORRECTED_TOTAL, 1},
        {ER_GPU_ECC_UNCORRECTED_TOTAL, 11},
        {ER_GPU_RETIRED_SINGLE, 0},
        {ER_GPU_RETIRED_DOUBLE, 3},
        {ER_GPU_REMAPPED_UNCORRECTED, 2},
        {ER_GPU_REMAPPED_PENDING, 1},
        {ER_GPU_PCIE_GENERATION_MAX, 5},
        {ER_GPU_PCIE_WIDTH, 8},
        {ER_GPU_NVLINKS, 12},
        {ER_GPU_COMPUTE_MODE, 3},
        {ER_GPU_MIG_MODE, 0},
        {ER_GPU_PCI_BUS, 17},
        {ER_GPU_PCI_ID, 0x233010DE},
        {ER_GPU_BAR1_TOTAL, 128LL << 30},
        {ER_GPU_UTIL_JPEG, 7},
        {ER_GPU_UTIL_OFA, 8},
        {ER_GPU_TEMPERATURE_MARGIN, 52},
        {ER_GPU_FAN, 30},
        {ER_GPU_POWER_AVERAGE, 185000},
        {ER_GPU_POWER_INSTANT, 186000},
        {ER_GPU_POWER_REQUESTED, 650000},
        {ER_GPU_CLOCK_SET_MEMORY, 3002},
        {ER_GPU_CLOCK_DEFAULT_GRAPHICS, 4000},
        {ER_GPU_CLOCK_REASONS_KNOWN, 0x1ff},
        {ER_GPU_ECC_PENDING, 1},
        {ER_GPU_ECC_DRAM_UNCORRECTED, 1012},
        {ER_GPU_ECC_SRAM_CORRECTED_TOTAL, 1107},
        {ER_GPU_REMAP_BANKS_NONE, 5},
        {ER_GPU_PCIE_GENERATION_GPU_MAX, 6},
        {ER_GPU_PCIE_REPLAYS, 9},
        {ER_GPU_DISPLAY_ACTIVE, 0},
        {ER_GPU_PCIE_TX, 1500},
        {ER_GPU_PCIE_RX, 1501},
        {ER_GPU_NVLINKS_SPEED, 26562},
        {ER_GPU_NVLINKS_TX, 60000000000},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (number(gpu, rows[i].field) != rows[i].number) {
            fprintf(stderr, "%s is %lld\n", er_gpu_field_rows[rows[i].field].name,
                    (long long)number(gpu, rows[i].field));
            check_failures++;
        }
    }
    er_gpu_release(&shot);
    er_gpu_release(&shot);
}

static void processes_of_both_lists_are_told_once(void) {
    struct er_gpu_snapshot shot;
    struct er_error err;
    CHECK(look(NEW, "devices=1", &shot, &err) == ER_OK);
    CHECK(shot.devices[0].process_count == 2);
    const struct er_gpu_process *own = &shot.devices[0].processes[0], *other = own + 1;
    CHECK(own->pid == (uint32_t)getpid() && own->compute && own->graphics && own->memory == 1 << 20);
    CHECK(own->has_rates && own->sm == 33 && own->memory_rate == 4);
    CHECK_STR(own->name, "/usr/bin/fake");
    CHECK(own->cgroup[0] != '\0');
    CHECK(!other->has_memory && other->gpu_instance == 7 && !other->has_rates && other->name[0] != '\0');
    er_gpu_release(&shot);
}

static void an_old_driver_has_no_versioned_names(void) {
    struct er_gpu_snapshot shot;
    struct er_error err;
    CHECK(look(OLD, "devices=1", &shot, &err) == ER_OK);
    const struct er_gpu_device *gpu = &shot.devices[0];
    CHECK(shot.device_count == 1 && shot.cuda == 0);
    CHECK(number(gpu, ER_GPU_MEMORY_USED) == 20LL << 30);
    CHECK(gpu->values[ER_GPU_MEMORY_RESERVED].kind == ER_GPU_NA);
    CHECK_STR(gpu->values[ER_GPU_PCI].text, "00000000:10:00.0");
    CHECK(number(gpu, ER_GPU_CLOCK_REASONS) == 4);
    CHECK(gpu->values[ER_GPU_MIG_MODE].kind == ER_GPU_NA);
    CHECK(gpu->process_count == 2 && gpu->processes[0].memory == 1 << 20 && !gpu->processes[1].has_memory);
    CHECK(gpu->processes[0].gpu_instance == ER_GPU_NO_INSTANCE);
    er_gpu_release(&shot);
}

static void memory_of_another_version_falls_back(void) {
    struct er_gpu_snapshot shot;
    struct er_error err;
    CHECK(look(NEW, "devices=1 fail=nvmlDeviceGetMemoryInfo_v2:25", &shot, &err) == ER_OK);
    CHECK(number(&shot.devices[0], ER_GPU_MEMORY_USED) == 20LL << 30);
    CHECK(shot.devices[0].values[ER_GPU_MEMORY_RESERVED].kind == ER_GPU_NA);
    er_gpu_release(&shot);
}

static void a_temperature_of_another_version_falls_back(void) {
    struct er_gpu_snapshot shot;
    struct er_error err;
    CHECK(look(NEW, "devices=1 fail=nvmlDeviceGetTemperatureV:25", &shot, &err) == ER_OK);
    CHECK(number(&shot.devices[0], ER_GPU_TEMPERATURE) == 41);
    er_gpu_release(&shot);
    CHECK(look(OLD, "devices=1", &shot, &err) == ER_OK);
    CHECK(number(&shot.devices[0], ER_GPU_TEMPERATURE) == 41);
    er_gpu_release(&shot);
}

static const char *const calls[] = {
#define CALL_NAME(member, arguments, name, older) name,
    NVML_FUNCTIONS(CALL_NAME)
#undef CALL_NAME
};

// Returns whether the look went well with that one call failing.
static bool look_without(const char *call, int code, size_t *fields) {
    struct er_gpu_snapshot shot;
    struct er_error err;
    char script[128];
    snprintf(script, sizeof script, "devices=1 mig=2 fail=%s:%d", call, code);
    bool well = look(NEW, script, &shot, &err) == ER_OK;
    *fields = shot.device_count ? known(&shot.devices[0]) : 0;
    er_gpu_release(&shot);
    return well;
}

static void each_call_may_fail_and_costs_only_its_fields(void) {
    static const int codes[] = {NVML_NOT_SUPPORTED, NVML_FUNCTION_NOT_FOUND, 4, 999};
    size_t all = 0, fields = 0;
    CHECK(look_without("nothing", 3, &all));
    CHECK(all >= 85);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        bool vital = strstr(calls[i], "Init") || strstr(calls[i], "GetCount");
        for (size_t j = 0; j < sizeof codes / sizeof *codes; j++) {
            bool well = look_without(calls[i], codes[j], &fields);
            bool handle = strstr(calls[i], "GetHandleByIndex") != NULL; // without it nothing is known of the device
            if (well == vital || (handle && fields) || (!vital && !handle && fields + 8 < all)) {
                fprintf(stderr, "%s with code %d: %zu of %zu fields\n", calls[i], codes[j], fields, all);
                check_failures++;
            }
        }
    }
}

static void nothing_supported_is_no_failure(void) {
    struct er_gpu_snapshot shot;
    struct er_error err;
    CHECK(look(NEW, "fail=all:3", &shot, &err) == ER_OK);
    CHECK(shot.device_count == 2 && known(&shot.devices[0]) == 0 && shot.devices[0].process_count == 0);
    er_gpu_release(&shot);
}

static void a_lost_gpu_leaves_the_others(void) {
    struct er_gpu_snapshot shot;
    struct er_error err;
    CHECK(look(NEW, "devices=3 lost=1", &shot, &err) == ER_OK);
    CHECK(shot.devices[1].lost && known(&shot.devices[1]) == 0);
    CHECK(!shot.devices[0].lost && !shot.devices[2].lost && known(&shot.devices[2]) > 80);
    er_gpu_release(&shot);
    CHECK(look(NEW, "devices=3 lost=1 lost_handle=1", &shot, &err) == ER_OK);
    CHECK(shot.devices[1].lost && shot.devices[1].code == NVML_GPU_IS_LOST && !shot.devices[2].lost);
    er_gpu_release(&shot);
}

static void mig_instances_are_told_with_their_ids(void) {
    struct er_gpu_snapshot shot;
    struct er_error err;
    CHECK(look(NEW, "devices=2 mig=3", &shot, &err) == ER_OK);
    CHECK(shot.devices[0].mig_count == 3 && shot.devices[1].mig_count == 0);
    CHECK(number(&shot.devices[0].mig[2], ER_GPU_GPU_INSTANCE) == 9);
    CHECK_STR(shot.devices[0].mig[0].values[ER_GPU_NAME].text, "NVIDIA Fake 80GB MIG 1g.10gb");
    er_gpu_release(&shot);
}

static void sixteen_gpus_have_a_square_of_links(void) {
    struct er_gpu_snapshot shot;
    struct er_error err;
    CHECK(look(NEW, "devices=16", &shot, &err) == ER_OK);
    CHECK(shot.device_count == 16);
    CHECK(shot.links[0 * 16 + 0].ancestor == -1);
    CHECK(shot.links[0 * 16 + 1].ancestor == 40 && shot.links[0 * 16 + 1].nvlink);
    CHECK(shot.links[0 * 16 + 8].ancestor == 50 && !shot.links[0 * 16 + 8].nvlink);
    er_gpu_release(&shot);
}

static void each_nvlink_is_told_by_itself(void) {
    struct er_gpu_snapshot shot;
    struct er_error err;
    CHECK(look(NEW, "devices=2", &shot, &err) == ER_OK);
    CHECK(shot.devices[1].nvlink_count == 18);
    const struct er_gpu_nvlink *link = &shot.devices[1].nvlinks[2];
    CHECK_STR(link->remote, "00000000:10:00.0");
    CHECK(link->number == 2 && link->values[ER_GPU_NVLINK_ACTIVE] == 1 && link->values[ER_GPU_NVLINK_VERSION] == 6);
    CHECK(link->values[ER_GPU_NVLINK_RX] == 6000000000 && link->values[ER_GPU_NVLINK_CRC_FLIT] == 22);
    CHECK(shot.devices[1].nvlinks[12].values[ER_GPU_NVLINK_ACTIVE] == 0);
    er_gpu_release(&shot);
    CHECK(look(NEW, "devices=1 fail=nvmlDeviceGetNvLinkErrorCounter:3", &shot, &err) == ER_OK);
    CHECK(shot.devices[0].nvlinks[0].values[ER_GPU_NVLINK_REPLAY] == ER_GPU_UNKNOWN);
    er_gpu_release(&shot);
    CHECK(look(OLD, "devices=1", &shot, &err) == ER_OK);
    CHECK(shot.devices[0].nvlink_count == 0);
    er_gpu_release(&shot);
}

static void no_driver_and_a_broken_one_are_told_apart(void) {
    struct er_gpu_snapshot shot;
    struct er_error err;
    CHECK(look("/nowhere/libnvidia-ml.so.1", "", &shot, &err) == ER_NOT_FOUND);
    CHECK(strstr(err.message, "no NVIDIA driver here") != NULL);
    CHECK(look(NEW, "fail=nvmlInit_v2:9", &shot, &err) == ER_NOT_FOUND);
    CHECK(look(NEW, "fail=nvmlInit_v2:18", &shot, &err) == ER_INTERNAL);
    CHECK_STR(err.message, "cannot start NVML: driver and library differ in version (code 18)");
    CHECK(look("libm.so.6", "", &shot, &err) == ER_INTERNAL);
}

static void only_the_fields_wished_for_are_asked_for(void) {
    struct er_gpu_wish wish = {.fields = {[ER_GPU_MEMORY_USED] = true, [ER_GPU_NAME] = true}};
    struct er_gpu_snapshot shot = {0};
    struct er_error err;
    struct nvml nvml;
    setenv("EIRUN_FAKE_NVML", "devices=1 mig=2", 1);
    CHECK(nvml_open(&nvml, NEW, &err) == ER_OK);
    CHECK(er_gpu_look_through(&nvml, &wish, &shot, &err) == ER_OK);
    CHECK(known(&shot.devices[0]) == 5); // four of memory come from one call
    CHECK(shot.devices[0].mig_count == 0 && shot.devices[0].process_count == 0);
    er_gpu_release(&shot);
}

// What stays the same is asked once: later the call may even fail.
static void fixed_fields_are_remembered(void) {
    struct er_gpu_wish wish = {.cache = er_gpu_shared_cache()};
    struct er_gpu_snapshot shot = {0};
    struct er_error err;
    struct nvml nvml;
    er_gpu_wish_usual(&wish);
    setenv("EIRUN_FAKE_NVML", "devices=1", 1);
    CHECK(nvml_open(&nvml, NEW, &err) == ER_OK);
    CHECK(er_gpu_look_through(&nvml, &wish, &shot, &err) == ER_OK);
    CHECK(shot.devices[0].values[ER_GPU_ENERGY].kind == ER_GPU_NA); // not of a usual look
    er_gpu_release(&shot);
    setenv("EIRUN_FAKE_NVML", "devices=1 fail=all:3", 1);
    CHECK(er_gpu_look_through(&nvml, &wish, &shot, &err) == ER_OK);
    CHECK_STR(shot.devices[0].values[ER_GPU_NAME].text, "NVIDIA Fake 80GB");
    CHECK(number(&shot.devices[0], ER_GPU_CLOCK_MAX_SM) == 2001);
    CHECK(shot.devices[0].values[ER_GPU_TEMPERATURE].kind == ER_GPU_NA);
    er_gpu_release(&shot);
}

static void samples_come_oldest_first(void) {
    struct er_gpu_snapshot shot;
    struct er_error err;
    CHECK(look(NEW, "devices=1", &shot, &err) == ER_OK);
    const struct er_gpu_series *series = &shot.devices[0].series[ER_GPU_SAMPLED_GPU];
    CHECK(series->count == 3 && series->samples[0].at_us == 1000001 && series->samples[2].value == 30);
    CHECK(shot.devices[0].series[ER_GPU_SAMPLED_POWER].count == 3);
    er_gpu_release(&shot);
    CHECK(look(NEW, "devices=1 fail=nvmlDeviceGetSamples:3", &shot, &err) == ER_OK);
    CHECK(shot.devices[0].series[ER_GPU_SAMPLED_GPU].count == 0);
    er_gpu_release(&shot);
}

static void a_gpu_lost_in_the_middle_keeps_what_was_read(void) {
    struct er_gpu_snapshot shot;
    struct er_error err;
    CHECK(look(NEW, "devices=2 lost=0 lost_from=nvmlDeviceGetPowerUsage", &shot, &err) == ER_OK);
    CHECK(shot.devices[0].lost && shot.devices[0].code == NVML_OK);
    CHECK_STR(shot.devices[0].values[ER_GPU_NAME].text, "NVIDIA Fake 80GB");
    CHECK(shot.devices[0].values[ER_GPU_ENERGY].kind == ER_GPU_NA);
    CHECK(!shot.devices[1].lost && known(&shot.devices[1]) > 80);
    er_gpu_release(&shot);
}

// How many bytes of this process were asked to lie in huge pages; -1 where the kernel does not tell or has none.
static long huge_bytes(void) {
    FILE *file = fopen("/proc/self/smaps", "re");
    char line[512];
    long size = 0, sum = 0;
    bool tells = access("/sys/kernel/mm/transparent_hugepage/enabled", R_OK) == 0;
    bool flags = false;
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "Size: %ld kB", &size) != 1 && strncmp(line, "VmFlags:", 8) == 0) {
            flags = true;
            sum += strstr(line, " hg") ? size * 1024 : 0;
        }
    }
    if (file) {
        fclose(file);
    }
    return tells && flags ? sum : -1;
}

static void the_librarys_own_memory_lies_in_huge_pages(void) {
    struct nvml nvml;
    struct er_error err;
    CHECK(nvml_open(&nvml, NEW, &err) == ER_OK);
    long bytes = huge_bytes();
    CHECK(bytes == -1 || bytes >= 7 << 20);
}

static void each_allocation_may_fail(void) {
    struct er_gpu_snapshot shot;
    struct er_error err;
    enum er_status status = ER_NO_MEMORY;
    for (uint64_t n = 1; n < 1000 && status != ER_OK; n++) {
        er_mem_fail_from(n);
        status = look(NEW, "devices=2 mig=2", &shot, &err);
        er_mem_fail_from(0);
        CHECK(status == ER_OK || status == ER_NO_MEMORY);
        er_gpu_release(&shot);
    }
    CHECK(status == ER_OK);
}

int main(void) {
    static const struct check_test tests[] = {
        {"each_field_is_what_the_driver_says", each_field_is_what_the_driver_says},
        {"processes_of_both_lists_are_told_once", processes_of_both_lists_are_told_once},
        {"an_old_driver_has_no_versioned_names", an_old_driver_has_no_versioned_names},
        {"memory_of_another_version_falls_back", memory_of_another_version_falls_back},
        {"a_temperature_of_another_version_falls_back", a_temperature_of_another_version_falls_back},
        {"each_call_may_fail_and_costs_only_its_fields", each_call_may_fail_and_costs_only_its_fields},
        {"nothing_supported_is_no_failure", nothing_supported_is_no_failure},
        {"a_lost_gpu_leaves_the_others", a_lost_gpu_leaves_the_others},
        {"mig_instances_are_told_with_their_ids", mig_instances_are_told_with_their_ids},
        {"sixteen_gpus_have_a_square_of_links", sixteen_gpus_have_a_square_of_links},
        {"each_nvlink_is_told_by_itself", each_nvlink_is_told_by_itself},
        {"no_driver_and_a_broken_one_are_told_apart", no_driver_and_a_broken_one_are_told_apart},
        {"only_the_fields_wished_for_are_asked_for", only_the_fields_wished_for_are_asked_for},
        {"fixed_fields_are_remembered", fixed_fields_are_remembered},
        {"samples_come_oldest_first", samples_come_oldest_first},
        {"a_gpu_lost_in_the_middle_keeps_what_was_read", a_gpu_lost_in_the_middle_keeps_what_was_read},
        {"the_librarys_own_memory_lies_in_huge_pages", the_librarys_own_memory_lies_in_huge_pages},
        {"each_allocation_may_fail", each_allocation_may_fail},
        {0},
    };
    return check_run(tests);
}
