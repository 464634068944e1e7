package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	probeTimeout   = time.Second
	probeFirst     = 50 * time.Millisecond // how often while a pod is not ready yet; a kubelet is slower
	probeBodyBytes = 64 << 10
)

// awaitReady waits until all readiness probes pass; where there is none, until something listens.
func (p *pod) awaitReady(ctx context.Context) {
	if p.hasProbe() {
		for !p.probe(ctx) && p.sleep(probeFirst) {
		}
		return
	}
	for deadline := time.Now().Add(listenPatience); time.Now().Before(deadline); {
		if p.Spec.HostNetwork || !p.hasProgram() || listening(p.networkFiles()) || !p.sleep(listenPoll) {
			return
		}
	}
}

// probeForever keeps the status true; it does nothing for pods without a probe.
func (p *pod) probeForever(ctx context.Context) {
	if !p.hasProbe() {
		return
	}
	period := time.Second
	for i := range p.Spec.Containers {
		if r := p.Spec.Containers[i].ReadinessProbe; r != nil && r.PeriodSeconds > 0 {
			period = time.Duration(r.PeriodSeconds) * time.Second
		}
	}
	for p.sleep(period) {
		p.mu.Lock()
		was := p.ready
		p.mu.Unlock()
		if ok := p.probe(ctx); ok != was {
			p.writeStatus(ctx, ok)
		}
	}
}

func (p *pod) hasProgram() bool {
	for i := range p.Spec.Containers {
		if p.kubelet.images.find(p.Spec.Containers[i].Image) != nil {
			return true
		}
	}
	return false
}

func (p *pod) hasProbe() bool {
	for i := range p.Spec.Containers {
		if c := &p.Spec.Containers[i]; c.ReadinessProbe != nil && p.kubelet.images.find(c.Image) != nil {
			return true
		}
	}
	return false
}

// probe tells whether the readiness probes of all containers pass.
func (p *pod) probe(ctx context.Context) bool {
	for i := range p.Spec.Containers {
		c := &p.Spec.Containers[i]
		if c.ReadinessProbe == nil || p.kubelet.images.find(c.Image) == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, max(probeTimeout, time.Duration(c.ReadinessProbe.TimeoutSeconds)*time.Second))
		err := p.probeContainer(ctx, c)
		cancel()
		if err != nil {
			return false
		}
	}
	return true
}

func (p *pod) probeContainer(ctx context.Context, c *corev1.Container) error {
	switch r := c.ReadinessProbe; {
	case r.Exec != nil:
		return p.exec(ctx, c, r.Exec.Command)
	case r.HTTPGet != nil:
		host := r.HTTPGet.Host
		if host == "" {
			host = p.address4.String()
		}
		scheme := strings.ToLower(string(r.HTTPGet.Scheme))
		return get(ctx, scheme+"://"+net.JoinHostPort(host, portNumber(c, r.HTTPGet.Port.String()))+r.HTTPGet.Path)
	case r.TCPSocket != nil:
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(p.address4.String(), portNumber(c, r.TCPSocket.Port.String())))
		if err == nil {
			_ = conn.Close()
		}
		return err
	}
	return nil // gRPC: nobody needs it here
}

var probeClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
	TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // as a kubelet's

func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := probeClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, probeBodyBytes))
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}

// portNumber finds a container's port by its name.
func portNumber(c *corev1.Container, port string) string {
	for _, p := range c.Ports {
		if p.Name == port {
			return strconv.Itoa(int(p.ContainerPort))
		}
	}
	return port
}

// listening tells whether a TCP socket listens in a network namespace, given as its directory in /proc.
func listening(dir string) bool {
	const stateListen = "0A"
	for _, protocol := range []string{"tcp", "tcp6"} {
		f, err := os.Open(dir + protocol)
		if err != nil {
			continue
		}
		found := false
		for lines := bufio.NewScanner(f); lines.Scan() && !found; {
			words := strings.Fields(lines.Text())
			found = len(words) > 3 && words[3] == stateListen
		}
		_ = f.Close()
		if found {
			return true
		}
	}
	return false
}
