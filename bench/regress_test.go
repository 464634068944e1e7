package main

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// build is a column of costs by round.
func build(name string, costs ...float64) column {
	c := column{Name: name}
	for i, cost := range costs {
		c.Rounds = append(c.Rounds, measurement{Round: i + 1, Cost: cost})
	}
	return c
}

func TestJudgeRegress(t *testing.T) {
	unableOld, unableNew := column{Name: nameOld, Skipped: "it cannot"}, column{Name: nameNew, Skipped: "it cannot"}
	failed := column{Name: nameNew, Failed: "it ended"}
	wrong := build(nameNew, 10, 10, 10)
	wrong.Rounds[1].Bad = 1
	steady := build(nameOld, 10, 10, 10)
	tests := []struct {
		name          string
		before, after column
		want          string
		bad           bool
	}{
		{"equal", steady, build(nameNew, 10, 10, 10), regressFine, false},
		{"two of three are no regression", steady, build(nameNew, 20, 20, 10.9), regressFine, false},
		{"three of three", build(nameOld, 10, 20, 30), build(nameNew, 11.1, 22.2, 33.3), regressWorse, true},
		{"the machine drifts", build(nameOld, 10, 20, 40), build(nameNew, 10, 20, 40), regressFine, false},
		{"cheaper", steady, build(nameNew, 5, 5, 5), regressFine, false},
		{"a feature is new", unableOld, build(nameNew, 10, 10, 10), regressUnable, false},
		{"a feature is lost", steady, unableNew, regressLost, true},
		{"neither can", unableOld, unableNew, regressUnable, false},
		{"the new one failed", steady, failed, "", true},
		{"wrong answers", steady, wrong, "", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var out strings.Builder
			err := judgeRegress([]row{{Name: "h1-c64", Unit: unitRequest, Proxies: []column{test.before, test.after}}}, &out)
			if (err != nil) != test.bad || !strings.Contains(out.String(), test.want) {
				t.Errorf("%v\n%s", err, out.String())
			}
			checkTables(t, out.String())
		})
	}
}

// TestRegress compares the fake Sluice with itself, and with one that costs more by far.
func TestRegress(t *testing.T) {
	if testing.Short() {
		t.Skip("makes some seconds of load")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	slow := t.TempDir() + "/slow"
	script := "#!/bin/sh\n" + fakeWaste + "=1 exec " + self + " \"$@\"\n"
	if err := os.WriteFile(slow, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]bool{self: false, slow: true} {
		var out, progress strings.Builder
		err := regressCommand(t.Context(), []string{"--old=" + self, "--new=" + name, "--scenarios=h1-c64", "--duration=1s", "--rounds=3"}, &out, &progress)
		if bad != errors.Is(err, errRegression) || !bad && err != nil {
			t.Errorf("%v\n%s\n%s", err, out.String(), progress.String())
		}
	}
}
