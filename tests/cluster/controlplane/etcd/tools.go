// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package tools names the program that the tests build, so that go mod tidy keeps it.
package tools

import _ "go.etcd.io/etcd/server/v3"
