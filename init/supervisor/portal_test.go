package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"allotment/api"
	"allotment/gateway"
	"allotment/image"
	"allotment/init/network"
	"allotment/init/plan"
	"allotment/init/provider"
	"allotment/portal/config"
)

// withDirectory is a box that has a portal.
func withDirectory() *image.Manifest {
	return &image.Manifest{Title: "Box", Modules: []image.Module{{
		Name: "directory", Services: []image.Service{trueService("slapd")},
		Secrets: []image.Secret{{Name: portalSecret, Kind: "password", User: "root"}},
	}, {
		Name: "web", SSO: "header", HTTP: &image.HTTP{Port: 80, Path: "/"}, Services: []image.Service{trueService("page")},
		Secrets:     []image.Secret{{Name: "tls", Kind: "certificate", User: "root", Host: "www"}},
		Permissions: []image.Permission{{Name: "edit", Title: "write pages"}},
	}}}
}

// newPortal starts a box in dir whose portal is a program of this machine; sys is the machine's sysfs.
func newPortal(t *testing.T, dir, sys string) *declared {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("files of other users are made by root alone")
	}
	b := newDeclared(t, dir, withDirectory(), nil)
	err := b.call(func(ctx context.Context) {
		b.config.Provider = provider.Machine{Sys: sys}
		b.portal = &unit{name: "portal", importance: plan.Core, machine: machine{state: waiting, since: b.now()}, job: &programJob{
			name: "portal", args: forever, reaper: b.reaper, diary: b.diary, patience: time.Minute}}
		b.daemons, b.units = append(b.daemons, b.portal), append(b.units, b.portal)
		b.prepareDaemons()
		b.lookForClaim(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// firmware is a sysfs in which the machine's firmware hands the code over.
func firmware(t *testing.T, code string) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "firmware/qemu_fw_cfg/by_name/opt/org.allotment/claim/raw")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(code), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// awaitSecret waits until the portal can read the secret, or no more, and returns it.
func (b *declared) awaitSecret(t *testing.T, name string, there bool) string {
	t.Helper()
	path := filepath.Join(b.portalDir(), "secrets", name)
	limit := time.Now().Add(20 * time.Second)
	for time.Now().Before(limit) {
		content, err := os.ReadFile(path)
		if (err == nil) != there {
			_ = b.call(func(context.Context) {}) // lets the box do something
			continue
		}
		if info, err := os.Stat(path); there && (err != nil || info.Mode() != 0o400 || info.Sys().(*syscall.Stat_t).Uid != plan.PortalID) {
			t.Errorf("%s can be read by others than the portal: %v, %v", name, info, err)
		}
		return string(content)
	}
	t.Fatalf("secret %s: there must be one: %t", name, there)
	return ""
}

func TestClaimCode(t *testing.T) {
	dir := t.TempDir()
	b := newPortal(t, dir, firmware(t, "3f7k 9qxm 02ta\n"))
	const code = "3F7K-9QXM-02TA"
	b.lines.await(t, "claim code: "+code)
	if got := b.awaitSecret(t, "claim", true); got != code {
		t.Errorf("the portal is told %q", got)
	}
	if got := b.awaitSecret(t, "directory", true); len(got) != 32 {
		t.Errorf("the portal's password is %q", got)
	}
	b.awaitState(t, "portal", ready)
	b.end(t)

	b = newPortal(t, dir, firmware(t, "AAAA-AAAA-AAAA")) // the second boot: what was decided stays
	b.lines.await(t, "claim code: "+code)
	for range mostWrong {
		if _, err := b.ClaimWrong(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	b.lines.await(t, lockedText)
	if c := b.Claim(); c.Claimed || c.Wrong != mostWrong {
		t.Errorf("%+v", c)
	}
	if err := b.Claimed(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.awaitSecret(t, "claim", false)
	if c := b.Claim(); !c.Claimed {
		t.Errorf("%+v", c)
	}
	b.end(t)

	b = newPortal(t, dir, firmware(t, "AAAA-AAAA-AAAA"))
	b.awaitSecret(t, "directory", true)
	b.awaitState(t, "portal", ready)
	if text := b.lines.text(); !b.Claim().Claimed || strings.Contains(text, "claim code") {
		t.Errorf("a claimed box shows a code:\n%s", text)
	}
}

// Without a code of the provider's, or with one that cannot be used, the box draws one.
func TestClaimCodeIsDrawn(t *testing.T) {
	seen := map[string]bool{}
	for _, given := range []string{"", "not a code"} {
		b := newPortal(t, t.TempDir(), firmware(t, given))
		_ = b.call(func(context.Context) {
			b.onNetwork(eventNetwork{network.Status{Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}}})
		})
		b.lines.await(t, "claim code: ")
		seen[b.awaitSecret(t, "claim", true)] = true
		b.end(t)
	}
	if len(seen) != 2 {
		t.Errorf("codes %v", seen)
	}
}

// What portal and gateway are told of names and modules.
func TestConfigurePortal(t *testing.T) {
	b := newPortal(t, t.TempDir(), firmware(t, "AAAA-AAAA-AAAA"))
	b.awaitState(t, "portal", ready)
	folder := t.TempDir()
	var c config.Config
	var g gateway.Config
	look := func() {
		t.Helper()
		err := b.call(func(context.Context) {
			d := &daemon{config: filepath.Join(b.dir, "portal.json")}
			real := b.portal.job
			b.portal.job = d
			b.configurePortal()
			b.portal.job = real
			g = b.routes()
		})
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(b.dir, "portal.json"))
		if err == nil {
			err = json.Unmarshal(text, &c)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	set := func(domain string) {
		t.Helper()
		if err := b.SetSettings(t.Context(), "", map[string]any{"domain": domain}); err != nil {
			t.Fatal(err)
		}
	}
	set("club.example.org")
	look()
	if want := []string{"club.example.org", "portal.club.example.org", "www.club.example.org"}; fmt.Sprint(g.Names) != fmt.Sprint(want) ||
		fmt.Sprint(g.ModuleNames) != "map[web:[www.club.example.org]]" || g.PortalHost != "" || c.Origin != "" || c.Secure {
		t.Errorf("before there is a certificate: %+v, %+v", g, c)
	}
	if len(c.Modules) != 2 || c.Modules[1].SSO != "header" || c.Modules[1].Path != "/" || c.Modules[1].Permissions[0].Name != "edit" ||
		c.Directory != "10.209.0.2:389" || g.Routes[0].SSO != "header" || g.Routes[0].Module != "web" {
		t.Errorf("modules: %+v, %+v", c, g)
	}
	if err := os.WriteFile(filepath.Join(folder, "portal.club.example.org.pem"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = b.call(func(context.Context) { b.folder = folder; b.lookAtCertificates() })
	if err := b.await(t.Context(), func() bool { return b.certified != "" }); err != nil {
		t.Fatal(err)
	}
	look()
	if c.Origin != "https://portal.club.example.org" || !c.Secure || g.PortalHost != "portal.club.example.org" || g.Data != folder {
		t.Errorf("with a certificate: %+v, %+v", g, c)
	}
	told := gateway.Status{Authority: "AA:BB", Certificates: []gateway.Certificate{{Names: []string{"a.org"}, Why: gateway.WhyOften}}}
	if n := b.Network(); n.Authority != "" || len(n.Certificates) != 0 {
		t.Errorf("before the gateway has told of certificates: %+v", n)
	}
	text, err := json.Marshal(told)
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, gateway.StatusFile), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := b.Network(); n.Authority != "AA:BB" || len(n.Certificates) != 1 || n.Certificates[0].Why != gateway.WhyOften {
		t.Errorf("once it has: %+v", n)
	}
	set("other.example.org")
	look()
	if c.Origin != "" || g.PortalHost != "" {
		t.Errorf("with the certificate of another name: %+v, %+v", g, c)
	}
	www := func(n api.Name) bool { return n.Optional && strings.HasPrefix(n.Host, "www.") }
	if n := b.Network(); !slices.ContainsFunc(n.Names, www) {
		t.Errorf("names of a domain: %+v", n.Names)
	}
	set("allotment.internal") // is nobody's
	if n := b.Network(); slices.ContainsFunc(n.Names, www) {
		t.Errorf("names without one: %+v", n.Names)
	}
}

// Before a release is tried the portal stands still like the modules, so that nothing is written that the undo would lose.
func TestPortalStandsStill(t *testing.T) {
	b := newPortal(t, t.TempDir(), firmware(t, "AAAA-AAAA-AAAA"))
	b.awaitState(t, "portal", ready)
	b.awaitState(t, "directory.slapd", ready)
	if err := b.standStill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.diary.String(), "-portal") {
		t.Errorf("it went on: %s", b.diary)
	}
	if err := b.call(b.goOn); err != nil {
		t.Fatal(err)
	}
	b.awaitState(t, "portal", ready)
}

// Only gateway and root may connect to the portal's socket.
func TestPortalSocket(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root gives files to others")
	}
	path := filepath.Join(t.TempDir(), "http.sock")
	for range 2 { // the second time in place of one that an earlier supervisor left
		files, err := listenUnix(path, GatewayID)
		if err != nil {
			t.Fatal(err)
		}
		defer closeAll(files)
		l, err := net.FileListener(files[0])
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		status := http.StatusServiceUnavailable
		go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == portalHealth {
				w.WriteHeader(status)
			}
		}))
		if err := askPortal(t.Context(), path); err == nil {
			t.Error("a portal that is not well counts as ready")
		}
		status = http.StatusOK
		if err := askPortal(t.Context(), path); err != nil {
			t.Error(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if s := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != 0o660 || s.Uid != 0 || s.Gid != GatewayID {
		t.Errorf("mode %v, owner %d, group %d", info.Mode(), s.Uid, s.Gid)
	}
}

// A gateway that was started without its folder is started again when the folder is there; one that knows it goes on.
func TestGatewayGetsItsFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	s := &Supervisor{gateway: &unit{job: &daemon{config: path}, machine: machine{state: starting}}}
	tell := func(c gateway.Config) {
		t.Helper()
		text, err := json.Marshal(c)
		if err == nil {
			err = os.WriteFile(path, text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tell(gateway.Config{Data: "/state/volumes/gateway/data"})
	if s.giveFolder(t.Context(), "/state/volumes/gateway/data"); s.gateway.machine.state != starting {
		t.Error("it knew the folder")
	}
	tell(gateway.Config{})
	if s.giveFolder(t.Context(), "/state/volumes/gateway/data"); s.gateway.machine.state != renewing {
		t.Errorf("it is %s", s.gateway.machine.state)
	}
}
