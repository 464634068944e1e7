package watcher

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// problemFile is how a Problem names a document of a file.
func problemFile(file string, document int) string {
	if document == 0 {
		return file
	}
	return fmt.Sprintf("%s, document %d", file, document)
}

// syntaxFault is the fault of a text that is no JSON from some line on.
func syntaxFault(err error, document int) fault {
	f := fault{document: document, reason: err.Error()}
	var at *lineError
	if errors.As(err, &at) {
		f.field = "line " + strconv.Itoa(at.line)
	}
	return f
}

var (
	yamlLine      = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)
	yamlDuplicate = regexp.MustCompile(`^key (".*") already set in map$`)
)

// yamlFaults are the faults of a document that is no YAML. The decoder counts a document's lines; people count a file's.
func yamlFaults(d document, err error) (faults []fault) {
	padded := append(bytes.Repeat([]byte("\n"), d.line-1), d.text...)
	if _, again := yaml.YAMLToJSONStrict(padded); again != nil {
		err = again
	}
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "error converting YAML to JSON: "))
		if line == "yaml: unmarshal errors:" {
			continue
		}
		f := fault{reason: strings.TrimPrefix(line, "yaml: ")}
		if m := yamlLine.FindStringSubmatch(line); m != nil {
			f.field, f.reason = "line "+m[1], m[2]
			if m := yamlDuplicate.FindStringSubmatch(f.reason); m != nil {
				f.reason = "key " + m[1] + " stands twice"
			}
		}
		faults = append(faults, f)
	}
	return faults[:min(len(faults), fileProblemsMax)]
}

// fieldFaults are the faults of an object that is JSON but not what its kind asks for.
func fieldFaults(text []byte, version schema.GroupVersionKind, err error) (faults []fault) {
	strict, ok := runtime.AsStrictDecodingError(err)
	if !ok {
		return []fault{{field: faultyField(text, version), reason: plainly(err)}}
	}
	for _, err := range strict.Errors() {
		f := fault{reason: err.Error()}
		var at interface{ FieldPath() string }
		if errors.As(err, &at) {
			f.field = at.FieldPath()
			f.reason = strings.TrimSpace(strings.TrimSuffix(f.reason, strconv.Quote(f.field)))
		}
		faults = append(faults, f)
	}
	return faults[:min(len(faults), fileProblemsMax)]
}

var typeMismatch = regexp.MustCompile(`cannot unmarshal (\w+)(?: \S+)? into .* of type (\S+)$`)

// plainly says a decoder's error without Go's types.
func plainly(err error) string {
	m := typeMismatch.FindStringSubmatch(err.Error())
	if m == nil {
		return strings.TrimPrefix(err.Error(), "json: ")
	}
	was, want := m[1], m[2]
	switch {
	case want == "string" && (was == "number" || was == "bool"):
		return "a text is expected: put the value in quotes"
	case want == "string":
		return "a text is expected"
	case strings.HasPrefix(want, "int") || strings.HasPrefix(want, "uint"):
		return "a whole number is expected"
	case want == "bool":
		return "true or false is expected"
	case strings.HasPrefix(want, "[]"):
		return "a list is expected"
	}
	return "an object is expected"
}

// faultyField finds the field that cannot be decoded. The decoder names it for some types only, and never with the index
// within a list, so the object is decoded again with ever less in it.
func faultyField(text []byte, version schema.GroupVersionKind) string {
	var whole map[string]any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if d.Decode(&whole) != nil {
		return ""
	}
	delete(whole, "apiVersion")
	delete(whole, "kind")
	tries := 0
	fails := func(value any) bool {
		if tries++; tries > fieldTriesMax {
			return false
		}
		part, err := json.Marshal(value)
		if err != nil {
			return false
		}
		_, _, err = serializer.Decode(part, &version, nil)
		return err != nil && !runtime.IsStrictDecodingError(err)
	}
	return strings.TrimPrefix(narrow(whole, "", 0, fails), ".")
}

// narrow answers the path of the smallest part of value that fails by itself.
func narrow(value any, path string, depth int, fails func(any) bool) string {
	if depth >= fieldDepthMax {
		return path
	}
	switch v := value.(type) {
	case map[string]any:
		if fails(map[string]any{}) {
			return path // the fault is that it is an object at all
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			inside := func(x any) bool { return fails(map[string]any{key: x}) }
			if inside(v[key]) {
				return narrow(v[key], path+fieldStep(key), depth+1, inside)
			}
		}
	case []any:
		if fails([]any{}) {
			return path
		}
		for i, x := range v {
			inside := func(x any) bool { return fails([]any{x}) }
			if inside(x) {
				return narrow(x, path+"["+strconv.Itoa(i)+"]", depth+1, inside)
			}
		}
	}
	return path
}

var plainKey = regexp.MustCompile(`^\w+$`)

// fieldStep is a key as a step of a path: metadata.annotations[nginx.ingress.kubernetes.io/use-regex].
func fieldStep(key string) string {
	if plainKey.MatchString(key) {
		return "." + key
	}
	return "[" + key + "]"
}
