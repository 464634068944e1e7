package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// commandRun is the sub-command that becomes a container's program.
const commandRun = "container-run"

// containerSpec is what the second start of this program needs to become a container.
type containerSpec struct {
	NetworkPID int         // whose network namespace to enter; 0: none
	Root       string      // an empty directory for the root file system
	Mounts     []bindMount // volumes and the image's program, in their order
	Argv       []string
}

type bindMount struct {
	Source, Target string
	ReadOnly       bool
}

// command makes a process in the container's namespaces. Every one has a mount namespace of its own with the same
// mounts, so that a probe sees what the container sees.
func (p *pod) command(c *corev1.Container, argv, env []string) (*exec.Cmd, error) {
	program := p.kubelet.images.find(c.Image)[0]
	absolute, err := filepath.Abs(program)
	if err != nil {
		return nil, err
	}
	s := containerSpec{NetworkPID: p.networkPID(), Root: filepath.Join(p.dir, "root"), Argv: argv,
		Mounts: []bindMount{{absolute, "/" + filepath.Base(program), true}}}
	for _, m := range c.VolumeMounts {
		s.Mounts = append(s.Mounts, bindMount{filepath.Join(p.volumeDir(m.Name), m.SubPath), m.MountPath, m.ReadOnly})
	}
	if err := os.MkdirAll(s.Root, 0o755); err != nil {
		return nil, err
	}
	spec, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, commandRun, string(spec))
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWNS}
	return cmd, nil
}

// exec runs a command in a container, as `kubectl exec` does.
func (p *pod) exec(ctx context.Context, c *corev1.Container, argv []string) error {
	env, err := p.environment(ctx, c)
	if err != nil {
		return err
	}
	cmd, err := p.command(c, argv, env)
	if err != nil {
		return err
	}
	if err := startLocked(cmd); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-done
		return ctx.Err()
	}
}

// becomeContainer enters the network, makes the root file system and becomes the program.
func becomeContainer(text string) error {
	runtime.LockOSThread()
	var s containerSpec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	if s.NetworkPID != 0 {
		fd, err := unix.Open("/proc/"+strconv.Itoa(s.NetworkPID)+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("network namespace: %w", err)
		}
	}
	if err := makeRoot(&s); err != nil {
		return err
	}
	path, err := exec.LookPath(s.Argv[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, s.Argv, os.Environ())
}

// emptyDirs of the root file system are the container's own; all others are the machine's.
var emptyDirs = map[string]bool{"var": true, "run": true, "tmp": true}

// makeRoot makes a root file system in memory: the machine's directories, empty ones for what changes, the mounts.
func makeRoot(s *containerSpec) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount("tmpfs", s.Root, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := mirror(s.Root, e); err != nil {
			return fmt.Errorf("/%s: %w", e.Name(), err)
		}
	}
	for _, m := range s.Mounts {
		if err := bind(s.Root, m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
	}
	if err := unix.Chroot(s.Root); err != nil {
		return err
	}
	return os.Chdir("/")
}

// mirror shows one entry of the machine's root directory in a container's.
func mirror(root string, e os.DirEntry) error {
	source, target := "/"+e.Name(), filepath.Join(root, e.Name())
	switch {
	case e.Type()&os.ModeSymlink != 0:
		to, err := os.Readlink(source)
		if err != nil {
			return err
		}
		return os.Symlink(to, target)
	case !e.IsDir():
		return nil
	case emptyDirs[e.Name()]:
		if err := os.Mkdir(target, 0o755); err != nil {
			return err
		}
		return os.Chmod(target, 0o1777)
	}
	if err := os.Mkdir(target, 0o755); err != nil {
		return err
	}
	return unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, "")
}

func bind(root string, m bindMount) error {
	target := filepath.Join(root, filepath.Clean("/"+m.Target))
	info, err := os.Stat(m.Source)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
		var f *os.File
		if f, err = os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o755); err == nil {
			err = f.Close()
		}
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(m.Source, target, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if !m.ReadOnly {
		return nil
	}
	err = unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	if errors.Is(err, unix.EPERM) {
		return nil // in a user namespace flags of the file system below are locked; read-only is a courtesy here
	}
	return err
}

// apiServer is where pods find the API server: as this process's environment says, else where it finds it itself.
func (k *kubelet) apiServer() (host, port string) {
	if host, port = os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"); host != "" {
		return host, port
	}
	u, err := url.Parse(k.config.Host)
	if err != nil {
		return "", ""
	}
	host, port, err = net.SplitHostPort(u.Host)
	if err != nil {
		return u.Host, "443"
	}
	return host, port
}
