# SPDX-License-Identifier: Apache-2.0
# The manual page and the completions are made by the program itself from its option table.
set(generated ${PROJECT_BINARY_DIR}/share)
set(made ${generated}/eirun.1 ${generated}/eirun.bash ${generated}/_eirun)
add_custom_command(
    OUTPUT ${made}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${generated}
    COMMAND sh -c "$<TARGET_FILE:eirun> man > ${generated}/eirun.1"
    COMMAND sh -c "$<TARGET_FILE:eirun> completion bash > ${generated}/eirun.bash"
    COMMAND sh -c "$<TARGET_FILE:eirun> completion zsh > ${generated}/_eirun"
    DEPENDS eirun
    VERBATIM)
add_custom_target(eirun_share ALL DEPENDS ${made})

install(TARGETS eirun RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY playbooks/ DESTINATION ${CMAKE_INSTALL_DATADIR}/eirun/playbooks)
install(FILES README.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs)
install(FILES ${generated}/eirun.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${generated}/eirun.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME eirun)
install(FILES ${generated}/_eirun DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME eirun)
set(CPACK_PACKAGE_CONTACT "eirun maintainers <maintainers@eirun.example>")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# What shlibdeps does not see: libraries that are opened at run time, those of libcurl's among them, and packed relocations.
set(CPACK_DEBIAN_PACKAGE_DEPENDS "libc6 (>= 2.36), libcurl4, libsqlite3-0, libisal2, libnghttp2-14")
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
include(CPack)
