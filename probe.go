package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/sluiceproxy/sluice/listen"
)

// probeAnswerMax is how much of an answer is shown.
const probeAnswerMax = 16 << 20

// probing is what `sluice probe` is told.
type probing struct {
	path    string
	timeout time.Duration
}

// probeCommand asks the admin server of a process for a page: probes of a container whose image has no other program, and
// whose network is the node's, where an address may be another pod's.
func probeCommand(args []string, stdout, _ io.Writer) error {
	p := probing{path: "/readyz", timeout: time.Second}
	o := defaultOptions()
	if err := parseFlags(&o, args, p.flags()); err != nil {
		return err
	}
	if o.help {
		var b strings.Builder
		b.WriteString("sluice probe asks a process that serves how it is: exit status 0 and the page, or 1 and why not.\n")
		for _, f := range p.flags() {
			writeFlag(&b, f)
		}
		_, err := io.WriteString(stdout, b.String())
		return err
	}
	if o.adminAddress == "" {
		return usage{errors.New("--admin-address= names nobody to ask")}
	}
	return p.ask(o.adminAddress, stdout)
}

func (p *probing) flags() []option {
	return []option{
		{"Whom to ask, and for what", "admin-address", "HOST:PORT", "as the process was told; or unix:///PATH (default 127.0.0.1:10254)",
			func(o *options, v string) error { o.adminAddress = v; return checkAdminAddress(v) }},
		{"", "path", "PATH", "the page (default /readyz)",
			func(_ *options, v string) error {
				p.path = v
				if !strings.HasPrefix(v, "/") {
					return errors.New("give a path, such as /healthz")
				}
				return nil
			}},
		{"", "timeout", "SECONDS", "for the whole answer (default 1)",
			func(_ *options, v string) (err error) { p.timeout, err = parseSeconds(v); return err }},
		{"", "help", "", "this list", func(o *options, v string) error { return setBool(&o.help, v) }},
	}
}

func (p *probing) ask(address string, stdout io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
	defer cancel()
	host := address
	client := &http.Client{Transport: &http.Transport{Proxy: nil}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if path, ok := listen.UnixPath(address); ok {
		host = "admin"
		client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+p.path, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask %s: %w", address, errors.Unwrap(err))
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusOK {
		_, err = io.Copy(stdout, io.LimitReader(answer.Body, probeAnswerMax))
		return err
	}
	why, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
	return fmt.Errorf("%s%s: %s: %s", address, p.path, answer.Status, strings.TrimSpace(string(why)))
}
