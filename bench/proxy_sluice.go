package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// findSluice finds the binary. One that does not know the command "version" is measured all the same.
func findSluice(ctx context.Context, o options) (candidate, error) {
	path, err := exec.LookPath(o.sluice)
	if err != nil {
		return candidate{}, err
	}
	if path, err = filepath.Abs(path); err != nil { // it runs in another directory
		return candidate{}, err
	}
	version := "unknown"
	if printed, err := output(ctx, path, "version"); err == nil && printed != "" {
		version = strings.TrimPrefix(firstLine(printed), subject+" ")
	}
	return candidate{
		name:     "sluice",
		version:  version,
		sniOnTLS: true,
		ready:    sluiceReady,
		command: func(d deployment) (*exec.Cmd, error) {
			manifests := filepath.Join(d.Dir, "manifests")
			if err := os.Mkdir(manifests, 0o700); err != nil {
				return nil, err
			}
			if err := render("manifests/bench.yaml.tmpl", d, filepath.Join(manifests, "bench.yaml")); err != nil {
				return nil, err
			}
			cmd := exec.Command(path, sluiceArguments(d, manifests)...)
			cmd.Dir = d.Dir
			return cmd, nil
		},
	}, nil
}

func sluiceArguments(d deployment, manifests string) []string {
	return []string{
		"--manifests=" + manifests,
		"--bind-address=127.0.0.1",
		"--http-port=" + strconv.Itoa(d.Plain),
		"--https-port=" + strconv.Itoa(d.TLS),
		"--admin-address=" + local(d.Admin),
		"--ingress-class=nginx",
		"--enable-ssl-passthrough",
		"--default-ssl-certificate=default/bench-tls",
		"--configmap=default/sluice",
	}
}

// sluiceReady asks the admin page; it answers once the first snapshot serves.
func sluiceReady(ctx context.Context, d deployment) error {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+local(d.Admin)+"/readyz", nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("/readyz: %s", answer.Status)
	}
	return nil
}
