package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
)

// Rivals that are compared where they are installed. Each is given two processors, like nginx's and HAProxy's workers.

// caddyConfig is what rivals/caddy.json.tmpl may use.
type caddyConfig struct {
	deployment
	Calls bool // to a backend of gRPC
	Port  int  // of the server that is being described
}

func (c caddyConfig) At(port int) caddyConfig {
	c.Port = port
	return c
}

func (c caddyConfig) WithCalls() caddyConfig {
	c.Calls = true
	return c
}

var errNoSNIPass = errors.New("this Caddy has no pass-through by SNI: that is a plugin's")

func findCaddy(ctx context.Context, o options) (candidate, error) {
	path, version, err := findBinary(ctx, o.caddy, "version")
	if err != nil {
		return candidate{}, err
	}
	return candidate{
		name: "caddy", version: version, passThrough: errNoSNIPass,
		command: func(d deployment) (*exec.Cmd, error) {
			file := filepath.Join(d.Dir, "caddy.json")
			if err := render("rivals/caddy.json.tmpl", caddyConfig{deployment: d}, file); err != nil {
				return nil, err
			}
			cmd := exec.Command(path, "run", "--config", file)
			cmd.Env = append(os.Environ(), "GOMAXPROCS=2", "HOME="+d.Dir, "XDG_DATA_HOME="+d.Dir, "XDG_CONFIG_HOME="+d.Dir)
			return cmd, nil
		},
	}, nil
}

func findTraefik(ctx context.Context, o options) (candidate, error) {
	path, version, err := findBinary(ctx, o.traefik, "version")
	if err != nil {
		return candidate{}, err
	}
	return candidate{
		name: "traefik", version: version, sniOnTLS: true,
		command: func(d deployment) (*exec.Cmd, error) {
			file := filepath.Join(d.Dir, "traefik.yml")
			if err := errors.Join(
				render("rivals/traefik.yml.tmpl", d, file),
				render("rivals/traefik-routes.yml.tmpl", d, filepath.Join(d.Dir, "routes.yml")),
			); err != nil {
				return nil, err
			}
			cmd := exec.Command(path, "--configFile="+file)
			cmd.Env = append(os.Environ(), "GOMAXPROCS=2")
			return cmd, nil
		},
	}, nil
}

func findEnvoy(ctx context.Context, o options) (candidate, error) {
	path, version, err := findBinary(ctx, o.envoy, "--version")
	if err != nil {
		return candidate{}, err
	}
	return candidate{
		name: "envoy", version: version, sniOnTLS: true,
		command: func(d deployment) (*exec.Cmd, error) {
			file := filepath.Join(d.Dir, "envoy.yaml")
			if err := render("rivals/envoy.yaml.tmpl", d, file); err != nil {
				return nil, err
			}
			return exec.Command(path, "-c", file, "--concurrency", "2", "--disable-hot-restart", "--log-level", "error"), nil
		},
	}, nil
}

// findBinary finds a program and the version that it prints.
func findBinary(ctx context.Context, name string, arguments ...string) (path, version string, err error) {
	if path, err = exec.LookPath(name); err != nil {
		return "", "", err
	}
	printed, err := output(ctx, path, arguments...)
	if err != nil {
		return "", "", err
	}
	if version = versionNumber.FindString(printed); version == "" {
		return "", "", errNoVersion
	}
	return path, version, nil
}
