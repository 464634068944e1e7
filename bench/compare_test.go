package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// compareFake runs the whole command against the fake Sluice and answers its report.
func compareFake(t *testing.T, args ...string) (report, string, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	args = append(args, "--proxies=sluice", "--sluice="+self, "--out="+dir, "--rounds=1", "--duration=500ms", "--load=own")
	var out, progress strings.Builder
	failure := compareCommand(t.Context(), args, &out, &progress)
	files, _ := filepath.Glob(filepath.Join(dir, "*.json"))
	if len(files) != 1 {
		t.Fatalf("%d JSON files; %v\n%s", len(files), failure, progress.String())
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	checkLeftovers(t, temporary)
	return r, out.String(), failure
}

// checkLeftovers wants no file and no child left behind.
func checkLeftovers(t *testing.T, temporary string) {
	t.Helper()
	if left, _ := os.ReadDir(temporary); len(left) > 0 {
		t.Errorf("left in the temporary directory: %v", left)
	}
	tree, err := processTree(os.Getpid())
	if err != nil || len(tree) != 1 {
		t.Errorf("processes left: %v, %v", tree, err)
	}
}

func TestCompare(t *testing.T) {
	if testing.Short() {
		t.Skip("makes some seconds of load")
	}
	r, text, err := compareFake(t, "--scenarios=h1-c1,tls-c64,rate,h2-10x10,websocket,handshake,idle-mem", "--idle-conns=40", "--rate=200")
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 9 || r.Versions["sluice"] != "fake 1.0" {
		t.Fatalf("%d rows, versions %v", len(r.Rows), r.Versions)
	}
	for _, row := range r.Rows {
		c := row.Proxies[0]
		if len(c.Rounds) != 1 {
			t.Errorf("%s: %d rounds, failed %q", row.Name, len(c.Rounds), c.Failed)
			continue
		}
		if m := c.Rounds[0]; !m.clean() || row.Unit.Name != unitMemory.Name && (m.Cost <= 0 || m.Rate <= 0 || m.Requests == 0) {
			t.Errorf("%s: %+v", row.Name, m)
		}
	}
	checkTables(t, text)
}

// TestCompareFindsOutWhatIsNotBuilt wants a row that the proxy cannot do to be told apart from one that failed.
func TestCompareFindsOutWhatIsNotBuilt(t *testing.T) {
	t.Setenv(fakeOld, "1")
	r, text, err := compareFake(t, "--scenarios=h2-10x10,grpc,idle-mem-h2", "--idle-conns=40")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range r.Rows {
		if c := row.Proxies[0]; !strings.Contains(c.Skipped, "no HTTP/2") || c.Failed != "" || len(c.Rounds) > 0 {
			t.Errorf("%s: %+v", row.Name, c)
		}
	}
	if !strings.Contains(text, "not built yet") {
		t.Errorf("the table does not say it:\n%s", text)
	}
}

func TestCompareNoticesWrongAnswers(t *testing.T) {
	if testing.Short() {
		t.Skip("makes some seconds of load")
	}
	t.Setenv(fakeSpoilt, "1")
	r, _, err := compareFake(t, "--scenarios=h1-c1")
	if err == nil {
		t.Error("the command did not fail")
	}
	if m := r.Rows[0].Proxies[0].Rounds; len(m) != 1 || m[0].Bad == 0 {
		t.Errorf("%+v", m)
	}
}

func TestCompareSurvivesAProxyThatEnds(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho no such flag >&2\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	var out, progress strings.Builder
	err := compareCommand(t.Context(), []string{
		"--proxies=sluice", "--sluice=" + broken, "--out=" + dir, "--rounds=1", "--scenarios=h1-c1",
	}, &out, &progress)
	if err == nil || !strings.Contains(progress.String(), "no such flag") {
		t.Errorf("%v\n%s", err, progress.String())
	}
	checkTables(t, out.String())
}
