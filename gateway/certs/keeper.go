package certs

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"allotment/gateway"
)

const (
	tick     = time.Minute // between looks at what is due
	together = 4           // attempts at a time
)

// Keeper has the certificates of all names. Its methods can be called by many at once.
type Keeper struct {
	folder     string
	now        func() time.Time
	log        *slog.Logger
	challenges *challenges
	changed    chan struct{} // holds one if there is something new to look at
	slots      chan struct{} // holds one for each attempt under way
	telling    sync.Mutex

	mu       sync.Mutex
	config   Config
	own      own
	issuer   *issuer // nil: there is none
	subjects []*subject
	stop     context.CancelFunc // ends the attempts of the configuration
	under    context.Context
}

// New makes a keeper of the folder, which must be there. It has no certificate before SetConfig.
func New(folder string, now func() time.Time, log *slog.Logger) (*Keeper, error) {
	if err := os.MkdirAll(filepath.Join(folder, "modules"), 0o700); err != nil {
		return nil, fmt.Errorf("cannot keep certificates: %w", err)
	}
	k := &Keeper{folder: folder, now: now, log: log, challenges: newChallenges(), changed: make(chan struct{}, 1),
		slots: make(chan struct{}, together)}
	k.under, k.stop = context.WithCancel(context.Background())
	return k, nil
}

// SetConfig changes what is wanted. Web is by what the authority is asked. Certificates that are there already are at
// hand when it returns.
func (k *Keeper) SetConfig(c Config, web *http.Client) error {
	c.Names, c.Domain = normal(c.Names), Normal(c.Domain)
	o, err := loadOwn(k.folder, c.Names, k.now())
	if err != nil {
		return err
	}
	subjects := wanted(c)
	if err := os.MkdirAll(filepath.Join(k.folder, "modules"), 0o700); err != nil {
		return fmt.Errorf("cannot keep certificates: %w", err)
	}
	for _, s := range subjects {
		path := filepath.Join(k.folder, s.file)
		// What cannot be read is had again.
		if s.cert, err = load(path + ".pem"); err != nil {
			k.log.Warn("a certificate is lost", "names", s.names, "error", err)
		} else if s.cert != nil && !slices.Equal(normal(sans(s.cert.Leaf)), s.names) {
			s.cert = nil // a module's names have changed
		}
		readJSON(path+".json", &s.record)
		if err := k.handOut(s); err != nil {
			return err
		}
	}
	defer k.tell()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stop()
	k.under, k.stop = context.WithCancel(context.Background())
	if c.Directory == k.config.Directory {
		keepPauses(subjects, k.subjects)
	}
	k.config, k.own, k.subjects, k.issuer = c, o, subjects, nil
	if c.Directory != "" {
		k.issuer = newIssuer(k.folder, c, web, k.challenges)
	}
	select {
	case k.changed <- struct{}{}:
	default:
	}
	return nil
}

// Ready tells whether there is anything to answer handshakes with.
func (k *Keeper) Ready() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.own.local != nil
}

// wanted lists what to have publicly trusted certificates for: each name alone, and the names of modules that have
// several.
func wanted(c Config) []*subject {
	var all []*subject
	for _, n := range c.Names {
		if c.certifiable(n) {
			all = append(all, &subject{names: []string{n}, file: n})
		}
	}
	for _, module := range slices.Sorted(maps.Keys(c.Modules)) {
		names := normal(c.Modules[module])
		if len(names) == 0 || !hostName(module) || slices.ContainsFunc(names, func(n string) bool { return !c.certifiable(n) }) {
			continue
		}
		i := slices.IndexFunc(all, func(s *subject) bool { return slices.Equal(s.names, names) })
		if i < 0 {
			i = len(all)
			all = append(all, &subject{names: names, file: "module-" + module})
		}
		all[i].modules = append(all[i].modules, module)
	}
	return all
}

// Run gets and renews certificates until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		k.look()
		select {
		case <-ctx.Done():
			k.mu.Lock()
			k.stop()
			k.mu.Unlock()
			return
		case <-t.C:
		case <-k.changed:
		}
	}
}

// look begins what is due. Each subject has a goroutine of its own, so that none waits for another's authority or
// name servers; the group is for those who wait until all have ended.
func (k *Keeper) look() *sync.WaitGroup {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	if o, err := loadOwn(k.folder, k.config.Names, now); err != nil {
		k.log.Error("the box's own certificate is old", "error", err)
	} else {
		k.own = o
	}
	var group sync.WaitGroup
	if k.issuer == nil {
		return &group
	}
	for _, s := range k.subjects {
		if s.busy || s.pausing(now) || !s.due(now) && !s.asks(now) {
			continue
		}
		s.busy = true
		ctx, config, issuer := k.under, k.config, k.issuer
		group.Go(func() {
			k.tend(ctx, config, issuer, s)
			k.mu.Lock()
			s.busy = false
			k.mu.Unlock()
		})
	}
	return &group
}

// tend asks when to renew a certificate, and gets another one when it is time.
func (k *Keeper) tend(ctx context.Context, c Config, i *issuer, s *subject) {
	select {
	case k.slots <- struct{}{}:
		defer func() { <-k.slots }()
	case <-ctx.Done():
		return
	}
	if now := k.now(); s.asks(now) && !s.due(now) {
		k.ask(ctx, i, s)
	}
	if !s.due(k.now()) {
		return
	}
	err := c.lead(ctx, s.names)
	if err == nil {
		err = k.renew(ctx, i, s)
	}
	if ctx.Err() != nil {
		return
	}
	defer k.tell()
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		s.failed(err, k.now())
		k.log.Warn("no certificate yet", "names", s.names, "failures", s.failures, "again", s.retry.UTC(), "error", err)
		return
	}
	s.failures, s.retry, s.err = 0, time.Time{}, nil
	k.log.Info("new certificate", "names", s.names, "until", s.cert.Leaf.NotAfter)
}

