package main

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

const (
	volumeRetry    = 300 * time.Millisecond // a Secret or ConfigMap may come later
	restartBackoff = time.Second
	listenPatience = 3 * time.Second // without a probe: how long to wait for a first listening socket
	listenPoll     = 10 * time.Millisecond
	logTailBytes   = 500
)

// pod is a Pod of this node and its processes.
type pod struct {
	*corev1.Pod
	kubelet  *kubelet
	address4 netip.Addr // the node's with hostNetwork
	address6 netip.Addr // invalid: none
	dir      string     // volumes and logs
	ending   bool       // guarded by kubelet.mu

	stop chan struct{} // closed when it is to end
	once sync.Once

	mu         sync.Mutex
	holder     *exec.Cmd // keeps the network namespace; nil with hostNetwork
	containers map[string]*process
	ready      bool
}

// process is one container's program.
type process struct {
	cmd      *exec.Cmd
	done     chan struct{}
	restarts int32
	exited   bool // guarded by pod.mu
}

func newPod(k *kubelet, p *corev1.Pod) *pod {
	return &pod{Pod: p, kubelet: k, dir: filepath.Join(k.dir, string(p.UID)), stop: make(chan struct{}),
		containers: map[string]*process{}}
}

func (p *pod) title() string { return p.Namespace + "/" + p.Name }

func (p *pod) stopped() bool {
	select {
	case <-p.stop:
		return true
	default:
		return false
	}
}

// sleep waits; false: the pod is to end.
func (p *pod) sleep(d time.Duration) bool {
	select {
	case <-p.stop:
		return false
	case <-time.After(d):
		return true
	}
}

// run brings a pod up and keeps its status true.
func (p *pod) run(ctx context.Context) {
	began := time.Now()
	if err := p.prepare(ctx); err != nil {
		log.Printf("%s: %v", p.title(), err)
		p.writeStatus(ctx, false)
		return
	}
	for i := range p.Spec.Containers {
		c := &p.Spec.Containers[i]
		if p.kubelet.images.find(c.Image) == nil {
			log.Printf("%s: no program stands for image %s: it runs nothing and counts as running", p.title(), c.Image)
			continue
		}
		go p.supervise(ctx, c)
	}
	p.awaitReady(ctx)
	p.writeStatus(ctx, true)
	log.Printf("%s: ready at %v in %v", p.title(), p.address4, time.Since(began).Round(time.Millisecond))
	p.probeForever(ctx)
}

// prepare gives the pod its addresses, volumes and network.
func (p *pod) prepare(ctx context.Context) (err error) {
	n := p.kubelet.network
	if p.Spec.HostNetwork {
		p.address4 = n.gateway4.Addr()
	} else if p.address4, p.address6, err = n.allocate(); err != nil {
		return err
	}
	for {
		if err = p.makeVolumes(ctx); err == nil {
			break
		}
		log.Printf("%s: volumes: %v", p.title(), err)
		if !p.sleep(volumeRetry) {
			return err
		}
	}
	if p.Spec.HostNetwork {
		return nil
	}
	holder, err := n.sandbox(p.address4, p.address6)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	p.mu.Lock()
	p.holder = holder
	p.mu.Unlock()
	return nil
}

// supervise runs one container and starts it again when it ends.
func (p *pod) supervise(ctx context.Context, c *corev1.Container) {
	for n := int32(0); !p.stopped(); n++ {
		ended, err := p.startContainer(ctx, c, n)
		if err != nil {
			log.Printf("%s: %s: %v", p.title(), c.Name, err)
		} else {
			<-ended.done
		}
		if p.stopped() {
			return
		}
		if err == nil {
			log.Printf("%s: %s ended (%v), again in %v: %s", p.title(), c.Name, ended.cmd.ProcessState, restartBackoff, p.logTail(c.Name))
		}
		p.writeStatus(ctx, false)
		if p.sleep(restartBackoff) {
			go func() {
				p.awaitReady(ctx)
				p.writeStatus(ctx, true)
			}()
		}
	}
}

