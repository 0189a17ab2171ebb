# SPDX-License-Identifier: Apache-2.0
"""The emulator's tests of controllers and scheduler on a real control plane."""
import suite_emulator

finish = suite_emulator.finish
TESTS = [suite_emulator.live(name) for name in suite_emulator.PLANES]
