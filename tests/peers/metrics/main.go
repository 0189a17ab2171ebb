// SPDX-License-Identifier: Apache-2.0
// Reads each line of metrics with Prometheus' own parser and compares: what it takes, eirun took the same.
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

type sample struct {
	Name      string
	Labels    [][2]string
	Value     string
	Timestamp *string
}

type row struct {
	Line   string
	Sample *sample
}

func plain(text string) string {
	bytes, err := hex.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return string(bytes)
}

func number(text string) float64 {
	value, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic(err)
	}
	return value
}

func same(a, b float64) bool {
	return math.Float64bits(a) == math.Float64bits(b) || math.IsNaN(a) && math.IsNaN(b)
}

func read(line string) (string, *dto.Metric) {
	var parser expfmt.TextParser
	families, err := parser.TextToMetricFamilies(strings.NewReader(line + "\n"))
	if err != nil {
		return "", nil
	}
	for name, family := range families {
		return name, family.Metric[0]
	}
	return "", nil
}

func difference(ours *sample, name string, theirs *dto.Metric) string {
	if ours == nil {
		return "eirun took it for no sample"
	}
	if plain(ours.Name) != name || !same(number(ours.Value), theirs.GetUntyped().GetValue()) {
		return "name or value"
	}
	if (ours.Timestamp == nil) != (theirs.TimestampMs == nil) ||
		ours.Timestamp != nil && number(*ours.Timestamp) != float64(theirs.GetTimestampMs()) {
		return "time"
	}
	found := map[string]string{}
	for _, label := range ours.Labels {
		found[plain(label[0])] = plain(label[1])
	}
	if len(found) != len(theirs.Label) {
		return "number of labels"
	}
	for _, label := range theirs.Label {
		if value, there := found[label.GetName()]; !there || value != label.GetValue() {
			return "label " + label.GetName()
		}
	}
	return ""
}

func main() {
	both, neither, more, wrong := 0, 0, 0, 0
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var one row
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			panic(err)
		}
		line := plain(one.Line)
		name, theirs := read(line)
		switch {
		case theirs != nil:
			both++
			if what := difference(one.Sample, name, theirs); what != "" {
				wrong++
				fmt.Printf("%s: %q\n", what, line)
			}
		case one.Sample != nil:
			more++
			if os.Getenv("SHOW") != "" {
				fmt.Printf("only eirun: %q\n", line)
			}
		default:
			neither++
		}
	}
	fmt.Printf("%d lines that Prometheus takes, %d that only eirun takes, %d that neither does, %d differences\n", both, more, neither, wrong)
	if wrong > 0 || both == 0 || neither == 0 {
		os.Exit(1)
	}
}
