package watcher

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

// reviewed is an Ingress with one path, whose further arguments are annotations of ingress-nginx.
func reviewed(name, host, path string, kind networkingv1.PathType, annotations ...string) *networkingv1.Ingress {
	ing := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Annotations: map[string]string{}}}
	for i := 0; i < len(annotations); i += 2 {
		ing.Annotations["nginx.ingress.kubernetes.io/"+annotations[i]] = annotations[i+1]
	}
	class := "nginx"
	ing.Spec = networkingv1.IngressSpec{IngressClassName: &class, Rules: []networkingv1.IngressRule{{Host: host,
		IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{
			Path: path, PathType: &kind, Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
				Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}}}}}}}}}
	return ing
}

func newReviewer(s *State) *Reviewer {
	return NewReviewer(func() *State { return s }, func() *translate.Translator { return translate.New(translate.Options{}) },
		route.Env{Loops: 1, NewCluster: func(id string, s upstream.Settings) *upstream.Cluster {
			return upstream.NewCluster(id, &upstream.Env{}, s)
		}})
}

const (
	prefix = networkingv1.PathTypePrefix
	exact  = networkingv1.PathTypeExact
	either = networkingv1.PathTypeImplementationSpecific
)

func TestReview(t *testing.T) {
	old := reviewed("old", "taken.example", "/", prefix)
	old.CreationTimestamp = metav1.NewTime(time.Unix(1e9, 0))
	r := newReviewer(&State{Objects: translate.Objects{Ingresses: []*networkingv1.Ingress{old}}})
	foreign := reviewed("foreign", "a.example", "no-slash", prefix, "limit-rps", "x")
	class := "other"
	foreign.Spec.IngressClassName = &class
	for name, c := range map[string]struct {
		ing     *networkingv1.Ingress
		refused string // "": taken
		warned  string // "": of nothing
	}{
		"good":                  {ing: reviewed("web", "a.example", "/", prefix, "limit-rps", "5")},
		"another controller's":  {ing: foreign},
		"a path that is taken":  {ing: reviewed("web", "taken.example", "/", prefix), refused: "belongs to Ingress shop/old, which comes first"},
		"the same one changed":  {ing: reviewed("old", "taken.example", "/", prefix, "limit-rps", "7")},
		"a path without slash":  {ing: reviewed("web", "a.example", "x", prefix), refused: "spec.rules[0].http.paths[0].path"},
		"an expression":         {ing: reviewed("web", "a.example", "/(?=x)", either, "use-regex", "true"), refused: "/(?=x)"},
		"a host that is none":   {ing: reviewed("web", "a_b..example", "/", prefix), refused: "spec.rules[0].host"},
		"a redirect that drops": {ing: reviewed("web", "a.example", "/", prefix, "permanent-redirect", "$evil"), refused: "permanent-redirect"},
		"a list that denies":    {ing: reviewed("web", "a.example", "/", prefix, "whitelist-source-range", "everybody"), refused: "whitelist-source-range"},
		"a firewall":            {ing: reviewed("web", "a.example", "/", prefix, "enable-modsecurity", "true"), refused: "enable-modsecurity"},
		"digest":                {ing: reviewed("web", "a.example", "/", prefix, "auth-type", "digest"), refused: "auth-type"},
		"a snippet":             {ing: reviewed("web", "a.example", "/", prefix, "configuration-snippet", "return 200;"), refused: "configuration-snippet"},
		"a value":               {ing: reviewed("web", "a.example", "/", prefix, "proxy-body-size", "much"), warned: "proxy-body-size"},
		"a limit that is none":  {ing: reviewed("web", "a.example", "/", prefix, "limit-rps", "many"), refused: "limit-rps"},
		"an unknown annotation": {ing: reviewed("web", "a.example", "/", exact, "limit-rpx", "1"), warned: "unknown annotation: did you mean limit-rp"},
		"a refused annotation":  {ing: reviewed("web", "a.example", "/", prefix, "http2-push-preload", "true"), warned: "http2-push-preload"},
		"a Secret to come":      {ing: reviewed("web", "a.example", "/", prefix, "auth-type", "basic", "auth-secret", "users")},
	} {
		v, ready := r.Review(c.ing)
		if !ready {
			t.Fatal("not ready")
		}
		if got := fmt.Sprint(v.Refused); (len(v.Refused) > 0) != (c.refused != "") || !strings.Contains(got, c.refused) {
			t.Errorf("%s: refused for %s, want %q", name, got, c.refused)
		}
		if got := fmt.Sprint(v.Warnings); c.refused == "" && ((len(v.Warnings) > 0) != (c.warned != "") || !strings.Contains(got, c.warned)) {
			t.Errorf("%s: warned of %s, want %q", name, got, c.warned)
		}
	}
	if _, ready := newReviewer(nil).Review(old); ready {
		t.Error("judged without a state")
	}
}

