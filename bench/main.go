// Command bench puts the same load on Sluice and on its rivals, on one machine and in turn, and reports what a
// unit of work costs each of them.
//
//	go run ./bench compare                         every scenario of the steady state, 3 rounds of 2 s
//	go run ./bench compare --all                   … many routes, changes, reloads as well
//	go run ./bench compare --quick --load=own      a smoke test of some seconds
//	go run ./bench compare --scenarios=h1-c64,tls-c64 --rounds=5
//	go run ./bench regress --old=A --new=B         two builds of Sluice
//
// It is a program of its own: it imports nothing of the proxy and speaks to it over the wire only, so that it
// cannot flatter it. What it promises:
//
//   - Same work: every proxy matches a host and a path, sets the X-Forwarded-* fields, removes hop-by-hop fields,
//     keeps its backend connections, writes no access log, has two workers, one certificate and equal curves.
//   - Paired rounds: A B C, A B C; a ratio is taken inside a round and the median of these ratios is reported
//     with the smallest and the largest, for machines drift more between rounds than proxies differ.
//   - One clock: CPU is what the kernel charged to the proxy's whole process tree between two instants under
//     steady load; work is what the origin served between the same two instants, not what a load tool says.
//   - Groups of their own: each program has a session, and so, where the kernel has it (autogroup), a scheduling group of
//     its own, as pods have. In a group together, who wakes whom counts for more.
//   - No silent failure: a wrong status, a wrong length or an error voids the verdict of its row.
//
// The way through: compare.go leads the rounds, scenario_*.go say what is done in one, proxy_*.go start the
// candidates, load_*.go make load in the words of talk_*.go, origin*.go answer it, cpu.go measures, bounds.go judges,
// report*.go and plot*.go print. regress.go compares two builds of Sluice by the same means.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const help = `bench measures Sluice against its rivals.

  bench compare [flags]   run the comparison (bench compare --help lists the flags)
  bench regress [flags]   compare two builds of Sluice; the exit status tells of a regression
  bench tunnels [flags]   compare ways of moving the bytes of TLS pass-through
  bench readme FILE...    rewrite a results section from the JSON files of several runs
  bench origin            the backend; started by compare, of no use alone
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run is the table of sub-commands. It returns only when every child process has ended.
func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, help)
		return errors.New("no sub-command")
	}
	switch args[0] {
	case "compare":
		return compareCommand(ctx, args[1:], os.Stdout, os.Stderr)
	case "regress":
		return regressCommand(ctx, args[1:], os.Stdout, os.Stderr)
	case "readme":
		return readmeCommand(args[1:], os.Stderr)
	case "tunnels":
		return tunnelsCommand(ctx, args[1:], os.Stdout)
	case "relay":
		return relayCommand(args[1:])
	case "origin":
		return originCommand(ctx, args[1:])
	case "help", "-h", "--help":
		fmt.Print(help)
		return nil
	}
	fmt.Fprint(os.Stderr, help)
	return fmt.Errorf("%q is not a sub-command", args[0])
}
