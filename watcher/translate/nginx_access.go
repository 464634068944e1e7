package translate

import (
	"github.com/sluiceproxy/sluice/l7/filter"
)

// Who may come in, by address.
var accessAnnotations = []annotation{
	{
		key: "allowlist-source-range", aliases: []string{"whitelist-source-range"},
		scope: scopeLocation, risk: riskMedium, verdict: same, effect: deny, empty: true,
		text: "Lets only these addresses and networks in, others get 403; replaces the ConfigMap's list.",
		parse: func(d *dialect, value string) (err error) {
			d.allow, err = parsePrefixes(d.allow, value)
			return err
		},
	},
	{
		key: "denylist-source-range", scope: scopeLocation, risk: riskMedium, verdict: same, effect: deny, empty: true,
		text: "Answers these addresses and networks with 403, before the allow list is asked; replaces the ConfigMap's list.",
		parse: func(d *dialect, value string) (err error) {
			d.deny, err = parsePrefixes(d.deny, value)
			return err
		},
	},
	{
		key: "enable-access-log", scope: scopeLocation, risk: riskLow, verdict: same,
		text: "Whether requests of the Ingress are logged; default true.",
		parse: func(d *dialect, value string) error {
			b, err := parseBool(value)
			d.policy.NoAccessLog = err == nil && !b
			return err
		},
	},
}

// access is the filter of the source ranges, if there are any.
func (d *dialect) access() (filter.SourceRange, bool) {
	return filter.SourceRange{Allow: d.allow, Deny: d.deny}, d.allow != "" || d.deny != ""
}
