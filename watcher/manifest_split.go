package watcher

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// document is one document of a manifest.
type document struct {
	line int // where it begins, from 1
	text []byte
	json bool
}

// splitYAML cuts a text at its document marks. Documents of nothing but comments and directives are left out, so that
// people and we count alike.
func splitYAML(text []byte) (documents []document) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	start, startLine, line := 0, 1, 0
	cut := func(end int) {
		if d := text[start:end]; hasContent(d) {
			documents = append(documents, document{line: startLine, text: d, json: looksLikeJSON(d)})
		}
	}
	for at := 0; at < len(text); {
		line++
		end := len(text)
		if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		switch mark(text[at:end]) {
		case '-': // the mark stays with what follows: content may stand on its line
			cut(at)
			start, startLine = at, line
		case '.':
			cut(at)
			start, startLine = end, line+1
		}
		at = end
	}
	cut(len(text))
	return documents
}

// mark tells whether a line begins a document ('-') or ends one ('.').
func mark(line []byte) byte {
	if len(line) < 3 || len(line) > 3 && line[3] != ' ' && line[3] != '\t' && line[3] != '\r' && line[3] != '\n' {
		return 0
	}
	if three := string(line[:3]); three == "---" || three == "..." {
		return three[0]
	}
	return 0
}

// hasContent tells whether a document says anything.
func hasContent(text []byte) bool {
	for line := range bytes.Lines(text) {
		if mark(line) == '-' {
			line = line[3:]
		}
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return true
		}
	}
	return false
}

// looksLikeJSON tells JSON from YAML that begins alike.
func looksLikeJSON(text []byte) bool {
	text = bytes.TrimSpace(text)
	return len(text) > 0 && text[0] == '{' && json.Valid(text)
}

// splitJSON cuts a text of JSON values, one after another. What cannot be read ends it.
func splitJSON(text []byte) (documents []document, err error) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	d := json.NewDecoder(bytes.NewReader(text))
	for {
		var value json.RawMessage
		err := d.Decode(&value)
		if err == io.EOF {
			return documents, nil
		}
		if err != nil {
			return documents, &lineError{line: lineAt(text, d, err), err: err}
		}
		begin := int(d.InputOffset()) - len(value)
		documents = append(documents, document{line: 1 + bytes.Count(text[:begin], []byte("\n")), text: value, json: true})
	}
}

// lineError is an error of syntax on a line of a file.
type lineError struct {
	line int
	err  error
}

func (e *lineError) Error() string { return e.err.Error() }

func lineAt(text []byte, d *json.Decoder, err error) int {
	at := d.InputOffset()
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		at = syntax.Offset
	} else if errors.Is(err, io.ErrUnexpectedEOF) {
		at = int64(len(text))
	}
	return 1 + bytes.Count(text[:min(max(at, 0), int64(len(text)))], []byte("\n"))
}
