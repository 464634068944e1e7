package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
)

// Descriptors that the origin inherits, in the order of exec.Cmd.ExtraFiles.
const (
	fdOriginPlain = 3
	fdOriginTLS   = 4
	fdOriginUDP   = 5
	fdOriginTally = 6
)

// An origin is the backend behind all proxies: a child process, so that its CPU is nobody's.
type origin struct {
	*child
	plainPort int
	tlsPort   int
	udpPort   int
	plain     tallyFile
	tls       tallyFile
	udp       tallyFile
}

// startOrigin starts this program's origin command on free ports.
func startOrigin(c *certificate, address string) (*origin, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	counts, err := newTallyFile()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "origin", "--certificate="+c.certFile, "--key="+c.keyFile)
	o := &origin{plain: tallyFile{counts, slotPlain}, tls: tallyFile{counts, slotTLS}, udp: tallyFile{counts, slotUDP}}
	for _, port := range []*int{&o.plainPort, &o.tlsPort} {
		file, err := listenFile(address, port)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
	}
	datagrams, err := datagramFile(address, &o.udpPort)
	if err != nil {
		return nil, err
	}
	defer datagrams.Close()
	cmd.ExtraFiles = append(cmd.ExtraFiles, datagrams, counts)
	o.child, err = startChild("origin", cmd)
	return o, err
}

// listenFile listens on a free port and gives the listener away as a file. Connections wait in its queue until
// the child accepts them: the origin needs no test of readiness.
func listenFile(address string, port *int) (*os.File, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", at(address, ports[0]))
	if err != nil {
		return nil, err
	}
	defer l.Close()
	*port = ports[0]
	return l.(*net.TCPListener).File()
}

// originCommand is the child's side: a raw epoll loop for plain HTTP, crypto/tls for pass-through, and an echo of
// datagrams.
func originCommand(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bench origin", flag.ContinueOnError)
	cert := f.String("certificate", "", "PEM file")
	key := f.String("key", "", "PEM file")
	if err := f.Parse(args); err != nil {
		return err
	}
	counts := os.NewFile(fdOriginTally, "tally")
	if _, err := counts.Stat(); err != nil {
		return errors.New("origin: started by hand; bench compare starts it with its listeners")
	}
	failed := make(chan error, slots)
	go func() {
		failed <- servePlain(fdOriginPlain, tallyFile{counts, slotPlain})
	}()
	go func() {
		failed <- serveTLS(fdOriginTLS, *cert, *key, tallyFile{counts, slotTLS})
	}()
	go func() {
		failed <- serveDatagrams(fdOriginUDP, tallyFile{counts, slotUDP})
	}()
	select {
	case err := <-failed:
		return fmt.Errorf("origin: %w", err)
	case <-ctx.Done():
		return nil
	}
}
