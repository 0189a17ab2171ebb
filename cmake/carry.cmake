# SPDX-License-Identifier: Apache-2.0
# Copies the libraries that PROGRAM and LIBRARY need to INTO, all but glibc, which belongs to the machine: a driver that is opened at run time is
# built against that one.
file(REMOVE_RECURSE ${INTO}) # or they would be found there
file(GET_RUNTIME_DEPENDENCIES
    EXECUTABLES ${PROGRAM}
    MODULES ${LIBRARY}
    RESOLVED_DEPENDENCIES_VAR found
    UNRESOLVED_DEPENDENCIES_VAR missing
    PRE_EXCLUDE_REGEXES "^(ld-linux|libc|libm|libdl|libpthread|librt)[.-]")
if(missing)
    message(FATAL_ERROR "cannot find ${missing}, which ${PROGRAM} needs")
endif()
file(COPY ${found} DESTINATION ${INTO} FOLLOW_SYMLINK_CHAIN)
