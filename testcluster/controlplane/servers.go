package main

import (
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // kube-apiserver validates time zones

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

func runAPIServer(args []string) int {
	c := apiserver.NewAPIServerCommand()
	c.SetArgs(args)
	return cli.Run(c)
}

func runControllerManager(args []string) int {
	c := controllermanager.NewControllerManagerCommand()
	c.SetArgs(args)
	return cli.Run(c)
}

const (
	etcdQuotaBytes = 2 << 30
	etcdTickMs     = 10 // a single member need not wait a second to elect itself
	etcdElectionMs = 100
)

// runEtcd runs an etcd of a single member; args are its directory and the clients' URL. It never syncs to disk: a test's
// state survives the death of a process, and need not survive that of the machine.
func runEtcd(args []string) int {
	client, err := url.Parse(args[1])
	if err != nil {
		return fail(err)
	}
	c := embed.NewConfig()
	c.Name = "default"
	c.Dir = args[0]
	c.UnsafeNoFsync = true
	c.LogLevel = "warn"
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	peer := url.URL{Scheme: "http", Host: client.Hostname() + ":0"}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.QuotaBackendBytes = etcdQuotaBytes
	c.TickMs, c.ElectionMs = etcdTickMs, etcdElectionMs
	e, err := embed.StartEtcd(c)
	if err != nil {
		return fail(err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	select {
	case <-signals:
		e.Close()
		return 0
	case err := <-e.Err():
		fmt.Fprintln(os.Stderr, "etcd:", err)
		return 1
	}
}
