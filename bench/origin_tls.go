package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"time"
)

const (
	originIdleLimit  = 5 * time.Minute
	originChunkBytes = 64 << 10 // written and counted at once
)

// serveTLS accepts on the listening descriptor and serves TLS 1.3 for ever, a goroutine a connection. It stands
// behind pass-through only, where the client's handshake and this one's dwarf what the proxy does.
func serveTLS(listener int, certFile, keyFile string, file tallyFile) error {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(listener), "listener")
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		return err
	}
	config := &tls.Config{
		Certificates:           []tls.Certificate{pair},
		MinVersion:             tls.VersionTLS13,
		CurvePreferences:       []tls.CurveID{tls.X25519},
		SessionTicketsDisabled: true,
		NextProtos:             []string{"http/1.1"},
	}
	sum := &sharedTally{tallyFile: file}
	places := make(chan struct{}, originConnsMax)
	for {
		places <- struct{}{}
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { <-places }()
			defer conn.Close()
			_ = serveTLSConn(tls.Server(conn, config), sum) // the client counts what went wrong
		}()
	}
}

// serveTLSConn answers requests until the client ends the connection, then ends it cleanly too.
func serveTLSConn(conn *tls.Conn, sum *sharedTally) error {
	defer conn.Close()
	r := bufio.NewReaderSize(conn, headMax)
	for {
		if err := conn.SetDeadline(time.Now().Add(originIdleLimit)); err != nil {
			return err
		}
		answer, err := readRequest(r)
		if err != nil {
			return err
		}
		for requests := uint64(1); len(answer) > 0; requests = 0 {
			n, err := conn.Write(answer[:min(len(answer), originChunkBytes)])
			if err != nil {
				return err
			}
			answer = answer[n:]
			if err := sum.add(requests, uint64(n)); err != nil {
				return err
			}
		}
	}
}

// readRequest reads a head to its empty line and chooses the answer by the request line.
func readRequest(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	answer := answerTo(line)
	for size := 0; len(line) > len("\r\n"); size += len(line) {
		if size > headMax {
			return nil, errors.New("the head is too long")
		}
		if line, err = r.ReadSlice('\n'); err != nil {
			return nil, err
		}
	}
	return answer, nil
}
