//go:build cluster

package clustertest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// right is one verb on one resource, in one rule of a role.
type right struct {
	kind           string // ClusterRole, Role
	rule, resource int
	verb           int
}

// all are the roles' rights, each with its rule.
func (r *roles) all() map[right]rbacv1.PolicyRule {
	list := map[right]rbacv1.PolicyRule{}
	for kind, rules := range map[string][]rbacv1.PolicyRule{"ClusterRole": r.cluster.Rules, "Role": r.own.Rules} {
		for i, rule := range rules {
			for j := range rule.Resources {
				for k := range rule.Verbs {
					list[right{kind, i, j, k}] = rule
				}
			}
		}
	}
	return list
}

// without are the roles less one right.
func (r roles) without(x right) roles {
	less := func(rules []rbacv1.PolicyRule) (list []rbacv1.PolicyRule) {
		for i, rule := range rules {
			for j, resource := range rule.Resources {
				one := rule
				one.Resources = []string{resource}
				if i == x.rule && j == x.resource {
					if one.Verbs = slices.Delete(slices.Clone(rule.Verbs), x.verb, x.verb+1); len(one.Verbs) == 0 {
						continue
					}
				}
				list = append(list, one)
			}
		}
		return list
	}
	if x.kind == "ClusterRole" {
		r.cluster.Rules = less(r.cluster.Rules)
	} else {
		r.own.Rules = less(r.own.Rules)
	}
	return r
}

// A user is Sluice as an account, in a place where it needs every right that it may have.
type user struct {
	account
	log string // file
	ctx context.Context
}

// use starts Sluice as an account, as the pod "self". lists: it lists before it watches, as it does with API servers that
// do not know streaming lists.
func use(t *testing.T, a account, lists bool) *user {
	t.Helper()
	u := &user{account: a, log: filepath.Join(t.TempDir(), "log"), ctx: t.Context()}
	core, meta := api().core, func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name} }
	for _, err := range []error{
		create(core.ConfigMaps(a.namespace).Create(u.ctx, &corev1.ConfigMap{ObjectMeta: meta("sluice"), Data: map[string]string{"hsts": "false"}}, metav1.CreateOptions{})),
		create(core.Secrets(a.namespace).Create(u.ctx, &corev1.Secret{ObjectMeta: meta("late"), Type: "example.org/rare"}, metav1.CreateOptions{})),
		create(core.Pods(a.namespace).Create(u.ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "self", Labels: map[string]string{"app": "self"}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "nothing"}}}}, metav1.CreateOptions{})),
		create(api().networking.Ingresses(a.namespace).Create(u.ctx, u.ingress("bad", ""), metav1.CreateOptions{})),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	out, err := os.Create(u.log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	at := freePorts(2)
	cmd := exec.Command(os.Getenv("SLUICE_BIN"), "--kubeconfig="+a.kubeconfig, "--ingress-class="+a.namespace, "--controller-class="+controllerOf(a.namespace),
		"--configmap="+a.namespace+"/sluice", "--election-id=sluice", "--election-ttl=3", "--log-level=debug", "--loops=1",
		"--http-port="+at[0], "--https-port="+at[1], "--admin-address=")
	cmd.Env = append(os.Environ(), "POD_NAMESPACE="+a.namespace, "POD_NAME=self", fmt.Sprint("KUBE_FEATURE_WatchListClient=", !lists))
	cmd.Stderr = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return u
}

// ingress has an annotation that is a Problem, and so an Event, and maybe a certificate.
func (u *user) ingress(annotation, secret string) *networkingv1.Ingress {
	kind := networkingv1.PathTypePrefix
	spec := networkingv1.IngressSpec{IngressClassName: &u.namespace, Rules: []networkingv1.IngressRule{{Host: "web.example",
		IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Path: "/", PathType: &kind,
			Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}}}}}}}}}
	if secret != "" {
		spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"web.example"}, SecretName: secret}}
	}
	return &networkingv1.Ingress{Spec: spec, ObjectMeta: metav1.ObjectMeta{Name: "web",
		Annotations: map[string]string{"nginx.ingress.kubernetes.io/proxy-body-size": annotation}}}
}

