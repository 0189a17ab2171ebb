-- SPDX-License-Identifier: Apache-2.0
return require("eirun.cli.kube.nodes").drain
