package box

import (
	"context"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"allotment/api"
	"allotment/portal/store"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// TestHistory keeps samples of a week over a restart, and forgets older ones and those of a clock that was wrong.
func TestHistory(t *testing.T) {
	db, err := store.Open(filepath.Join(t.TempDir(), "portal.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	h := NewHistory(db)
	take := func(at time.Time, n int) {
		t.Helper()
		for i := range n {
			r := api.Resources{Time: at.Add(time.Duration(i) * time.Minute), Uptime: float64(60 * i), CPUs: 2, CPU: float64(30 * i),
				Memory: 1 << 30, Available: 1<<30 - int64(i)<<20}
			if err := h.Take(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	take(noon.AddDate(1, 0, 0), flushEvery)
	take(noon.AddDate(0, 0, -8), flushEvery)
	take(noon, flushEvery+3)
	all, err := h.Since(noon.AddDate(0, 0, -30))
	if err != nil || len(all) != flushEvery+3 {
		t.Fatalf("%d samples, %v", len(all), err)
	}
	if s := all[2]; s.CPU != 25 || s.Memory != 2 {
		t.Errorf("sample %+v, want 25 %% of two processors and 2 MiB", s)
	}
	all, err = NewHistory(db).Since(noon)
	if err != nil || len(all) != flushEvery {
		t.Errorf("after a restart %d samples, %v", len(all), err)
	}
}

// TestGraph draws few points whatever there are, within the box, and interrupts the line at a gap.
func TestGraph(t *testing.T) {
	var all []Sample
	for i := range 2000 {
		all = append(all, Sample{Time: noon.Add(time.Duration(i) * time.Minute), Memory: i})
	}
	g := NewGraph(all, noon, noon.Add(2000*time.Minute), 1500, func(s Sample) int { return s.Memory })
	if g.Low != 0 || g.High != 1999 || g.Now != 1999 || strings.Count(g.Path, "M") != 1 || strings.Count(g.Path, "L") > graphPoints {
		t.Errorf("%+v", g)
	}
	if strings.Contains(g.Path, "-") {
		t.Errorf("the line leaves the box: %s", g.Path)
	}
	g = NewGraph(append(all[:60:60], all[600:660]...), noon, noon.Add(time.Hour*12), 1500, func(s Sample) int { return s.Memory })
	if n := strings.Count(g.Path, "M"); n != 2 {
		t.Errorf("the line has %d parts, want 2", n)
	}
	if !NewGraph(nil, noon, noon.Add(time.Hour), 1, func(Sample) int { return 0 }).Empty {
		t.Error("a graph of nothing is not empty")
	}
}

// zone answers for club.example, on UDP and TCP of a loopback port.
func zone(t *testing.T, records ...string) (port string) {
	t.Helper()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answer := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg).SetReply(q)
		for _, text := range records {
			rr, err := dns.NewRR(text)
			if err != nil {
				t.Error(err)
			}
			if rr.Header().Name == q.Question[0].Name && rr.Header().Rrtype == q.Question[0].Qtype {
				a.Answer = append(a.Answer, rr)
			}
		}
		w.WriteMsg(a)
	})
	s := &dns.Server{PacketConn: packets, Handler: answer}
	go s.ActivateAndServe()
	t.Cleanup(func() { s.Shutdown() })
	_, port, _ = net.SplitHostPort(packets.LocalAddr().String())
	return port
}

// TestDNS asks a real server for what should be there: right, missing, something else.
func TestDNS(t *testing.T) {
	port := zone(t, "club.example. 60 NS ns.club.example.", "ns.club.example. 60 A 127.0.0.1",
		"club.example. 60 A 192.0.2.1", "portal.club.example. 60 A 192.0.2.9",
		"_xmpp-client._tcp.club.example. 60 SRV 0 5 5222 chat.club.example.")
	n := api.Network{Domain: "club.example", Servers: []string{"127.0.0.1"}, Addresses: []string{"10.0.0.1", "192.0.2.1"},
		Names: []api.Name{{Host: "club.example"}, {Host: "portal.club.example"}, {Host: "chat.club.example", Module: "chat"}},
		Records: []api.Record{{Module: "chat", Host: "_xmpp-client._tcp.club.example", Type: "SRV", Value: "0  5 5222 Chat.club.example"},
			{Module: "chat", Host: "club.example", Type: "NONSENSE", Value: "x"}}}
	r := DNSChecker{Port: port, Now: func() time.Time { return noon }}.Check(context.Background(), n)
	var got []Verdict
	for _, x := range r.Results {
		got = append(got, x.Verdict)
	}
	if want := []Verdict{DNSRight, DNSOther, DNSMissing, DNSRight, DNSUnknown}; !slices.Equal(got, want) {
		t.Errorf("verdicts %q, want %q: %+v", got, want, r)
	}
	if r.Right() || !slices.Equal(r.Servers, []string{"ns.club.example."}) || r.Results[1].Found[0] != "192.0.2.9" {
		t.Errorf("%+v", r)
	}
}

// TestDNSOfAnotherAuthority says what is wrong with records that keep the box from getting certificates, and of nothing else.
func TestDNSOfAnotherAuthority(t *testing.T) {
	n := api.Network{Domain: "club.example", Servers: []string{"127.0.0.1"}, Addresses: []string{"192.0.2.1"},
		Issuer: "letsencrypt.org", Names: []api.Name{{Host: "club.example"}, {Host: "www.club.example", Optional: true}}}
	all := []string{"club.example. 60 NS ns.club.example.", "ns.club.example. 60 A 127.0.0.1", "club.example. 60 A 192.0.2.1"}
	for record, forbidden := range map[string]bool{
		`club.example. 60 CAA 0 issue "ca.example"`:                                 true,
		`club.example. 60 CAA 0 issue ";"`:                                          true,
		`club.example. 60 CAA 0 issue "letsencrypt.org"`:                            false,
		`club.example. 60 CAA 0 issue "LetsEncrypt.org; validationmethods=http-01"`: false,
		`club.example. 60 CAA 0 iodef "mailto:office@club.example"`:                 false,
		`club.example. 60 TXT "nothing of the kind"`:                                false,
	} {
		r := DNSChecker{Port: zone(t, append(all, record)...), Now: time.Now}.Check(t.Context(), n)
		if got := len(r.Results) == 3; got != forbidden || r.Right() == forbidden || !r.Leads() {
			t.Errorf("%s: %+v", record, r)
		}
	}
	n.Names[1].Optional = false
	if r := (DNSChecker{Port: zone(t, all...), Now: time.Now}).Check(t.Context(), n); r.Right() || r.Leads() {
		t.Errorf("the twin, a name that is needed: %+v", r)
	}
}

// TestDNSAlone has nobody to ask, behind a router: nothing is known, and any address would do.
func TestDNSAlone(t *testing.T) {
	n := api.Network{Domain: "club.example", Addresses: []string{"192.168.1.5"}, Names: []api.Name{{Host: "club.example"}}}
	r := DNSChecker{Port: "1", Now: time.Now}.Check(context.Background(), n)
	if len(r.Results) != 1 || r.Results[0].Verdict != DNSUnknown || r.Results[0].Value != "" || r.Right() {
		t.Errorf("%+v", r)
	}
}

// TestDNSWatch never lets anybody wait: while a check is made, the last report is what there is.
func TestDNSWatch(t *testing.T) {
	begin, end := make(chan struct{}), make(chan struct{})
	w := DNSWatch{Now: func() time.Time { return noon }, Check: func(_ context.Context, n api.Network) DNSReport {
		begin <- struct{}{}
		<-end
		return DNSReport{Time: noon, Domain: n.Domain, Servers: []string{"ns"}}
	}}
	n := api.Network{Domain: "club.example"}
	if r, running := w.Report(context.Background(), n, false); !running || r.Servers != nil {
		t.Errorf("first: %+v, running %t", r, running)
	}
	<-begin
	if _, running := w.Report(context.Background(), n, true); !running {
		t.Error("it is not running while it is")
	}
	close(end)
	for running := true; running; {
		var r DNSReport
		if r, running = w.Report(context.Background(), n, false); !running && r.Servers == nil {
			t.Errorf("after: %+v", r)
		}
	}
}

// TestJobs runs one job of a kind at a time.
func TestJobs(t *testing.T) {
	l := NewJobs(func() time.Time { return noon })
	end := make(chan struct{})
	wait := func(ctx context.Context, tell func(api.Progress)) error {
		tell(api.Progress{Step: 1, Title: api.Actor(ctx)})
		<-end
		tell(api.Progress{Step: 1, Title: "one", Done: true, OK: true})
		return nil
	}
	first, begun := l.Start(About{Key: "a"}, officer, wait)
	if second, again := l.Start(About{Key: "a"}, officer, wait); !begun || again || second != first {
		t.Error("a second job of the same kind began")
	}
	if _, begun := l.Start(About{Key: "b"}, officer, wait); !begun {
		t.Error("another job did not begin")
	}
	close(end)
	<-first.done
	if s := first.Steps(); len(s) != 1 || !s[0].OK || l.Find(first.ID) != first || l.Find("x") != nil {
		t.Errorf("steps %+v", s)
	}
	if _, begun := l.Start(About{Key: "a"}, officer, wait); !begun {
		t.Error("no new job after the end")
	}
}

// TestRenamed is the network with another domain.
func TestRenamed(t *testing.T) {
	n := api.Network{Domain: "allotment.internal", Names: []api.Name{{Host: "allotment.internal"}, {Host: "portal.allotment.internal"}},
		Records: []api.Record{{Host: "_x._tcp.allotment.internal", Type: "SRV", Value: "0 5 1 chat.allotment.internal."}}}
	got := renamed(n, "club.example")
	if got.Domain != "club.example" || got.Names[1].Host != "portal.club.example" || got.Records[0].Host != "_x._tcp.club.example" ||
		got.Records[0].Value != "0 5 1 chat.club.example." || n.Names[0].Host != "allotment.internal" {
		t.Errorf("%+v", got)
	}
}
