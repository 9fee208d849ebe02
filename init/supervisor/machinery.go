package supervisor

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"allotment/api"
	"allotment/init/durable"
	"allotment/init/plan"
)

// portalLabel is the label below the organisation's domain that is the portal's host name.
const portalLabel = "portal"

// Network implements apiserver.Box.
func (b *Box) Network() api.Network {
	s := b.supervisor
	var n api.Network
	_ = s.call(func(context.Context) {
		n.Domain = s.domain
		for _, a := range s.net.Addresses {
			n.Addresses = append(n.Addresses, a.Addr().String())
		}
		for _, a := range s.net.DNS {
			n.Servers = append(n.Servers, a.String())
		}
		n.Names = []api.Name{{Host: s.domain}, {Host: portalLabel + "." + s.domain}}
		for _, m := range s.modules {
			if m.on {
				n.Names, n.Records = append(n.Names, hostsOf(m.plan, s.domain)...), append(n.Records, recordsOf(m.plan, s.domain)...)
			}
		}
	})
	return n
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

// The count of wrong codes lives until the next boot, that a box is claimed for ever.
func (s *Supervisor) wrongFile() string   { return filepath.Join(s.config.Run, "claim-wrong") }
func (s *Supervisor) claimedFile() string { return filepath.Join(s.config.State, "system", "claimed") }

func (s *Supervisor) claimState() api.Claim {
	var c api.Claim
	_, err := os.Stat(s.claimedFile())
	c.Claimed = err == nil
	b, _ := os.ReadFile(s.wrongFile())
	c.Wrong, _ = strconv.Atoi(strings.TrimSpace(string(b)))
	return c
}

// Claim implements apiserver.Box.
func (b *Box) Claim() api.Claim {
	var c api.Claim
	_ = b.supervisor.call(func(context.Context) { c = b.supervisor.claimState() })
	return c
}

// mostWrong is how many wrong codes lock the first run until the next boot.
const mostWrong = 100

// ClaimWrong implements apiserver.Box.
func (b *Box) ClaimWrong(context.Context) (api.Claim, error) {
	s := b.supervisor
	var c api.Claim
	var err error
	failed := s.call(func(context.Context) {
		c = s.claimState()
		c.Wrong++
		if err = os.WriteFile(s.wrongFile(), []byte(strconv.Itoa(c.Wrong)), 0o600); err != nil {
			return
		}
		text := "somebody entered a wrong claim code, number " + strconv.Itoa(c.Wrong) + " since the box was started"
		if c.Wrong >= mostWrong {
			text = "too many wrong claim codes: nobody can claim the box before it is started again"
		}
		if c.Wrong == 1 || c.Wrong%10 == 0 {
			s.config.Console.Print("CLAIM-WRONG count=%d: %s", c.Wrong, text)
		}
		s.record(api.Event{Level: api.Fair, Kind: "box", Text: text}, nil)
	})
	return c, firstOf(failed, err)
}

// Claimed implements apiserver.Box.
func (b *Box) Claimed(context.Context) error {
	s := b.supervisor
	var err error
	failed := s.call(func(context.Context) {
		if s.state == nil {
			err = api.Errorf(api.Conflict, "the state partition is not open yet")
			return
		}
		if s.claimState().Claimed {
			return
		}
		if err = durable.WriteFile(s.claimedFile(), []byte("claimed\n"), 0o644); err == nil {
			s.record(api.Event{Level: api.Good, Kind: "box", Text: "the box has an officer: the claim code is void"}, nil)
		}
	})
	return firstOf(failed, err)
}
