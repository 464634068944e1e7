package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
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
		sniOnTLS: true, manyRoutes: true, filters: true, services: []string{serviceTCP, serviceUDP},
		ready:  sluiceReady,
		change: func(p *running) error { return sluiceChanging(p.deployment) },
		reload: func(p *running) error { return p.signal(syscall.SIGHUP) },
		command: func(d deployment) (*exec.Cmd, error) {
			if err := sluiceManifests(d); err != nil {
				return nil, err
			}
			cmd := exec.Command(path, sluiceArguments(d, manifestsOf(d))...)
			cmd.Dir = d.Dir
			if d.Filters {
				log, err := os.OpenFile(d.AccessLog(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600) // it is truncated (keepEmpty)
				if err != nil {
					return nil, err
				}
				cmd.Stdout = log // open until the harness ends: few runs have one
			}
			return cmd, nil
		},
	}, nil
}

// findSluiceNoRing is Sluice as it runs where a seccomp profile refuses io_uring.
func findSluiceNoRing(ctx context.Context, o options) (candidate, error) {
	c, err := findSluice(ctx, o)
	c.name += "-no-ring"
	with := c.command
	c.command = func(d deployment) (*exec.Cmd, error) {
		cmd, err := with(d)
		if err == nil {
			cmd.Args = append(cmd.Args, "--io-uring=off")
		}
		return cmd, err
	}
	return c, err
}

func manifestsOf(d deployment) string { return filepath.Join(d.Dir, "manifests") }

// sluiceManifests writes what the deployment's shape wants.
func sluiceManifests(d deployment) error {
	dir := manifestsOf(d)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := render("manifests/bench.yaml.tmpl", d, filepath.Join(dir, "bench.yaml")); err != nil {
		return err
	}
	if d.Filters {
		if err := render("manifests/filters.yaml.tmpl", d, filepath.Join(dir, "filters.yaml")); err != nil {
			return err
		}
	}
	if d.Services {
		if err := render("manifests/services.yaml.tmpl", d, filepath.Join(dir, "services.yaml")); err != nil {
			return err
		}
	}
	if d.Routes == 0 {
		return nil
	}
	if err := render("manifests/routes.json.tmpl", d, filepath.Join(dir, "routes.json")); err != nil {
		return err
	}
	return sluiceChanging(d)
}

// sluiceChanging puts the Ingress whose turn it is in place in one step, as every careful writer does.
func sluiceChanging(d deployment) error {
	next := filepath.Join(d.Dir, "changing.next")
	if err := render("manifests/changing.yaml.tmpl", d, next); err != nil {
		return err
	}
	return os.Rename(next, filepath.Join(manifestsOf(d), fmt.Sprintf("changing-%d.yaml", d.Turn())))
}

// twoLoops gives Sluice as many loops as rivals are given workers, on a machine of any size.
const twoLoops = "--loops=2"

func sluiceArguments(d deployment, manifests string) []string {
	arguments := []string{
		"--manifests=" + manifests,
		"--bind-address=" + d.Address,
		"--http-port=" + strconv.Itoa(d.Plain),
		"--https-port=" + strconv.Itoa(d.TLS),
		"--admin-address=" + at(d.Address, d.Admin),
		"--ingress-class=nginx",
		"--enable-ssl-passthrough",
		"--default-ssl-certificate=default/bench-tls",
		"--configmap=default/sluice",
		twoLoops,
	}
	if d.Services {
		arguments = append(arguments, "--tcp-services-configmap=default/tcp", "--udp-services-configmap=default/udp")
	}
	return arguments
}

// sluiceReady asks the admin page; it answers once the first snapshot serves.
func sluiceReady(ctx context.Context, d deployment) error {
	_, err := adminPage(ctx, d, "/readyz")
	return err
}

const adminPageMost = 64 << 20

// adminPage reads one of Sluice's admin pages.
func adminPage(ctx context.Context, d deployment, path string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at(d.Address, d.Admin)+path, nil)
	if err != nil {
		return "", err
	}
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", path, answer.Status)
	}
	page, err := io.ReadAll(io.LimitReader(answer.Body, adminPageMost))
	return string(page), err
}
