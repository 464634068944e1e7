package translate

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/sluiceproxy/sluice/l7/filter"
	"github.com/sluiceproxy/sluice/upstream"
)

// Bounds of what an author or operator may ask for: "a set key always wins within the named maximum" (docs/hardening.md
// 3.3).
const (
	timeoutMax  = 7 * 24 * time.Hour // of every timeout
	bodyMax     = 1 << 50            // bytes, proxy-body-size
	headMax     = 1 << 20            // of heads, their lines and other buffers of one connection
	fieldsMax   = 10_000             // fields of a head
	triesMax    = 100                // proxy-next-upstream-tries
	requestsMax = 1 << 30            // requests of one connection
	streamsMax  = 1000               // HTTP/2 streams that one connection may have open
	countMax    = 1 << 24            // connections, handshakes
	hstsAgeMax  = 10 * 365 * 24 * time.Hour
)

func parseBool(value string) (bool, error) {
	b, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("%q is neither true nor false", value)
	}
	return b, nil
}

func parseInt(value string, low, high int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%q is not a whole number from %d to %d", value, low, high)
	}
	return n, nil
}

// parseSeconds reads ingress-nginx's timeouts: whole seconds without a unit.
func parseSeconds(value string, low int) (time.Duration, error) {
	high := int(timeoutMax / time.Second)
	n, err := parseInt(value, low, high)
	if err != nil {
		return 0, fmt.Errorf("%q is not a whole number of seconds from %d to %d, without a unit", value, low, high)
	}
	return time.Duration(n) * time.Second, nil
}

// parseDuration reads whole seconds, or a number with a unit as nginx and Go write it.
func parseDuration(value string, low, high time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if n, e := strconv.Atoi(value); e == nil && n >= 0 && n <= int(timeoutMax/time.Second) {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d < low || d > high {
		return 0, fmt.Errorf("%q is not a time from %v to %v, like 30 (seconds), 500ms or 1h", value, low, high)
	}
	return d, nil
}

// parseSize reads nginx's sizes: a number of bytes, or of units b, k, m, g.
func parseSize(value string, low, high int64) (int64, error) {
	digits := strings.ToLower(strings.ReplaceAll(value, " ", ""))
	shift := 0
	if n := len(digits); n > 0 {
		if i := strings.IndexByte("bkmg", digits[n-1]); i >= 0 {
			digits, shift = digits[:n-1], 10*i
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || int64(n) > math.MaxInt64>>shift || int64(n)<<shift < low || int64(n)<<shift > high {
		return 0, fmt.Errorf("%q is not a number of bytes from %s to %s, like 512k, 8m or 1g", value, sizeText(low), sizeText(high))
	}
	return int64(n) << shift, nil
}

// sizeText is a size in the largest unit that leaves it whole.
func sizeText(n int64) string {
	unit := 0
	for ; unit < 3 && n != 0 && n%1024 == 0; unit++ {
		n /= 1024
	}
	return strconv.FormatInt(n, 10) + []string{"", "k", "m", "g"}[unit]
}

func parseSwitch(value string) (bool, error) {
	switch value {
	case "on":
		return true, nil
	case "off":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither on nor off", value)
}

// parsePrefixes holds a list of addresses and networks to what filter.SourceRange takes; a bad one leaves the fallback.
func parsePrefixes(fallback, value string) (string, error) {
	list, err := filter.ParsePrefixes(value)
	if err == nil && len(list) == 0 {
		err = errors.New("the list is empty")
	}
	if err != nil {
		return fallback, err
	}
	return joinPrefixes(list), nil
}

// algorithms are the names of ingress-nginx that are built; the second table has ours.
var (
	algorithms    = map[string]upstream.Algorithm{"round_robin": upstream.RoundRobin, "ewma": upstream.EWMA}
	ownAlgorithms = map[string]upstream.Algorithm{
		"round_robin": upstream.RoundRobin, "ewma": upstream.EWMA, "least_conn": upstream.LeastConnections, "random_two": upstream.RandomOfTwo}
)

// splitList takes a comma-separated list apart; empty items are nothing.
func splitList(value string) (items []string) {
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}
