package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (p *pod) volumeDir(name string) string { return filepath.Join(p.dir, "volumes", name) }

// makeVolumes writes all volumes of the pod: Secrets, ConfigMaps, projected ones with tokens, emptyDirs.
func (p *pod) makeVolumes(ctx context.Context) error {
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		dir := p.volumeDir(v.Name)
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
		// Whoever the container runs as may write to it, whatever our umask says.
		if err := os.Chmod(dir, 0o777); err != nil {
			return err
		}
		if err := p.fillVolume(ctx, dir, v); err != nil {
			return fmt.Errorf("%s: %w", v.Name, err)
		}
	}
	return os.MkdirAll(p.dir, 0o755)
}

func (p *pod) fillVolume(ctx context.Context, dir string, v *corev1.Volume) error {
	switch {
	case v.Secret != nil:
		return p.project(ctx, dir, corev1.VolumeProjection{Secret: &corev1.SecretProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: v.Secret.SecretName}, Items: v.Secret.Items, Optional: v.Secret.Optional}})
	case v.ConfigMap != nil:
		return p.project(ctx, dir, corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: v.ConfigMap.LocalObjectReference, Items: v.ConfigMap.Items, Optional: v.ConfigMap.Optional}})
	case v.DownwardAPI != nil:
		return p.project(ctx, dir, corev1.VolumeProjection{DownwardAPI: &corev1.DownwardAPIProjection{Items: v.DownwardAPI.Items}})
	case v.Projected != nil:
		for _, source := range v.Projected.Sources {
			if err := p.project(ctx, dir, source); err != nil {
				return err
			}
		}
	}
	return nil // emptyDir, and what means nothing here
}

// project writes one source of a projected volume.
func (p *pod) project(ctx context.Context, dir string, s corev1.VolumeProjection) error {
	core := p.kubelet.client.CoreV1()
	switch {
	case s.Secret != nil:
		secret, err := core.Secrets(p.Namespace).Get(ctx, s.Secret.Name, metav1.GetOptions{})
		if err != nil {
			return missing(err, s.Secret.Optional)
		}
		return writeItems(dir, secret.Data, s.Secret.Items)
	case s.ConfigMap != nil:
		m, err := core.ConfigMaps(p.Namespace).Get(ctx, s.ConfigMap.Name, metav1.GetOptions{})
		if err != nil {
			return missing(err, s.ConfigMap.Optional)
		}
		data := m.BinaryData
		if data == nil {
			data = map[string][]byte{}
		}
		for name, text := range m.Data {
			data[name] = []byte(text)
		}
		return writeItems(dir, data, s.ConfigMap.Items)
	case s.DownwardAPI != nil:
		for _, item := range s.DownwardAPI.Items {
			if item.FieldRef != nil {
				if err := writeFile(dir, item.Path, []byte(p.field(item.FieldRef.FieldPath))); err != nil {
					return err
				}
			}
		}
	case s.ServiceAccountToken != nil:
		t, err := core.ServiceAccounts(p.Namespace).CreateToken(ctx, p.Spec.ServiceAccountName, &authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{
				ExpirationSeconds: s.ServiceAccountToken.ExpirationSeconds,
				BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: p.Name, UID: p.UID},
			}}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		return writeFile(dir, s.ServiceAccountToken.Path, []byte(t.Status.Token))
	}
	return nil
}

func missing(err error, optional *bool) error {
	if apierrors.IsNotFound(err) && optional != nil && *optional {
		return nil
	}
	return err
}

func writeItems(dir string, data map[string][]byte, items []corev1.KeyToPath) error {
	if items == nil {
		for name := range data {
			items = append(items, corev1.KeyToPath{Key: name, Path: name})
		}
	}
	for _, item := range items {
		if err := writeFile(dir, item.Path, data[item.Key]); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(dir, name string, b []byte) error {
	file := filepath.Join(dir, filepath.Clean("/"+name))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o644)
}

// environment is a container's, with what a kubelet adds.
func (p *pod) environment(ctx context.Context, c *corev1.Container) ([]string, error) {
	host, port := p.kubelet.apiServer()
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=" + p.Name, "HOME=/",
		"KUBERNETES_SERVICE_HOST=" + host, "KUBERNETES_SERVICE_PORT=" + port, // no kube-proxy: the server itself
	}
	core := p.kubelet.client.CoreV1()
	for _, e := range c.Env {
		value := e.Value
		if from := e.ValueFrom; from != nil {
			switch {
			case from.FieldRef != nil:
				value = p.field(from.FieldRef.FieldPath)
			case from.ConfigMapKeyRef != nil:
				m, err := core.ConfigMaps(p.Namespace).Get(ctx, from.ConfigMapKeyRef.Name, metav1.GetOptions{})
				if err != nil {
					return nil, err
				}
				value = m.Data[from.ConfigMapKeyRef.Key]
			case from.SecretKeyRef != nil:
				s, err := core.Secrets(p.Namespace).Get(ctx, from.SecretKeyRef.Name, metav1.GetOptions{})
				if err != nil {
					return nil, err
				}
				value = string(s.Data[from.SecretKeyRef.Key])
			}
		}
		env = append(env, e.Name+"="+value)
	}
	return env, nil
}

// field is a field of the pod as the downward API names it.
func (p *pod) field(path string) string {
	switch path {
	case "metadata.name":
		return p.Name
	case "metadata.namespace":
		return p.Namespace
	case "metadata.uid":
		return string(p.UID)
	case "spec.nodeName":
		return p.kubelet.node
	case "spec.serviceAccountName":
		return p.Spec.ServiceAccountName
	case "status.podIP":
		return p.address4.String()
	case "status.hostIP":
		return p.kubelet.network.gateway4.Addr().String()
	}
	if name, ok := strings.CutPrefix(path, "metadata.labels['"); ok {
		return p.Labels[strings.TrimSuffix(name, "']")]
	}
	return ""
}