// event is the version of the Event about an annotation's value; "": there is none.
func (u *user) event(value string) string {
	list, err := api().core.Events(u.namespace).List(u.ctx, metav1.ListOptions{})
	if err != nil {
		return ""
	}
	for _, e := range list.Items {
		if strings.Contains(e.Message, `"`+value+`"`) {
			return e.ResourceVersion
		}
	}
	return ""
}

// steps of a user: each needs more rights than those before it. The last one is true when all has been done.
func (u *user) steps() []func() bool {
	put := func(annotation, secret string) func() bool {
		return func() bool {
			return create(api().networking.Ingresses(u.namespace).Update(u.ctx, u.ingress(annotation, secret), metav1.UpdateOptions{})) == nil
		}
	}
	first, began := "", time.Time{}
	return []func() bool{
		func() bool { first, began = u.event("bad"), time.Now(); return first != "" },
		put("worse", "late"), // a Secret that was there before it was named
		func() bool { return u.event("worse") != "" },
		func() bool { return time.Since(began) > time.Second }, // the time of an Event knows seconds
		put("bad", "late"),                                     // told before: its Event is patched
		func() bool { return u.event("bad") != first },
		func() bool { // the node's address, since the pod is ready
			ing, err := api().networking.Ingresses(u.namespace).Get(u.ctx, "web", metav1.GetOptions{})
			return err == nil && len(ing.Status.LoadBalancer.Ingress) == 1 && ing.Status.LoadBalancer.Ingress[0].IP == nodeAddress
		},
		func() bool { // the Lease is renewed
			log, _ := os.ReadFile(u.log)
			return strings.Contains(string(log), "leader=true")
		},
	}
}

var forbidden = regexp.MustCompile(`cannot (\w+) resource \\*"([\w/]+)\\*"`)

// missed are the rights that the log says were missing, as "verb resource".
func (u *user) missed() (list []string) {
	log, _ := os.ReadFile(u.log)
	for _, m := range forbidden.FindAllStringSubmatch(string(log), -1) {
		list = append(list, m[1]+" "+m[2])
	}
	return list
}

// work goes through the steps until the user misses a right, or, with none, until all is done.
func (u *user) work(right string) (done bool) {
	steps := u.steps()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline) && (right != "" || len(steps) > 0); time.Sleep(50 * time.Millisecond) {
		if right != "" && slices.Contains(u.missed(), right) {
			break
		}
		if len(steps) > 0 && steps[0]() {
			steps = steps[1:]
		}
	}
	return len(steps) == 0
}

// TestRightsAreEnough runs Sluice as the ServiceAccount of deploy/: it does all that it has to, and nothing is forbidden it.
func TestRightsAreEnough(t *testing.T) {
	cluster(t)
	t.Parallel()
	for _, lists := range []bool{false, true} {
		t.Run(fmt.Sprint("lists=", lists), func(t *testing.T) {
			t.Parallel()
			u := use(t, newAccount(t), lists)
			if done, missed := u.work(""), u.missed(); !done || len(missed) > 0 {
				log, _ := os.ReadFile(u.log)
				t.Errorf("all was done: %v; forbidden: %q; the log is\n%s", done, missed, log)
			}
		})
	}
}

// TestRightsAreMinimal takes one right after the other away from the ServiceAccount of deploy/: each is missed.
func TestRightsAreMinimal(t *testing.T) {
	cluster(t)
	t.Parallel()
	r, err := deployedRoles()
	if err != nil {
		t.Fatal(err)
	}
	rights := r.all()
	if len(rights) < 20 {
		t.Fatalf("there are only %d rights in deploy/", len(rights))
	}
	for x, rule := range rights {
		verb, resource := rule.Verbs[x.verb], rule.Resources[x.resource]
		t.Run(verb+" "+strings.ReplaceAll(resource, "/", "."), func(t *testing.T) {
			t.Parallel()
			u := use(t, accountWith(t, r.without(x)), verb == "list")
			u.work(verb + " " + resource)
			if missed := u.missed(); !slices.Contains(missed, verb+" "+resource) {
				log, _ := os.ReadFile(u.log)
				t.Errorf("nothing misses the right to %s %s, but %q; the log is\n%s", verb, resource, missed, log)
			}
		})
	}
}
