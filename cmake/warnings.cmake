# SPDX-License-Identifier: Apache-2.0
# One interface target: every target of ours links it, no library of others does.
add_library(eirun_warnings INTERFACE)
target_compile_options(eirun_warnings INTERFACE
    -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Werror
    -fno-common -fvisibility=hidden -fstack-protector-strong)
target_compile_definitions(eirun_warnings INTERFACE _GNU_SOURCE)

if(EIRUN_SANITIZE)
    target_compile_options(eirun_warnings INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(eirun_warnings INTERFACE -fsanitize=address,undefined)
endif()

if(EIRUN_SANITIZE_THREADS)
    target_compile_options(eirun_warnings INTERFACE -fsanitize=thread -fno-omit-frame-pointer)
    target_link_options(eirun_warnings INTERFACE -fsanitize=thread)
endif()
