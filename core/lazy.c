// SPDX-License-Identifier: Apache-2.0
// Libraries that many runs never call are opened at the first call into one: relocating libcrypto and its kin takes the
// loader longer than all the rest of a start. Each function of lazy.def is a stub here that jumps through a slot, as
// the linker's own stubs do; until its library is open the slot leads to er_lazy_first.
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

// clang-format off
enum library { CRYPTO, SSL, SQLITE, ISAL, NGHTTP2, ZLIB, IDN2, PSL, ZSTD, BROTLI, GSSAPI, LDAP, LBER, RTMP, SSH2, LIBRARIES };
// clang-format on

static const char *const files[LIBRARIES] = {
    [CRYPTO] = "libcrypto.so.3",
    [SSL] = "libssl.so.3",
    [SQLITE] = "libsqlite3.so.0",
    [ISAL] = "libisal.so.2",
    [NGHTTP2] = "libnghttp2.so.14",
    // libcurl's own
    [ZLIB] = "libz.so.1",
    [IDN2] = "libidn2.so.0",
    [PSL] = "libpsl.so.5",
    [ZSTD] = "libzstd.so.1",
    [BROTLI] = "libbrotlidec.so.1",
    [GSSAPI] = "libgssapi_krb5.so.2",
    [LDAP] = "libldap-2.5.so.0",
    [LBER] = "liblber-2.5.so.0",
    [RTMP] = "librtmp.so.1",
    [SSH2] = "libssh2.so.1",
};

static const struct {
    const char *name;
    enum library library;
} functions[] = {
#define ER_LAZY(library, name) {#name, library},
#include "lazy.def"
#include "lazy_curl.def"
#ifndef EIRUN_OWN_TLS
#include "lazy_openssl.def"
#endif
#undef ER_LAZY
};

enum { FUNCTIONS = sizeof functions / sizeof *functions };

extern void *er_lazy_slots[FUNCTIONS]; // in the order of `functions`

// On entry r11 is the slot; every register that may hold an argument is kept.
__asm__(".text\n"
        ".type er_lazy_first, @function\n"
        "er_lazy_first:\n"
        "  push %rdi; push %rsi; push %rdx; push %rcx; push %r8; push %r9; push %rax\n"
        "  sub $128, %rsp\n"
        "  movaps %xmm0, (%rsp); movaps %xmm1, 16(%rsp); movaps %xmm2, 32(%rsp); movaps %xmm3, 48(%rsp)\n"
        "  movaps %xmm4, 64(%rsp); movaps %xmm5, 80(%rsp); movaps %xmm6, 96(%rsp); movaps %xmm7, 112(%rsp)\n"
        "  mov %r11, %rdi\n"
        "  call er_lazy_find\n"
        "  mov %rax, %r11\n"
        "  movaps (%rsp), %xmm0; movaps 16(%rsp), %xmm1; movaps 32(%rsp), %xmm2; movaps 48(%rsp), %xmm3\n"
        "  movaps 64(%rsp), %xmm4; movaps 80(%rsp), %xmm5; movaps 96(%rsp), %xmm6; movaps 112(%rsp), %xmm7\n"
        "  add $128, %rsp\n"
        "  pop %rax; pop %r9; pop %r8; pop %rcx; pop %rdx; pop %rsi; pop %rdi\n"
        "  jmp *%r11\n"
        ".size er_lazy_first, . - er_lazy_first\n"
        ".data\n"
        ".balign 8\n"
        ".globl er_lazy_slots\n"
        ".hidden er_lazy_slots\n"
        "er_lazy_slots:\n"
#define ER_LAZY(library, name)                                                                                         \
    ".text\n"                                                                                                          \
    ".globl " #name "\n"                                                                                               \
    ".hidden " #name "\n"                                                                                              \
    ".type " #name ", @function\n" #name ": jmp *1f(%rip)\n"                                                           \
    "2: lea 1f(%rip), %r11\n"                                                                                          \
    "  jmp er_lazy_first\n"                                                                                            \
    ".size " #name ", . - " #name "\n"                                                                                 \
    ".data\n"                                                                                                          \
    "1: .quad 2b\n"
#include "lazy.def"
#include "lazy_curl.def"
#ifndef EIRUN_OWN_TLS
#include "lazy_openssl.def"
#endif
#undef ER_LAZY
        ".text\n");

// Without it the program cannot go on, as if the loader had missed it at the start; so it ends as the loader would.
static void end_without(const char *why) {
    fprintf(stderr, "eirun: cannot load a library: %s\n", why);
    _exit(127);
}

static void fill_slots(enum library library, void *opened) {
    for (size_t i = 0; i < FUNCTIONS; i++) {
        if (functions[i].library == library) {
            void *function = dlsym(opened, functions[i].name);
            if (!function) {
                end_without(dlerror());
            }
            __atomic_store_n(&er_lazy_slots[i], function, __ATOMIC_RELEASE);
        }
    }
}

static void open_once(enum library library) {
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static bool is_open[LIBRARIES];
    pthread_mutex_lock(&mutex);
    if (library == SSL && !is_open[CRYPTO]) { // by itself it is bound in two thirds of the time
        (void)dlopen(files[CRYPTO], RTLD_LAZY | RTLD_LOCAL);
    }
    if (!is_open[library]) {
        void *opened = dlopen(files[library], RTLD_LAZY | RTLD_LOCAL);
        if (!opened) {
            end_without(dlerror());
        }
        fill_slots(library, opened);
        is_open[library] = true;
    }
    pthread_mutex_unlock(&mutex);
}

// Called by er_lazy_first alone.
void *er_lazy_find(void **slot);
__attribute__((used, visibility("hidden"))) void *er_lazy_find(void **slot) {
    open_once(functions[slot - er_lazy_slots].library);
    return __atomic_load_n(slot, __ATOMIC_ACQUIRE);
}

// libcurl starts libssh2 together with itself. No handle of ours speaks anything but HTTP, so it need not be there.
int libssh2_init(int flags);
__attribute__((visibility("hidden"))) int libssh2_init(int flags) { return (void)flags, 0; }

// The one thing that libcurl takes from its libraries that is no function: Kerberos' name for "a service of a host"
// (RFC 2744, section 4).
static const struct {
    unsigned length;
    const void *elements;
} service_of_host = {10, "\x2a\x86\x48\x86\xf7\x12\x01\x02\x01\x04"};
extern const void *GSS_C_NT_HOSTBASED_SERVICE;
__attribute__((visibility("hidden"))) const void *GSS_C_NT_HOSTBASED_SERVICE = &service_of_host;
