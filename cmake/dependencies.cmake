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

# lua-cjson goes into the program: playbooks may require it, and the machine that runs them need not have it.
find_library(CJSON_STATIC liblua5.4-cjson.a REQUIRED)

# Debian ships llhttp as C sources inside node-llhttp.
set(LLHTTP_SOURCES /usr/share/llhttp/api.c /usr/share/llhttp/http.c /usr/share/llhttp/llhttp.c)
find_path(LLHTTP_INCLUDE llhttp.h PATHS /usr/share/include/llhttp REQUIRED)
add_library(llhttp STATIC ${LLHTTP_SOURCES})
target_include_directories(llhttp SYSTEM PUBLIC ${LLHTTP_INCLUDE})
target_compile_definitions(llhttp PRIVATE LLHTTP_STRICT_MODE=1)
