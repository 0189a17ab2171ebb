// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package arena keeps the program among the module's requirements.
package arena

import _ "github.com/kubeflow/arena/cmd/arena"