// startContainer starts a container's program; done is closed when it has ended.
func (p *pod) startContainer(ctx context.Context, c *corev1.Container, restarts int32) (*process, error) {
	env, err := p.environment(ctx, c)
	if err != nil {
		return nil, err
	}
	out, err := os.OpenFile(filepath.Join(p.dir, c.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd, err := p.command(c, p.argv(c, env), env)
	if err != nil {
		return nil, err
	}
	w := &stamped{file: out}
	cmd.Stdout, cmd.Stderr = w, w
	pr := &process{cmd: cmd, done: make(chan struct{}), restarts: restarts}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped() {
		return nil, os.ErrProcessDone
	}
	if err := startLocked(cmd); err != nil {
		_ = out.Close()
		return nil, err
	}
	p.containers[c.Name] = pr
	go func() {
		_ = cmd.Wait()
		_ = out.Close()
		p.mu.Lock()
		pr.exited = true
		p.mu.Unlock()
		close(pr.done)
	}()
	return pr, nil
}

// argv is what a container runs: the image's program and arguments, or what the Pod says instead, in which $(NAME) stands
// for a variable of the container.
func (p *pod) argv(c *corev1.Container, env []string) []string {
	variables := map[string]string{}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		variables[name] = value
	}
	expand := expansion.MappingFuncFor(variables)
	image := p.kubelet.images.find(c.Image)
	argv := append([]string{"/" + filepath.Base(image[0])}, image[1:]...)
	if len(c.Command) > 0 {
		argv = nil
	}
	for _, word := range append(slices.Clone(c.Command), c.Args...) {
		argv = append(argv, expansion.Expand(word, expand))
	}
	return argv
}

func (p *pod) logTail(container string) []byte {
	tail, _ := os.ReadFile(filepath.Join(p.dir, container+".log")) // none: nothing to show
	return tail[max(0, len(tail)-logTailBytes):]
}

// terminate ends the pod as a kubelet does, and deletes it from the API.
func (p *pod) terminate(ctx context.Context, grace time.Duration) {
	deadline := time.Now().Add(grace)
	if grace > 0 {
		p.runHooks(ctx, deadline)
	}
	p.once.Do(func() { close(p.stop) })
	var running []*process
	p.mu.Lock()
	for _, c := range p.containers {
		if !c.exited {
			_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGTERM)
			running = append(running, c)
		}
	}
	p.mu.Unlock()
	late := time.After(time.Until(deadline))
	for _, c := range running {
		select {
		case <-c.done:
		case <-late:
			log.Printf("%s: the grace period of %v is over: SIGKILL", p.title(), grace)
			_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
			<-c.done
		}
	}
	p.kill()
	now := int64(0)
	err := p.kubelet.client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &p.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
		log.Printf("%s: delete: %v", p.title(), err)
	}
}

// runHooks runs the containers' preStop hooks, all at once, before the pod is told to stop.
func (p *pod) runHooks(ctx context.Context, deadline time.Time) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	var all sync.WaitGroup
	for i := range p.Spec.Containers {
		c := &p.Spec.Containers[i]
		if c.Lifecycle == nil || c.Lifecycle.PreStop == nil {
			continue
		}
		all.Go(func() {
			switch hook := c.Lifecycle.PreStop; {
			case hook.Exec != nil:
				if err := p.exec(ctx, c, hook.Exec.Command); err != nil {
					log.Printf("%s: preStop: %v", p.title(), err)
				}
			case hook.Sleep != nil:
				select {
				case <-ctx.Done():
				case <-time.After(time.Duration(hook.Sleep.Seconds) * time.Second):
				}
			}
		})
	}
	all.Wait()
}

// kill ends whatever still runs, at once, and removes the pod's files.
func (p *pod) kill() {
	p.once.Do(func() { close(p.stop) })
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.containers {
		if !c.exited {
			_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
		}
	}
	if p.holder != nil {
		_ = p.holder.Process.Kill()
	}
	_ = os.RemoveAll(p.dir)
}

// networkPID is the process whose network namespace the pod has; 0: the node's own.
func (p *pod) networkPID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holder == nil {
		return 0
	}
	return p.holder.Process.Pid
}

func (p *pod) networkFiles() string {
	if pid := p.networkPID(); pid != 0 {
		return "/proc/" + strconv.Itoa(pid) + "/net/"
	}
	return "/proc/self/net/"
}
