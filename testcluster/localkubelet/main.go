// Command localkubelet stands in for scheduler, kubelet and container runtime: it registers a Node, binds every Pod to it
// and runs a Pod's containers as plain local processes. Which program an image stands for is told by --image. A Pod has a
// network namespace of its own with an address on a bridge, IPv4 and IPv6, or the node's with hostNetwork. A container
// has a mount namespace of its own with the image's program at /NAME and its volumes at their mount paths.
//
// It sets PodIPs, conditions and container statuses, so that the real controllers make real EndpointSlices; it probes
// (httpGet, tcpSocket, exec), runs preStop hooks (exec, sleep) and ends Pods as a kubelet does (SIGTERM, grace period,
// SIGKILL, delete), so that slices show terminating endpoints. Pods whose host ports are taken stay Pending.
//
// It needs CAP_NET_ADMIN and CAP_SYS_ADMIN in its namespaces: run it under `controlplane --netns --kubelet …`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// kubelet is one node.
type kubelet struct {
	client     kubernetes.Interface
	config     *rest.Config
	node       string
	externalIP string
	dir        string // of the pods' files
	images     imageMap
	network    *podNetwork
	logPort    int32

	mu   sync.Mutex
	pods map[string]*pod // by UID
}

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case commandHold:
			exit(holdNetwork(os.Args[2:]))
			return
		case commandRun:
			exit(becomeContainer(os.Args[2]))
			return
		}
	}
	exit(run())
}

func exit(err error) {
	if err != nil {
		log.Fatal("localkubelet: ", err)
	}
}

func run() error {
	k := &kubelet{images: imageMap{}, pods: map[string]*pod{}}
	kubeconfig := flag.String("kubeconfig", os.Getenv("KUBECONFIG"), "kubeconfig file")
	flag.StringVar(&k.node, "node", "local", "name of the Node")
	flag.StringVar(&k.externalIP, "external-ip", "", "the Node's external address; empty: none")
	network4 := flag.String("pod-cidr", "10.244.0.0/16", "pod addresses, IPv4; the first one is the node's")
	network6 := flag.String("pod-cidr6", "fd00:10:244::/64", "pod addresses, IPv6; empty: none")
	flag.Var(k.images, "image", "IMAGE=COMMAND: containers of IMAGE (without tag) run COMMAND; may be repeated")
	flag.Parse()

	var err error
	if k.config, err = clientcmd.BuildConfigFromFlags("", *kubeconfig); err != nil {
		return err
	}
	k.config.QPS, k.config.Burst = 500, 1000
	k.config.ContentType = "application/vnd.kubernetes.protobuf"
	if k.client, err = kubernetes.NewForConfig(k.config); err != nil {
		return err
	}
	if k.dir, err = os.MkdirTemp("", "localkubelet-"); err != nil {
		return err
	}
	defer os.RemoveAll(k.dir)
	if k.network, err = newPodNetwork(*network4, *network6); err != nil {
		return err
	}
	if k.logPort, err = k.serveLogs(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return k.work(ctx)
}

// work keeps node and pods until ctx ends.
func (k *kubelet) work(ctx context.Context) error {
	if err := k.register(ctx); err != nil {
		return err
	}
	go k.heartbeat(ctx)
	factory := informers.NewSharedInformerFactory(k.client, 0)
	informer := factory.Core().V1().Pods().Informer()
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { k.seen(ctx, o.(*corev1.Pod)) },
		UpdateFunc: func(_, o any) { k.seen(ctx, o.(*corev1.Pod)) },
		DeleteFunc: func(o any) {
			if t, unknown := o.(cache.DeletedFinalStateUnknown); unknown {
				o = t.Obj
			}
			k.gone(ctx, o.(*corev1.Pod))
		},
	}); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	log.Printf("node %s is ready, its address is %v", k.node, k.network.gateway4.Addr())
	<-ctx.Done()

	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.pods {
		p.kill()
	}
	return nil
}

// imageMap tells which command stands for an image, by the image's name without tag and digest.
type imageMap map[string][]string

func (m imageMap) String() string { return "" }

// Set implements flag.Value.
func (m imageMap) Set(s string) error {
	image, command, ok := strings.Cut(s, "=")
	argv := strings.Fields(command)
	if !ok || len(argv) == 0 {
		return errors.New("give IMAGE=COMMAND")
	}
	if _, err := os.Stat(argv[0]); err != nil {
		return fmt.Errorf("the program of image %s: %w", image, err)
	}
	m[image] = argv
	return nil
}

func (m imageMap) find(image string) []string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		image = image[:i]
	}
	return m[image]
}
