# SPDX-License-Identifier: Apache-2.0
# Writes ${OUT}: every file of ${FILES} (a list of absolute paths below ${ROOT}) as bytes, with its module's name.
# Text, not bytecode: tracebacks keep their lines and there is nothing to verify.
set(table "")
set(body "// Generated from lua/. Do not edit.\n#include \"embedded.h\"\n\n")
set(index 0)
foreach(file IN LISTS FILES)
    file(RELATIVE_PATH name ${ROOT} ${file})
    string(REGEX REPLACE "(/init)?\\.lua$" "" module ${name})
    string(REPLACE "/" "." module ${module})
    file(READ ${file} hex HEX)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
    string(APPEND body "static const unsigned char source_${index}[] = {${bytes}0};\n")
    string(APPEND table "    {\"${module}\", \"@${name}\", (const char *)source_${index}, sizeof source_${index} - 1},\n")
    math(EXPR index "${index} + 1")
endforeach()
string(APPEND body "\nconst struct er_embedded er_embedded[] = {\n${table}    {0},\n};\n")
file(WRITE ${OUT} "${body}")
