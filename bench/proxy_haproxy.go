package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// haproxyConfig is what rivals/haproxy.cfg.tmpl may use.
type haproxyConfig struct {
	deployment
	Curves string
}

// findHAProxy asks the binary what it is.
func findHAProxy(ctx context.Context, o options) (candidate, error) {
	path, err := exec.LookPath(o.haproxy)
	if err != nil {
		return candidate{}, err
	}
	printed, err := output(ctx, path, "-vv")
	if err != nil {
		return candidate{}, err
	}
	version := versionNumber.FindString(printed)
	if version == "" {
		return candidate{}, errNoVersion
	}
	return candidate{
		name:    "haproxy",
		version: version, manyRoutes: true, services: []string{serviceTCP}, quit: syscall.SIGUSR1,
		command: func(d deployment) (*exec.Cmd, error) {
			file := filepath.Join(d.Dir, "haproxy.cfg")
			config := haproxyConfig{deployment: d, Curves: curvesFor(printed, d.Modern)}
			if err := render("rivals/haproxy.cfg.tmpl", config, file); err != nil {
				return nil, err
			}
			if d.Routes > 0 {
				if err := render("rivals/haproxy-routes.map.tmpl", d, filepath.Join(d.Dir, "routes.map")); err != nil {
					return nil, err
				}
			}
			cmd := exec.Command(path, "-db", "-f", file)
			if d.Modern {
				return cmd, nil
			}
			openssl := filepath.Join(d.Dir, "openssl.cnf")
			cmd.Env = append(os.Environ(), "OPENSSL_CONF="+openssl)
			return cmd, render("rivals/openssl.cnf", config, openssl)
		},
	}, nil
}
