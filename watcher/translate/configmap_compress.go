package translate

import (
	"fmt"
	"strings"

	"github.com/sluiceproxy/sluice/l7/filter"
)

// Compression of what backends answer; off unless a key asks for it.
var compressKeys = []configKey{
	{key: "use-gzip", preset: "false", verdict: differs,
		note:  "Not together with limit-rate, nor where Cache-Control says no-transform. Beyond sluice-compress-memory bodies go as they are. What a backend streams is flushed whenever it pauses.",
		text:  "Compresses backends' answers with gzip, for clients that accept it: status 200, 403 and 404, HTTP/1.1 and later.",
		parse: boolean(func(c *configuration) *bool { return &c.compress.Gzip.On })},
	{key: "gzip-level", preset: "1", verdict: same, text: "… so hard, 1 to 9.",
		parse: number(1, 9, func(c *configuration) *int { return &c.compress.Gzip.Level })},
	{key: "gzip-min-length", preset: "256", verdict: same, text: "… from so many bytes on.",
		parse: minLength(func(c *configuration) *filter.Coding { return &c.compress.Gzip })},
	{key: "gzip-types", verdict: same, text: "… these media types, separated by blanks, beside text/html; `*`: all. Default: ingress-nginx's.",
		parse: mediaTypes(func(c *configuration) *string { return &c.compress.Gzip.Types })},
	{key: "gzip-disable", verdict: differs, note: "The expression is RE2's.",
		text:  "User agents whose answers are not compressed with gzip: an expression, in any case; `msie6`: Internet Explorer 4 to 6.",
		parse: parseGzipDisable},
	{key: "enable-brotli", preset: "false", verdict: differs, note: "See use-gzip. It is preferred to gzip.", text: "Compresses with brotli.",
		parse: boolean(func(c *configuration) *bool { return &c.compress.Brotli.On })},
	{key: "brotli-level", preset: "4", verdict: same, text: "… so hard, 0 to 11.",
		parse: number(0, 11, func(c *configuration) *int { return &c.compress.Brotli.Level })},
	{key: "brotli-min-length", preset: "20", verdict: same, text: "… from so many bytes on.",
		parse: minLength(func(c *configuration) *filter.Coding { return &c.compress.Brotli })},
	{key: "brotli-types", verdict: same, text: "… these media types, beside text/html; `*`: all. Default: ingress-nginx's.",
		parse: mediaTypes(func(c *configuration) *string { return &c.compress.Brotli.Types })},
	{key: "sluice-enable-zstd", preset: "false", verdict: own, text: "Compresses with zstd, after brotli and before gzip; gzip-types and gzip-min-length hold for it too.",
		parse: boolean(func(c *configuration) *bool { return &c.compress.Zstd.On })},
	{key: "sluice-zstd-level", preset: "3", verdict: own, text: "… so hard, 1 to 22; there are four steps.",
		parse: number(1, 22, func(c *configuration) *int { return &c.compress.Zstd.Level })},
	{key: "sluice-compress-memory", preset: "128m", verdict: own,
		text:  "What bodies that are compressed may hold together: 1.6 MiB each with gzip, 3 MiB with brotli up to level 4, 40 MiB with level 9.",
		parse: size(0, 1<<40, func(c *configuration) *int { return &c.settings.EncodeMemory })},
}

const (
	gzipTypes = "application/atom+xml application/javascript application/x-javascript application/json application/rss+xml " +
		"application/vnd.ms-fontobject application/x-font-ttf application/x-web-app-manifest+json application/xhtml+xml application/xml " +
		"font/opentype image/svg+xml image/x-icon text/css text/javascript text/plain text/x-component"
	brotliTypes = "application/xml+rss " + gzipTypes
)

var compressDefault = filter.Compress{
	Gzip:   filter.Coding{Level: 1, MinLength: 256, Types: gzipTypes},
	Brotli: filter.Coding{Level: 4, MinLength: 20, Types: brotliTypes},
	Zstd:   filter.Coding{Level: 3},
}

// withZstd is c with what gzip says of types and lengths for zstd too.
func withZstd(c filter.Compress) filter.Compress {
	c.Zstd.MinLength, c.Zstd.Types = c.Gzip.MinLength, c.Gzip.Types
	return c
}

func minLength(of func(*configuration) *filter.Coding) func(*configuration, string) error {
	return func(c *configuration, value string) error {
		n, err := parseSize(value, 0, 1<<30)
		if err == nil {
			of(c).MinLength = n
		}
		return err
	}
}

func mediaTypes(field func(*configuration) *string) func(*configuration, string) error {
	return func(c *configuration, value string) error {
		for t := range strings.FieldsSeq(value) {
			if kind, name, ok := strings.Cut(t, "/"); t != "*" && (!ok || kind == "" || name == "" || strings.ContainsAny(t, ",;\"")) {
				return fmt.Errorf("%q is not a media type", t)
			}
		}
		*field(c) = strings.Join(strings.Fields(value), " ")
		return nil
	}
}

func parseGzipDisable(c *configuration, value string) error {
	_, err := filter.Compress{Gzip: filter.Coding{On: true, Level: 1}, NoGzip: value}.Compile(nil)
	if err == nil {
		c.compress.NoGzip = value
	}
	return err
}
