package supervisor

import (
	"context"
	"net/url"
	"strings"

	"allotment/api"
	"allotment/gateway"
	"allotment/init/plan"
)

// portalLabel is the label below the organisation's domain that is the portal's host name.
const portalLabel = "portal"

// Network implements apiserver.Box.
func (b *Box) Network() api.Network {
	s := b.supervisor
	var n api.Network
	folder := ""
	_ = s.call(func(context.Context) {
		n.Domain, folder = s.domain, s.folder
		for _, a := range s.net.Addresses {
			n.Addresses = append(n.Addresses, a.Addr().String())
		}
		for _, a := range s.net.DNS {
			n.Servers = append(n.Servers, a.String())
		}
		n.Names = []api.Name{{Host: s.domain}, {Host: portalLabel + "." + s.domain}}
		if www := wwwHost(s.domain); www != "" {
			n.Names = append(n.Names, api.Name{Host: www, Optional: true})
		}
		n.Issuer = issuerName(s.config.ACME.Directory)
		for _, m := range s.modules {
			if m.on {
				n.Names, n.Records = append(n.Names, hostsOf(m.plan, s.domain)...), append(n.Records, recordsOf(m.plan, s.domain)...)
			}
		}
	})
	n.Certificates, n.Authority = certificatesOf(folder)
	return n
}

// certificatesOf is what the gateway tells of certificates, nothing before it has.
func certificatesOf(folder string) (all []api.Certificate, authority string) {
	if folder == "" {
		return nil, ""
	}
	status, err := gateway.ReadStatus(folder)
	if err != nil {
		return nil, ""
	}
	for _, c := range status.Certificates {
		all = append(all, api.Certificate(c))
	}
	return all, status.Authority
}

// issuerName is by what CAA records name the authority with the directory, if that is known: Let's Encrypt's is its domain.
func issuerName(directory string) string {
	const known = "letsencrypt.org"
	if u, err := url.Parse(directory); err == nil && strings.HasSuffix(u.Hostname(), "."+known) {
		return known
	}
	return ""
}

// hostsOf are the host names below the domain that the module has certificates for.
func hostsOf(p *plan.Module, domain string) []api.Name {
	var all []api.Name
	for _, x := range p.Declared.Secrets {
		if x.Kind == "certificate" && x.Host != "" {
			all = append(all, api.Name{Host: x.Host + "." + domain, Module: p.Name})
		}
	}
	return all
}

// recordsOf are the records that the module declares, by their whole names.
func recordsOf(p *plan.Module, domain string) []api.Record {
	var all []api.Record
	for _, r := range p.Declared.DNS {
		host := domain
		if r.Name != "@" {
			host = r.Name + "." + domain
		}
		all = append(all, api.Record{Module: p.Name, Host: host, Type: r.Type, Value: r.Value})
	}
	return all
}

// Power implements apiserver.Box.
func (b *Box) Power(ctx context.Context, restart bool) error {
	s, who := b.supervisor, "an officer"
	if actor := api.Actor(ctx); actor != "" {
		who = actor
	}
	var err error
	failed := s.call(func(context.Context) {
		switch {
		case s.trial != nil:
			err = api.Errorf(api.Conflict, "version %s is on trial; please wait until that is over", s.config.Manifest.Version)
		case restart:
			s.reset(who + " wants a restart")
		default:
			s.stop(who + " switches it off")
		}
	})
	return firstOf(failed, err)
}

// needs are the names of the modules that m does not work without.
func (s *Supervisor) needs(m *module) []string {
	var names []string
	for _, o := range s.modules {
		if o != m && m.requires(o) {
			names = append(names, o.plan.Name)
		}
	}
	return names
}

// quota is the disk that the module's volumes may have, in bytes.
func quota(p *plan.Module) (sum int64) {
	for _, v := range p.Volumes {
		sum += v.Quota
	}
	return sum
}
