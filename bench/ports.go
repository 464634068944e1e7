package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Listening ports are drawn from below the range of outgoing ones (32768 upward), so that no connection of the
// run can take a port between its choice and the proxy's bind.
const (
	portLow   = 20_000
	portHigh  = 32_000
	portTries = 1000
)

// freePorts finds n different ports that nothing listens on.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range portTries {
		if len(ports) == n {
			return ports, nil
		}
		port := portLow + rand.IntN(portHigh-portLow)
		l, err := net.Listen("tcp", local(port))
		if err != nil {
			continue
		}
		defer l.Close() // kept until all are found, so none is found twice
		ports = append(ports, port)
	}
	if len(ports) == n {
		return ports, nil
	}
	return nil, errors.New("no free ports on 127.0.0.1")
}

const loopback = "127.0.0.1"

// local is how addresses are made here: nothing listens beyond the machine.
func local(port int) string { return at(loopback, port) }

func at(address string, port int) string { return fmt.Sprintf("%s:%d", address, port) }