func (k *Keeper) ask(ctx context.Context, i *issuer, s *subject) {
	info, err := i.client.GetRenewalInfo(ctx, s.cert.Leaf)
	if ctx.Err() != nil {
		return
	}
	now, r := k.now(), s.record
	r.AskAgain = now.Add(askFirst)
	switch {
	case err == nil:
		if info.RetryAfter != nil {
			r.AskAgain = now.Add(min(max(info.RetryAfter.Sub(now), time.Hour), askLast))
		}
		if w := info.SuggestedWindow; !w.Start.Equal(r.Start) || !w.End.Equal(r.End) {
			r.Start, r.End, r.Chosen = w.Start, w.End, info.SelectedTime
		}
	case errors.Is(err, acme.ErrUnsupported):
	default:
		k.log.Info("the authority does not say when to renew", "names", s.names, "error", err)
	}
	k.mu.Lock()
	s.record = r
	k.mu.Unlock()
	if err := writeJSON(filepath.Join(k.folder, s.file+".json"), r); err != nil {
		k.log.Warn("what the authority said of renewal is not kept", "error", err)
	}
}

// renew gets the first certificate of a subject, or the next one.
func (k *Keeper) renew(ctx context.Context, i *issuer, s *subject) error {
	if err := i.issuesFor(ctx, s.names[0]); err != nil {
		return err
	}
	r := record{Renewals: s.record.Renewals}
	var old *x509.Certificate
	if s.cert != nil {
		r.Renewals++
		old = s.cert.Leaf
	}
	b, err := i.obtain(ctx, s.names, old)
	if err != nil {
		return err
	}
	cert, err := parse(b)
	if err != nil {
		return err
	}
	for _, n := range s.names {
		if err := cert.Leaf.VerifyHostname(n); err != nil {
			return fmt.Errorf("the authority issued another certificate than it was asked for: %w", err)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err() // another configuration has read the folder meanwhile
	}
	path := filepath.Join(k.folder, s.file)
	if err := errors.Join(writeJSON(path+".json", r), write(path+".pem", b)); err != nil {
		return err
	}
	k.mu.Lock()
	s.cert, s.record = cert, r
	k.mu.Unlock()
	return k.handOut(s)
}

// handOut gives a subject's certificate to its modules.
func (k *Keeper) handOut(s *subject) error {
	if s.cert == nil || len(s.modules) == 0 {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(k.folder, s.file+".pem"))
	for _, m := range s.modules {
		if err == nil {
			err = write(filepath.Join(k.folder, "modules", m+".pem"), b)
		}
	}
	return err
}

// find returns the subject that is the name alone, nil if there is none.
func (k *Keeper) find(name string) *subject {
	for _, s := range k.subjects {
		if len(s.names) == 1 && s.names[0] == name {
			return s
		}
	}
	return nil
}

// Certificate is for tls.Config.GetCertificate: a publicly trusted one if there is one, else that of the box's own
// authority.
func (k *Keeper) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if forChallenge(hello) {
		return k.challenges.certificate(hello)
	}
	name := Normal(hello.ServerName)
	if name == "" && hello.Conn != nil {
		if a, err := netip.ParseAddrPort(hello.Conn.LocalAddr().String()); err == nil {
			name = a.Addr().Unmap().WithZone("").String()
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.find(name); s != nil && s.cert != nil {
		return s.cert, nil
	}
	if k.own.local == nil {
		return nil, errors.New("there are no certificates yet")
	}
	return k.own.local, nil
}

// Challenge answers a request of an authority by HTTP at the path, if it is one (RFC 8555, section 8.3).
func (k *Keeper) Challenge(path string) (string, bool) { return k.challenges.answer(path) }

// Trust says how visitors may rely on a name's certificate.
type Trust struct {
	Public  bool // there is one that browsers trust
	Renewed bool // and it is not the first: renewing works here
}

// Trust of a name or address. A certificate that is over counts as before: visitors are used to it, and the clock may
// be wrong.
func (k *Keeper) Trust(name string) Trust {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.find(Normal(name))
	if s == nil || s.cert == nil {
		return Trust{}
	}
	return Trust{true, s.record.Renewals > 0}
}

// Authority is the certificate of the box's own authority, in PEM.
func (k *Keeper) Authority() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.own.authority.Leaf.Raw})
}

// Status of all that are wanted.
func (k *Keeper) Status() gateway.Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all gateway.Status
	if k.own.authority != nil {
		all.Authority = fingerprint(k.own.authority.Leaf)
	}
	for _, s := range k.subjects {
		one := gateway.Certificate{Names: s.names, Failures: s.failures, Again: s.retry}
		if s.cert != nil {
			one.Until = s.cert.Leaf.NotAfter
		}
		if s.err != nil {
			one.Why, one.Error = whyOf(s.err), s.err.Error()
		}
		all.Certificates = append(all.Certificates, one)
	}
	return all
}

// fingerprint is that of a certificate, as browsers show it.
func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum), " ", ":")
}

// tell writes the status for those who cannot ask.
func (k *Keeper) tell() {
	k.telling.Lock() // the last one to write knows all
	defer k.telling.Unlock()
	if err := writeJSON(filepath.Join(k.folder, gateway.StatusFile), k.Status()); err != nil {
		k.log.Warn("nobody is told of certificates", "error", err)
	}
}
