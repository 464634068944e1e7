package translate

import (
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
	bodyMax     = math.MaxInt64 >> 1 // proxy-body-size
	headMax     = 1 << 20            // of heads, their lines and other buffers of one connection
	fieldsMax   = 10_000             // fields of a head
	triesMax    = 100                // proxy-next-upstream-tries
	requestsMax = 1 << 30            // requests of one connection
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
	n, err := parseInt(value, low, int(timeoutMax/time.Second))
	if err != nil {
		return 0, fmt.Errorf("%w of seconds, without a unit", err)
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
		return 0, fmt.Errorf("%q is not a size from %d to %d bytes, like 512k, 8m or 1g", value, low, high)
	}
	return int64(n) << shift, nil
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

// checkPrefixes holds a list of addresses and networks to what filter.SourceRange takes.
func checkPrefixes(value string) (string, error) {
	if strings.TrimSpace(value) == "" {
		return "", fmt.Errorf("the list is empty")
	}
	_, err := filter.ParsePrefixes(value)
	return value, err
}

// algorithms are the names of ingress-nginx that are built; the second table has ours.
var (
	algorithms    = map[string]upstream.Algorithm{"round_robin": upstream.RoundRobin, "ewma": upstream.EWMA}
	ownAlgorithms = map[string]upstream.Algorithm{
		"round_robin": upstream.RoundRobin, "ewma": upstream.EWMA, "least_conn": upstream.LeastConnections}
	laterAlgorithms = []string{"chash", "chashsubset", "sticky_balanced", "sticky_persistent"}
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
