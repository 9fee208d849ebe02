// Package certs keeps the gateway's certificates: publicly trusted ones by ACME (RFC 8555), each name's alone, and
// until there is one, those of an authority of the box's own. Its folder:
//
//	account-HEX.pem           the key of the account with the ACME authority whose URL has a hash that begins with HEX
//	NAME.pem, NAME.json       a publicly trusted certificate (key, then chain), and what is known of its renewal
//	module-MODULE.pem, .json  the same for several names of a module
//	authority.pem, local.pem  the box's own authority and the certificate that it made for all names
//	modules/MODULE.pem        what modules get: copies of the above
//	status.json               how it stands with all of them: a gateway.Status
package certs

import (
	"context"
	"net/netip"
	"slices"
	"strings"
)

// Config says which certificates are wanted.
type Config struct {
	Names     []string            // host names and addresses of the box
	Modules   map[string][]string // module: names of its certificate
	Directory string              // URL of the ACME authority's directory; empty: there is none
	Email     string              // of the account there; may be empty
	Private   bool                // it is the organisation's own, and certifies names that no public one knows, too
	Domain    string              // of the organisation; empty: it has none

	// Lookup returns the addresses of a host name, none if it has none; nil: names are asked for unseen.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

// certifiable tells whether the authority could issue a certificate for the name.
func (c Config) certifiable(name string) bool {
	return public(name) || c.Private && !isAddress(name) && strings.Contains(name, ".") && hostName(name)
}

func isAddress(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}

// reserved are top-level domains that no public authority knows (RFC 2606, 6761, 6762, 8375 and the custom of home
// routers).
var reserved = []string{
	"arpa", "example", "home", "internal", "invalid", "lan", "local", "localdomain", "localhost", "onion", "test",
}

// special are networks that netip does not call private and that nobody can prove to have (RFC 6598, 5737, 3849,
// 2544, 3879).
var special = []netip.Prefix{
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("fec0::/10"),
}

// public tells whether a public authority could issue a certificate for the name.
func public(name string) bool {
	if a, err := netip.ParseAddr(name); err == nil {
		return a.IsGlobalUnicast() && !a.IsPrivate() && a.Zone() == "" &&
			!slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	i := strings.LastIndexByte(name, '.')
	return i > 0 && !slices.Contains(reserved, name[i+1:]) && hostName(name)
}

// hostName: letters, digits, hyphens and points, which is also what a file's name may be made of.
func hostName(name string) bool {
	return len(name) <= 253 && !strings.HasPrefix(name, ".") && !strings.HasSuffix(name, ".") &&
		!strings.Contains(name, "..") && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") == ""
}

// Normal is the form in which names are compared.
func Normal(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// normal gives the names in the form in which they are compared, without those that cannot be in a certificate, in order.
func normal(names []string) []string {
	var all []string
	for _, n := range names {
		n = Normal(n)
		if a, err := netip.ParseAddr(n); err == nil && a.Zone() == "" {
			all = append(all, a.Unmap().String())
		} else if hostName(n) && n != "" {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
