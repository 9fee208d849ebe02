package box

import (
	"allotment/api"
	"allotment/portal/web"
)

// internalDomain is that of an organisation that has none yet.
const internalDomain = "allotment.internal"

// dnsView is what the page of names shows.
type dnsView struct {
	Network api.Network
	Report  DNSReport
	Running bool
	None    bool       // there is no domain yet
	Next    *DNSResult // the first record that is to be made
	Left    int        // how many there are
	Wishes  []Wish     // where nothing is known yet
}

func (p *Pages) dns(r *web.Request) error {
	n, err := r.Box.Network(ctx(r))
	if err != nil {
		return problem(err)
	}
	v := dnsView{Network: n, None: n.Domain == "" || n.Domain == internalDomain}
	if v.None {
		return r.Render("dns", v)
	}
	v.Report, v.Running = p.names.Report(ctx(r), n, r.Query("again") == "yes")
	if v.Running {
		r.W.Header().Set("Refresh", "3; url="+root+"dns")
	}
	if len(v.Report.Results) == 0 {
		v.Wishes = Wishes(n)
	}
	for i := range v.Report.Results {
		if x := &v.Report.Results[i]; x.Verdict == DNSMissing || x.Verdict == DNSOther {
			if v.Left++; v.Next == nil {
				v.Next = x
			}
		}
	}
	return r.Render("dns", v)
}
