package certs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// errLeadsElsewhere: an authority that asks for the name would not find this box.
var errLeadsElsewhere = errors.New("the name does not lead to this server")

// lead tells why names are not to be asked for yet. Authorities bound how often one may fail, so none is asked for a name that
// nobody has, nor for one below the domain that leads somewhere else than the domain does. Where that is, it cannot tell:
// behind a router a box does not know its address.
func (c Config) lead(ctx context.Context, names []string) error {
	for _, n := range names {
		if c.Lookup == nil || isAddress(n) {
			continue
		}
		addresses, err := c.addresses(ctx, n)
		if err != nil {
			return err
		}
		if !strings.HasSuffix(n, "."+c.Domain) {
			continue
		}
		domain, err := c.addresses(ctx, c.Domain)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(addresses, func(a netip.Addr) bool { return slices.Contains(domain, a) }) {
			return fmt.Errorf("%w: %s has other addresses than %s", errLeadsElsewhere, n, c.Domain)
		}
	}
	return nil
}

// addresses of a name, which must have one.
func (c Config) addresses(ctx context.Context, name string) ([]netip.Addr, error) {
	all, err := c.Lookup(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("cannot find %q: %w", name, err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: %s has no address", errLeadsElsewhere, name)
	}
	return all, nil
}

// Lookup makes a function that asks the name servers, in turn, for the addresses of a name.
func Lookup(servers []string) func(ctx context.Context, host string) ([]netip.Addr, error) {
	r := resolver(servers)
	return func(ctx context.Context, host string) ([]netip.Addr, error) {
		all, err := r.LookupNetIP(ctx, "ip", host+".") // not below a domain that the machine searches in
		var e *net.DNSError
		if errors.As(err, &e) && e.IsNotFound {
			return nil, nil
		}
		for i := range all {
			all[i] = all[i].Unmap()
		}
		return all, err
	}
}
