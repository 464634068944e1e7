package main

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/sluiceproxy/sluice/fastpath"
)

// The tests of this file hold deploy/ to what it promises, without a cluster.

// tool is a program that tools/go.mod pins. The first call builds it.
func tool(t *testing.T, name string) string {
	t.Helper()
	if testing.Short() {
		t.Skipf("building %s may take minutes", name)
	}
	if out, err := exec.Command("make", "bin/"+name).CombinedOutput(); err != nil {
		t.Fatalf("make bin/%s: %v\n%s", name, err, out)
	}
	path, err := filepath.Abs("bin/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// output is what a program prints.
func output(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	c := exec.Command(name, args...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s%s", name, args, err, out, stderr.Bytes())
	}
	return out
}

// objects are manifests by kind and name.
type objects map[string]map[string]any

func parseObjects(t *testing.T, manifests []byte) objects {
	t.Helper()
	list := objects{}
	for _, text := range regexp.MustCompile(`(?m)^---\s*$`).Split(string(manifests), -1) {
		var o map[string]any
		if err := yaml.Unmarshal([]byte(text), &o); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if len(o) > 0 {
			list[fmt.Sprint(o["kind"], "/", o["metadata"].(map[string]any)["name"])] = o
		}
	}
	return list
}

// decode reads an object strictly: a field that its type does not have is an error.
func (l objects) decode(t *testing.T, key string, to any) {
	t.Helper()
	text, err := yaml.Marshal(l[key])
	if err == nil && l[key] == nil {
		err = fmt.Errorf("there is none among %v", slices.Sorted(maps.Keys(l)))
	}
	if err == nil {
		err = yaml.UnmarshalStrict(text, to)
	}
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
}

// types are those of the kinds in deploy/; nil: of a custom resource.
var types = map[string]any{
	"Namespace": corev1.Namespace{}, "ServiceAccount": corev1.ServiceAccount{}, "ConfigMap": corev1.ConfigMap{}, "Service": corev1.Service{},
	"ClusterRole": rbacv1.ClusterRole{}, "ClusterRoleBinding": rbacv1.ClusterRoleBinding{}, "Role": rbacv1.Role{}, "RoleBinding": rbacv1.RoleBinding{},
	"IngressClass": networkingv1.IngressClass{}, "DaemonSet": appsv1.DaemonSet{}, "PodDisruptionBudget": policyv1.PodDisruptionBudget{},
	"ValidatingWebhookConfiguration": admissionregistrationv1.ValidatingWebhookConfiguration{},
	"ServiceMonitor":                 nil, "Issuer": nil, "Certificate": nil,
}

// TestManifests builds every variant of deploy/ and holds its DaemonSet to what a roll-out without a lost request needs.
func TestManifests(t *testing.T) {
	kustomize := tool(t, "kustomize")
	for _, dir := range []string{"deploy", "deploy/nonroot", "deploy/ingress-nginx", "deploy/sockmap", "deploy/io-uring", "deploy/webhook"} {
		t.Run(dir, func(t *testing.T) {
			list := parseObjects(t, output(t, kustomize, "build", dir))
			for key := range list {
				kind, _, _ := strings.Cut(key, "/")
				if like, known := types[kind]; !known {
					t.Errorf("%s is of a kind that this test does not know", key)
				} else if like != nil {
					list.decode(t, key, reflect.New(reflect.TypeOf(like)).Interface())
				}
			}
			var set appsv1.DaemonSet
			list.decode(t, "DaemonSet/sluice", &set)
			checkDaemonSet(t, &set)
			if dir == "deploy/ingress-nginx" {
				list.decode(t, "IngressClass/nginx", &networkingv1.IngressClass{})
			}
		})
	}
}

func checkDaemonSet(t *testing.T, set *appsv1.DaemonSet) {
	t.Helper()
	update, pod := set.Spec.UpdateStrategy.RollingUpdate, set.Spec.Template.Spec
	if update == nil || update.MaxSurge.IntValue() < 1 || update.MaxUnavailable.IntValue() != 0 {
		t.Errorf("the update strategy is %v: the next pod has to start beside the present one", set.Spec.UpdateStrategy)
	}
	if !pod.HostNetwork || pod.DNSPolicy != corev1.DNSClusterFirstWithHostNet {
		t.Errorf("hostNetwork is %v, dnsPolicy %v", pod.HostNetwork, pod.DNSPolicy)
	}
	if len(pod.Containers) != 1 {
		t.Fatalf("there are %d containers", len(pod.Containers))
	}
	c := pod.Containers[0]
	if len(c.Ports) > 0 {
		t.Errorf("it declares ports, so that the next pod does not fit on the node: %v", c.Ports)
	}
	if s := c.SecurityContext; *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || len(s.Capabilities.Drop) != 1 || s.Capabilities.Drop[0] != "ALL" {
		t.Errorf("the security context is %v", s)
	}
	o := defaultOptions()
	if err := parseFlags(&o, c.Args, table); err != nil {
		t.Errorf("the flags: %v", err)
	}
	if !o.reusePort || !strings.HasPrefix(o.adminAddress, "unix://") {
		t.Errorf("two pods of a node get in each other's way: %v", c.Args)
	}
	var rights []corev1.Capability // no other than what is asked for needs
	if o.httpPort < 1024 {
		rights = append(rights, "NET_BIND_SERVICE")
	}
	if o.sockmap != fastpath.SockmapOff {
		rights = append(rights, "BPF", "NET_ADMIN", "PERFMON")
	}
	if s := c.SecurityContext; !slices.Equal(s.Capabilities.Add, rights) || (len(rights) > 0) != (*s.RunAsUser == 0) {
		t.Errorf("port %d and --sockmap do not go with %v", o.httpPort, s)
	}
	for name, p := range map[string]*corev1.Probe{"startup": c.StartupProbe, "readiness": c.ReadinessProbe, "liveness": c.LivenessProbe} {
		if p == nil || p.Exec == nil || !slices.Contains(p.Exec.Command, "--admin-address="+o.adminAddress) {
			t.Fatalf("the %s probe does not ask %s: %v", name, o.adminAddress, p)
		}
		asked := probing{}
		if err := parseFlags(new(options), p.Exec.Command[2:], asked.flags()); err != nil || p.Exec.Command[1] != "probe" {
			t.Errorf("the %s probe %v: %v", name, p.Exec.Command, err)
		}
	}
	const leaving, drain, rest = 15 * time.Second, 240 * time.Second, 5 * time.Second
	needs := time.Duration(c.Lifecycle.PreStop.Sleep.Seconds)*time.Second + o.gracePeriod + leaving + drain + rest
	if has := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second; has < needs {
		t.Errorf("a pod that ends has %v, and needs %v", has, needs)
	}
}

// TestChart lints the Helm chart, and holds what it makes by default to what deploy/ holds.
func TestChart(t *testing.T) {
	helm, kustomize := tool(t, "helm"), tool(t, "kustomize")
	t.Setenv("HELM_CACHE_HOME", t.TempDir())
	output(t, helm, "lint", "--strict", "deploy/chart")

	chart := parseObjects(t, output(t, helm, "template", "sluice", "deploy/chart", "--namespace=sluice", "--kube-version=1.34"))
	base := parseObjects(t, output(t, kustomize, "build", "deploy"))
	delete(base, "Namespace/sluice") // helm install --create-namespace
	for key := range chart {
		dropLabels(chart[key], "app.kubernetes.io/managed-by", "helm.sh/chart")
	}
	for _, key := range slices.Sorted(maps.Keys(base)) {
		want, _ := yaml.Marshal(base[key])
		got, _ := yaml.Marshal(chart[key])
		if !bytes.Equal(want, got) {
			t.Errorf("%s of the chart is\n%s\nand of deploy/\n%s", key, got, want)
		}
		delete(chart, key)
	}
	for key := range chart {
		t.Errorf("the chart has %s, which deploy/ has not", key)
	}

	for name, c := range map[string]struct {
		values []string
		holds  string // of the manifests, or of the error
	}{
		"nginx's class":         {[]string{"ingressClass.name=nginx", "ingressClass.controller=k8s.io/ingress-nginx", "ingressClass.create=false", "configMap=ingress-nginx/ingress-nginx-controller"}, "--configmap=ingress-nginx/ingress-nginx-controller"},
		"sockmap":               {[]string{"sockmap=auto"}, "add: [NET_BIND_SERVICE, BPF, NET_ADMIN, PERFMON]"},
		"a seccomp profile":     {[]string{"seccompProfile.type=Localhost", "seccompProfile.localhostProfile=sluice.json"}, `localhostProfile: "sluice.json"`},
		"no seccomp profile":    {[]string{"seccompProfile.type=None"}, "/seccompProfile/type"},
		"sockmap, not root":     {[]string{"sockmap=on", "runAsRoot=false", "ports.http=8080", "ports.https=8443"}, "sockmap needs runAsRoot"},
		"not root":              {[]string{"runAsRoot=false", "ports.http=8080", "ports.https=8443"}, "runAsNonRoot: true"},
		"monitoring":            {[]string{"monitoring.serviceMonitor.create=true", "monitoring.dashboard.create=true"}, "kind: ServiceMonitor"},
		"a longer drain":        {[]string{"drain.limit=3600"}, "terminationGracePeriodSeconds: 3630"},
		"TCP services":          {[]string{"tcp.5432=shop/db:5432::PROXY"}, `"5432": "shop/db:5432::PROXY"`},
		"… by a flag":           {[]string{"tcp.5432=shop/db:5432"}, "--tcp-services-configmap=$(POD_NAMESPACE)/sluice-tcp"},
		"UDP services":          {[]string{"udp.53=kube-system/kube-dns:53"}, "--udp-services-configmap=$(POD_NAMESPACE)/sluice-udp"},
		"a bad TCP service":     {[]string{"tcp.5432=db:5432"}, "/tcp/5432"},
		"the webhook":           {[]string{"webhook.create=true"}, "inject-ca-from: default/sluice-webhook"},
		"… on another port":     {[]string{"webhook.create=true", "webhook.port=9443"}, "--validating-webhook=:9443"},
		"… with a certificate":  {[]string{"webhook.create=true", "webhook.secretName=mine", "webhook.caBundle=QUJD"}, "caBundle: QUJD"},
		"… that nobody trusts":  {[]string{"webhook.create=true", "webhook.secretName=mine"}, "webhook.secretName needs webhook.caBundle"},
		"settings":              {[]string{"config.hsts=false"}, `hsts: "false"`},
		"not root, low ports":   {[]string{"runAsRoot=false"}, "/ports/http"},
		"unknown value":         {[]string{"ingresClass.name=x"}, "ingresClass"},
		"no surge":              {[]string{"update.maxSurge=0"}, "/update/maxSurge"},
		"drain limit in config": {[]string{"config.worker-shutdown-timeout=1s"}, "worker-shutdown-timeout"},
		"a port twice":          {[]string{"runAsRoot=false", "ports.http=8080", "ports.https=8443", "webhook.create=true"}, "webhook.port is 8443, which another"},
		"nothing to scrape":     {[]string{"monitoring.serviceMonitor.create=true", "ports.metrics=0"}, "needs ports.metrics"},
		"a bad port":            {[]string{"ports.http=70000"}, "/ports/http"},
	} {
		args := []string{"template", "sluice", "deploy/chart", "--kube-version=1.34"}
		for _, v := range c.values {
			args = append(args, "--set="+v)
		}
		if out, _ := exec.Command(helm, args...).CombinedOutput(); !strings.Contains(string(out), c.holds) {
			t.Errorf("%s: there is no %q in\n%s", name, c.holds, out)
		}
	}
}

// TestChartNumbers: a number of a values file is the one that it looks like.
func TestChartNumbers(t *testing.T) {
	values := filepath.Join(t.TempDir(), "values.yaml")
	text := "config: {hsts-max-age: 63072000, proxy-body-size: 10485760, limit: 1.5, large: 12345678901234, hsts: true}\n"
	if err := os.WriteFile(values, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out := string(output(t, tool(t, "helm"), "template", "sluice", "deploy/chart", "--kube-version=1.34", "--show-only=templates/configmap.yaml", "--values="+values))
	for _, want := range []string{`hsts-max-age: "63072000"`, `proxy-body-size: "10485760"`, `limit: "1.5"`, `large: "12345678901234"`, `hsts: "true"`} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no %s in\n%s", want, out)
		}
	}
}

func dropLabels(o any, names ...string) {
	m, ok := o.(map[string]any)
	if !ok {
		return
	}
	for key, v := range m {
		if labels, ok := v.(map[string]any); ok && key == "labels" {
			for _, name := range names {
				delete(labels, name)
			}
		}
		dropLabels(v, names...)
	}
}

// TestChartValues: every value is described, in the schema too, and nothing else is.
func TestChartValues(t *testing.T) {
	var values, schema map[string]any
	for name, to := range map[string]*map[string]any{"values.yaml": &values, "values.schema.json": &schema} {
		text, err := os.ReadFile("deploy/chart/" + name)
		if err == nil {
			err = yaml.Unmarshal(text, to)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	delete(schema["properties"].(map[string]any), "global")
	compareValues(t, "", values, schema)
}

func compareValues(t *testing.T, path string, values, schema map[string]any) {
	t.Helper()
	properties, _ := schema["properties"].(map[string]any)
	if properties == nil {
		return // free to be filled
	}
	for name := range properties {
		if _, ok := values[name]; !ok {
			t.Errorf("values.yaml has no %s%s, which the schema allows", path, name)
		}
	}
	for name, v := range values {
		p, _ := properties[name].(map[string]any)
		if p == nil {
			t.Errorf("the schema has no %s%s", path, name)
			continue
		}
		inner, isMap := v.(map[string]any)
		if p["description"] == nil && p["properties"] == nil {
			t.Errorf("%s%s is not described", path, name)
		}
		if isMap {
			compareValues(t, path+name+".", inner, p)
		}
	}
}

// TestDashboard: the dashboard asks only for metrics that there are.
func TestDashboard(t *testing.T) {
	golden, err := os.ReadFile("admin/testdata/metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"process_cpu_seconds_total": true, "process_resident_memory_bytes": true, "process_open_fds": true, "process_max_fds": true}
	for line := range strings.Lines(string(golden)) {
		f := strings.Fields(line)
		known[f[0]] = f[1] != "histogram"
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			known[f[0]+suffix] = f[1] == "histogram"
		}
	}
	text, err := os.ReadFile("deploy/monitoring/sluice.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title, Description, Type string
			Targets                  []struct{ Expr string }
		}
		Templating struct{ List []struct{ Definition string } }
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`\b(sluice|nginx_ingress_controller|process|go)_[a-z_]+`)
	asked := 0
	check := func(where, expr string) {
		for _, m := range name.FindAllString(expr, -1) {
			if asked++; !known[m] {
				t.Errorf("%s: there is no metric %s", where, m)
			}
		}
	}
	for _, p := range dashboard.Panels {
		if p.Type != "row" && (p.Description == "" || len(p.Targets) == 0) {
			t.Errorf("panel %q has no description or asks for nothing", p.Title)
		}
		for _, target := range p.Targets {
			check(p.Title, target.Expr)
		}
	}
	for _, v := range dashboard.Templating.List {
		check("variable", v.Definition)
	}
	if asked < 30 {
		t.Errorf("only %d metrics are asked for", asked)
	}
	if copied, err := os.ReadFile("deploy/chart/files/sluice.json"); err != nil || !bytes.Equal(copied, text) {
		t.Errorf("the chart's dashboard is another one: %v", err)
	}
}

// TestRights runs the program with exactly the rights that the DaemonSets give it, in a network of its own: with
// CAP_NET_BIND_SERVICE and nothing else it binds 80 and 443, without any capability high ports, and what is missing is
// named. The root file system is read-only but for the pod's volume.
func TestRights(t *testing.T) {
	for _, name := range []string{"unshare", "setpriv", "ip", "mount"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed (Debian: util-linux, iproute2)", name)
		}
	}
	if out, err := exec.Command("unshare", "--user", "--map-root-user", "--net", "--mount", "true").CombinedOutput(); err != nil {
		t.Skipf("namespaces cannot be made here: %v, %s", err, out)
	}
	manifests, volume := t.TempDir(), t.TempDir()
	backend := newBackend(t, "one", nil)
	text := site{name: "shop", host: "shop.example", ports: []int{backend.port()}}.yaml()
	if err := os.WriteFile(filepath.Join(manifests, "all.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	const lowPorts, none = "--bounding-set=-all,+net_bind_service", "--bounding-set=-all"
	for _, c := range []struct{ name, rights, flags, logs string }{
		{"low ports", lowPorts, "", "msg=serving"},
		{"low ports without the capability", none, "", "ports below 1024 need the capability CAP_NET_BIND_SERVICE"},
		{"high ports", none, "--http-port=8080 --https-port=8443", "msg=serving"},
	} {
		t.Run(c.name, func(t *testing.T) {
			script := fmt.Sprintf(`set -e
ip link set lo up
mount -t tmpfs none %[1]s
mount -o remount,bind,ro /
if touch /written 2>/dev/null; then echo "the root file system can be written"; exit 9; fi
exec setpriv --no-new-privs --inh-caps=-all --ambient-caps=-all %[2]s -- %[3]s --manifests=%[4]s --reuse-port --admin-address=unix://%[1]s/admin.sock --metrics-address=:10254 %[5]s`,
				volume, c.rights, os.Args[0], manifests, c.flags)
			command := exec.Command("unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", script)
			command.Env = append(program().Env, "GOMEMLIMIT=920MiB")
			child := startCommand(t, command, nil)
			child.logged(c.logs)
			if !strings.Contains(c.logs, "serving") {
				child.ends(10*time.Second, 1)
				return
			}
			if strings.Contains(child.logText(), "may go to another process") {
				t.Errorf("the ports cannot be claimed with these rights:\n%s", child.logText())
			}
			status := fmt.Sprintf("/proc/%d/status", child.Process.Pid)
			text, err := os.ReadFile(status)
			if err != nil {
				t.Fatal(err)
			}
			want := "0000000000000400" // CAP_NET_BIND_SERVICE
			if c.rights == none {
				want = "0000000000000000"
			}
			if !regexp.MustCompile(`CapBnd:\s+`+want).Match(text) || !regexp.MustCompile(`CapEff:\s+`+want).Match(text) {
				t.Errorf("the process has other rights:\n%s", text)
			}
		})
	}
}

// TestImage builds the image for both architectures without a registry. It holds one static program and nothing else.
func TestImage(t *testing.T) {
	switch _, err := exec.LookPath("buildah"); {
	case testing.Short():
		t.Skip("compiles the program twice")
	case err != nil:
		t.Skip("buildah is not installed (Debian: buildah)")
	case os.Getuid() != 0:
		t.Skip("looking into an image needs root: buildah mount")
	}
	dir := t.TempDir()
	storage := []string{"--root=" + dir + "/root", "--runroot=" + dir + "/run", "--storage-driver=vfs"}
	buildah := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(string(output(t, "buildah", append(slices.Clone(storage), args...)...)))
	}
	output(t, "make", "image", "IMAGE=localhost/sluice", "VERSION=v0-test", "BUILDAHFLAGS="+strings.Join(storage, " "))
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		image := "localhost/sluice:v0-test-" + arch
		if got := buildah("inspect", "--type=image", "--format={{.OCIv1.Architecture}} {{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}}", image); got != arch+" 65532:65532 [/sluice]" {
			t.Errorf("%s is %s", image, got)
		}
		container := buildah("from", "--pull-never", "--arch="+arch, image)
		root := buildah("mount", container)
		var files []string
		_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				files = append(files, strings.TrimPrefix(path, root))
			}
			return err
		})
		if !slices.Equal(files, []string{"/sluice"}) {
			t.Errorf("%s holds %q", image, files)
		}
		program, err := elf.Open(root + "/sluice")
		if err != nil {
			t.Fatal(err)
		}
		if libraries, _ := program.ImportedLibraries(); program.Machine != machine || len(libraries) > 0 {
			t.Errorf("%s is for %v and needs %q", image, program.Machine, libraries)
		}
		_ = program.Close()
		if arch == runtime.GOARCH {
			if out := string(output(t, root+"/sluice", "version")); !strings.HasPrefix(out, "sluice v0-test ") {
				t.Errorf("%s says %s", image, out)
			}
		}
		buildah("rm", container)
	}
}
