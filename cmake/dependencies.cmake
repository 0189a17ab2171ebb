# SPDX-License-Identifier: Apache-2.0
# Debian 12's packages; each is an imported target of pkg-config's.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(LUA REQUIRED IMPORTED_TARGET lua5.4)
pkg_check_modules(UV REQUIRED IMPORTED_TARGET libuv)
pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl)
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(NGHTTP2 REQUIRED IMPORTED_TARGET libnghttp2)
pkg_check_modules(OPENSSL REQUIRED IMPORTED_TARGET openssl)
pkg_check_modules(SQLITE REQUIRED IMPORTED_TARGET sqlite3)
pkg_check_modules(ISAL REQUIRED IMPORTED_TARGET libisal)

# Small and needed by every run, so they go into the program: each library that the loader has to map and bind costs a tenth of a
# millisecond at each start.
foreach(package LUA=liblua5.4.a UV=libuv_a.a YAML=libyaml.a JANSSON=libjansson.a)
    string(REPLACE "=" ";" package ${package})
    list(GET package 0 name)
    list(GET package 1 archive)
    find_library(${name}_STATIC ${archive} REQUIRED)
    set_target_properties(PkgConfig::${name} PROPERTIES INTERFACE_LINK_LIBRARIES "${${name}_STATIC};m;${CMAKE_DL_LIBS};Threads::Threads")
endforeach()

# core/lazy.c opens these at the first call into them; lazy_X is what compiles against X. Its stubs are written for one processor:
# on others the libraries are linked as usual.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
    set(EIRUN_LAZY ON)
    option(EIRUN_OWN_TLS "OpenSSL as part of the program: what talks to a server starts 1.2 ms sooner; its updates need a new build" ON)
    find_library(CURL_STATIC libcurl.a REQUIRED) # its shared sibling brings thirty libraries, most for what is no HTTP
endif()
foreach(package OPENSSL SQLITE ISAL NGHTTP2)
    add_library(lazy_${package} INTERFACE)
    target_include_directories(lazy_${package} SYSTEM INTERFACE ${${package}_INCLUDE_DIRS})
    if(NOT EIRUN_LAZY)
        target_link_libraries(lazy_${package} INTERFACE PkgConfig::${package})
    endif()
endforeach()
if(EIRUN_OWN_TLS)
    find_library(SSL_STATIC libssl.a REQUIRED)
    find_library(CRYPTO_STATIC libcrypto.a REQUIRED)
    target_link_libraries(lazy_OPENSSL INTERFACE ${SSL_STATIC} ${CRYPTO_STATIC} Threads::Threads ${CMAKE_DL_LIBS})
endif()

# lua-cjson goes into the program: playbooks may require it, and the machine that runs them need not have it.
find_library(CJSON_STATIC liblua5.4-cjson.a REQUIRED)

# Debian ships llhttp as C sources inside node-llhttp.
set(LLHTTP_SOURCES /usr/share/llhttp/api.c /usr/share/llhttp/http.c /usr/share/llhttp/llhttp.c)
find_path(LLHTTP_INCLUDE llhttp.h PATHS /usr/share/include/llhttp REQUIRED)
add_library(llhttp STATIC ${LLHTTP_SOURCES})
target_include_directories(llhttp SYSTEM PUBLIC ${LLHTTP_INCLUDE})
target_compile_definitions(llhttp PRIVATE LLHTTP_STRICT_MODE=1)
