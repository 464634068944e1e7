package translate

import (
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestServicesAreBounded: of more ports than there may be the first ones of both ConfigMaps are opened.
func TestServicesAreBounded(t *testing.T) {
	m := &corev1.ConfigMap{ObjectMeta: meta("ingress", "tcp"), Data: map[string]string{}}
	for n := range servicesMax + 3 {
		m.Data[strconv.Itoa(20_000+n)] = "shop/db:5432"
	}
	tr := New(Options{TCPServices: "ingress/tcp"})
	c, problems := tr.Translate(&Objects{ConfigMaps: []*corev1.ConfigMap{m}})
	beyond := 0
	for _, p := range problems {
		if strings.Contains(p.Reason, "more than 256 ports") {
			beyond++
		}
	}
	if len(c.Services) != servicesMax || beyond != 3 {
		t.Errorf("%d services and %d Problems of too many, want %d and 3", len(c.Services), beyond, servicesMax)
	}
}

// TestServicesStayThemselves: what has not changed is the same pointer, so that nothing is compiled for it.
func TestServicesStayThemselves(t *testing.T) {
	entries := func(list ...string) *corev1.ConfigMap {
		m := &corev1.ConfigMap{ObjectMeta: meta("ingress", "tcp"), Data: map[string]string{}}
		for _, port := range list {
			m.Data[port] = "shop/db:5432"
		}
		return m
	}
	tr := New(Options{TCPServices: "ingress/tcp"})
	one, _ := tr.Translate(&Objects{ConfigMaps: []*corev1.ConfigMap{entries("9000")}})
	two, _ := tr.Translate(&Objects{ConfigMaps: []*corev1.ConfigMap{entries("9000", "9001")}})
	three, _ := tr.Translate(&Objects{ConfigMaps: []*corev1.ConfigMap{entries("9001", "9000")}})
	if len(two.Services) != 2 || two.Services[0] != one.Services[0] || two != three {
		t.Errorf("services %v, then %v, then %v", one.Services, two.Services, three.Services)
	}
	none, problems := tr.Translate(&Objects{})
	if len(none.Services) != 0 || len(none.Clusters) != 0 || len(problems) != 1 {
		t.Errorf("without the ConfigMap: services %v, clusters %v, problems %v", none.Services, none.Clusters, problems)
	}
}
