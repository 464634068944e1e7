package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// nginxConfig is what rivals/nginx.conf.tmpl may use.
type nginxConfig struct {
	deployment
	Curves string
	Root   bool
	Stream bool
	Module string // file of the stream module, when that is not built in
	HTTP2  string // how HTTP/2 is switched on: "on" by the directive, "listen" by the parameter, "" not at all
}

var (
	nginxModulesPath = regexp.MustCompile(`--modules-path=(\S+)`)
	errNoPlainHTTP2  = errors.New("this nginx speaks HTTP/2 without TLS only on a port of its own")
	errNoStream      = errors.New("this nginx has no stream module with ssl_preread (--nginx-modules=DIR tells where it is)")
)

// findNginx asks the binary what it is and looks for its stream module.
func findNginx(ctx context.Context, o options) (candidate, error) {
	path, err := exec.LookPath(o.nginx)
	if err != nil {
		return candidate{}, err
	}
	printed, err := output(ctx, path, "-V")
	if err != nil {
		return candidate{}, err
	}
	version := versionNumber.FindString(printed)
	if version == "" {
		return candidate{}, errNoVersion
	}
	c := candidate{
		name: "nginx", version: version, manyRoutes: true, filters: true, quit: syscall.SIGQUIT,
		change: func(p *running) error { return errors.Join(nginxChanging(p.deployment), p.signal(syscall.SIGHUP)) },
		reload: func(p *running) error { return p.signal(syscall.SIGHUP) },
	}
	module, err := nginxStream(printed, o.modules)
	if c.passThrough = err; err == nil {
		c.services = []string{serviceTCP, serviceUDP}
	}
	if nginxHTTP2(version, printed) != "on" {
		c.plainHTTP2 = errNoPlainHTTP2
	}
	c.command = func(d deployment) (*exec.Cmd, error) {
		config := nginxConfig{
			deployment: d,
			Curves:     curvesFor(printed, d.Modern),
			Root:       os.Geteuid() == 0, // or its workers may not enter the run's directory
			Stream:     c.passThrough == nil,
			Module:     module,
			HTTP2:      nginxHTTP2(version, printed),
		}
		file := filepath.Join(d.Dir, "nginx.conf")
		if err := render("rivals/nginx.conf.tmpl", config, file); err != nil {
			return nil, err
		}
		if d.Routes > 0 {
			if err := nginxChanging(d); err != nil {
				return nil, err
			}
		}
		return exec.Command(path, "-p", d.Dir, "-c", file, "-e", "stderr"), nil
	}
	return c, nil
}

func nginxChanging(d deployment) error {
	return render("rivals/nginx-changing.conf.tmpl", d, filepath.Join(d.Dir, "changing.conf"))
}

// nginxHTTP2 tells how this nginx is told to speak HTTP/2: by a directive of its own since 1.25.1.
func nginxHTTP2(version, printed string) string {
	switch {
	case !strings.Contains(printed, "--with-http_v2_module"):
		return ""
	case olderThan(version, 1, 25):
		return "listen"
	}
	return "on"
}

// nginxStream finds the stream module by the configure arguments: built in (no file is answered) or dynamic.
func nginxStream(printed, modules string) (string, error) {
	arguments := strings.Fields(printed)
	preread, dynamic, builtIn := false, false, false
	for _, a := range arguments {
		preread = preread || a == "--with-stream_ssl_preread_module"
		dynamic = dynamic || a == "--with-stream=dynamic"
		builtIn = builtIn || a == "--with-stream"
	}
	switch {
	case !preread:
		return "", errNoStream
	case builtIn:
		return "", nil
	case !dynamic:
		return "", errNoStream
	}
	if modules == "" {
		if m := nginxModulesPath.FindStringSubmatch(printed); m != nil {
			modules = m[1]
		}
	}
	file, err := filepath.Abs(filepath.Join(modules, "ngx_stream_module.so"))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(file); err != nil {
		return "", errNoStream
	}
	return file, nil
}
