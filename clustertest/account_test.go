//go:build cluster

package clustertest

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	discoveryclient "k8s.io/client-go/kubernetes/typed/discovery/v1"
	networkingclient "k8s.io/client-go/kubernetes/typed/networking/v1"
	rbacclient "k8s.io/client-go/kubernetes/typed/rbac/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

// admin is the API as the cluster's administrator has it.
type admin struct {
	config        *rest.Config
	core          *coreclient.CoreV1Client
	networking    *networkingclient.NetworkingV1Client
	discovery     *discoveryclient.DiscoveryV1Client
	rbac          *rbacclient.RbacV1Client
	authorization *authorizationclient.AuthorizationV1Client
}

var api = sync.OnceValue(func() *admin {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		panic(err) // the control plane has made it
	}
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	one, err := rest.HTTPClientFor(config)
	if err != nil {
		panic(err)
	}
	a := &admin{config: config}
	var errs [5]error
	a.core, errs[0] = coreclient.NewForConfigAndClient(config, one)
	a.networking, errs[1] = networkingclient.NewForConfigAndClient(config, one)
	a.discovery, errs[2] = discoveryclient.NewForConfigAndClient(config, one)
	a.rbac, errs[3] = rbacclient.NewForConfigAndClient(config, one)
	a.authorization, errs[4] = authorizationclient.NewForConfigAndClient(config, one)
	for _, err := range errs {
		if err != nil {
			panic(err)
		}
	}
	return a
})

// roles are the rights of deploy/, or of most of them.
type roles struct {
	cluster rbacv1.ClusterRole
	own     rbacv1.Role // in Sluice's namespace
}

// deployedRoles are those that `kubectl apply -k deploy/` makes.
var deployedRoles = sync.OnceValues(func() (r roles, err error) {
	manifests, err := tryKubectl("", "kustomize", "../deploy")
	if err != nil {
		return r, err
	}
	for text := range strings.SplitSeq(manifests, "\n---\n") {
		var to any
		switch {
		case strings.Contains(text, "\nkind: ClusterRole\n"):
			to = &r.cluster
		case strings.Contains(text, "\nkind: Role\n"):
			to = &r.own
		default:
			continue
		}
		if err := yaml.UnmarshalStrict([]byte(text), to); err != nil {
			return r, err
		}
	}
	return r, nil
})

// account is a ServiceAccount "sluice" in a namespace of its own, and the kubeconfig with which a process is it. The ingress
// class of the namespace's name is its.
type account struct{ namespace, kubeconfig string }

// newAccount makes an account with the roles of deploy/.
func newAccount(t testing.TB) account {
	t.Helper()
	r, err := deployedRoles()
	if err != nil {
		t.Fatal(err)
	}
	return accountWith(t, r)
}

// accountWith makes an account with these roles, and waits until the API server grants them.
func accountWith(t testing.TB, r roles) account {
	t.Helper()
	const name = "sluice"
	ctx, a, namespace := context.Background(), api(), newNamespace(t)
	newClass(t, namespace)
	meta, of := metav1.ObjectMeta{Name: name}, metav1.ObjectMeta{Name: namespace}
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: name, Namespace: namespace}}
	made := []error{
		create(a.core.ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{})),
		create(a.rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: of, Rules: r.cluster.Rules}, metav1.CreateOptions{})),
		create(a.rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: of, Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: namespace}}, metav1.CreateOptions{})),
		create(a.rbac.Roles(namespace).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: r.own.Rules}, metav1.CreateOptions{})),
		create(a.rbac.RoleBindings(namespace).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: meta, Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name}}, metav1.CreateOptions{})),
	}
	t.Cleanup(func() {
		_ = a.rbac.ClusterRoleBindings().Delete(ctx, namespace, metav1.DeleteOptions{})
		_ = a.rbac.ClusterRoles().Delete(ctx, namespace, metav1.DeleteOptions{})
	})
	for _, err := range made {
		if err != nil {
			t.Fatal(err)
		}
	}
	awaitRights(t, r, namespace)
	hours := int64(8 * 3600)
	token, err := a.core.ServiceAccounts(namespace).CreateToken(ctx, name,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &hours}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return account{namespace, writeKubeconfig(t, token.Status.Token, namespace)}
}

// create is what a call of Create has to say when nobody wants the object.
func create(_ any, err error) error { return err }

// awaitRights waits until the API server has heard of all rights of the account in a namespace.
func awaitRights(t testing.TB, r roles, namespace string) {
	t.Helper()
	ask := func(in string, rule rbacv1.PolicyRule) {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				of := authorizationv1.ResourceAttributes{Namespace: in, Verb: verb, Group: rule.APIGroups[0]}
				of.Resource, of.Subresource, _ = strings.Cut(resource, "/")
				if len(rule.ResourceNames) > 0 {
					of.Name = rule.ResourceNames[0]
				}
				eventually(t, "sluice may "+verb+" "+resource, func() (bool, string) {
					answer, err := api().authorization.SubjectAccessReviews().Create(context.Background(), &authorizationv1.SubjectAccessReview{
						Spec: authorizationv1.SubjectAccessReviewSpec{User: "system:serviceaccount:" + namespace + ":sluice", ResourceAttributes: &of},
					}, metav1.CreateOptions{})
					if err != nil {
						return false, err.Error()
					}
					return answer.Status.Allowed, answer.Status.Reason
				})
			}
		}
	}
	for _, rule := range r.cluster.Rules {
		ask("", rule)
	}
	for _, rule := range r.own.Rules {
		ask(namespace, rule)
	}
}

func writeKubeconfig(t testing.TB, token, namespace string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	c := api().config
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c,
clusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}],
users: [{name: u, user: {token: %s}}],
contexts: [{name: c, context: {cluster: c, user: u, namespace: %s}}]}`, c.Host, base64.StdEncoding.EncodeToString(c.CAData), token, namespace)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// newClass makes an IngressClass, with a controller of its own.
func newClass(t testing.TB, name string) {
	t.Helper()
	classes := api().networking.IngressClasses()
	_, err := classes.Create(context.Background(), &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: networkingv1.IngressClassSpec{Controller: controllerOf(name)}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = classes.Delete(context.Background(), name, metav1.DeleteOptions{}) })
}

func controllerOf(class string) string { return "example.org/" + class }