// manyReviewed is a state of 10,000 Ingresses with a Service each.
func manyReviewed() *State {
	s := &State{}
	for i := range 10_000 {
		ing := reviewed(fmt.Sprintf("web-%d", i), fmt.Sprintf("host-%d.example", i), "/", prefix, "limit-rps", "5")
		ing.CreationTimestamp = metav1.NewTime(time.Unix(1e9+int64(i), 0))
		ing.Spec.Rules[0].HTTP.Paths[0].Backend.Service.Name = ing.Name
		s.Objects.Ingresses = append(s.Objects.Ingresses, ing)
		s.Objects.Services = append(s.Objects.Services, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: ing.Name},
			Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}})
	}
	return s
}

// TestReviewAmongTenThousand: a review costs what one changed Ingress costs. The bound is ten times what it takes on an
// idle machine: a review that translated or compiled all would take longer even there.
func TestReviewAmongTenThousand(t *testing.T) {
	r := newReviewer(manyReviewed())
	began := time.Now()
	if v, _ := r.Review(reviewed("web", "new.example", "/", prefix)); len(v.Refused) > 0 {
		t.Fatal(v.Refused)
	}
	first := time.Since(began)
	var took []time.Duration
	for i := range 21 {
		began := time.Now()
		v, _ := r.Review(reviewed("web", fmt.Sprintf("host-%d.example", i*400), "/", prefix))
		took = append(took, time.Since(began))
		if len(v.Refused) != 1 {
			t.Fatalf("refused: %v", v.Refused)
		}
	}
	slices.Sort(took)
	t.Logf("the first review took %v, the median of the others %v", first, took[10])
	if took[10] > first/4 {
		t.Errorf("a review takes %v, the first one, which translates and compiles all, took %v", took[10], first)
	}
}

func BenchmarkReview(b *testing.B) {
	r := newReviewer(manyReviewed())
	r.Review(reviewed("web", "new.example", "/", prefix))
	for i := 0; b.Loop(); i++ {
		r.Review(reviewed("web", fmt.Sprintf("host-%d.example", i%10_000), "/", prefix))
	}
}

// TestReviewSurvivesAPanic: what a defect leaves is thrown away.
func TestReviewSurvivesAPanic(t *testing.T) {
	s := &State{}
	broken := true
	r := NewReviewer(func() *State { return s }, func() *translate.Translator { return translate.New(translate.Options{}) },
		route.Env{Loops: 1, NewCluster: func(id string, s upstream.Settings) *upstream.Cluster {
			if broken {
				panic("a defect")
			}
			return upstream.NewCluster(id, &upstream.Env{}, s)
		}})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		r.Review(reviewed("web", "a.example", "/", prefix))
	}()
	broken = false
	if v, ready := r.Review(reviewed("web", "a.example", "no-slash", prefix)); !ready || len(v.Refused) != 1 {
		t.Errorf("%v, %v", v, ready)
	}
}
