package main

import (
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"allotment/init/confine"
	"allotment/init/resolver"
)

// build compiles the program as it is for the device, without cgo.
func build(t *testing.T) string {
	t.Helper()
	if err := confine.Supported(); err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "resolver") // t.TempDir is not open to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := exec.Command("go", "build", "-o", dir+"/allot-resolver", ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// configure replaces the configuration as the supervisor does.
func configure(t *testing.T, path string, address string) {
	t.Helper()
	b, err := json.Marshal(resolver.Config{Names: map[string][]netip.Addr{"host.internal": {netip.MustParseAddr(address)}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(path+".new", b, 0o644), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// socketsFor opens two pairs of sockets, and tells where they are.
func socketsFor(t *testing.T) (files []*os.File, udp, tcp string) {
	t.Helper()
	for range 2 {
		u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		uf, err1 := u.File()
		lf, err2 := l.File()
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		files, udp, tcp = append(files, uf, lf), u.LocalAddr().String(), l.Addr().String()
		u.Close()
		l.Close()
		t.Cleanup(func() { uf.Close(); lf.Close() })
	}
	return files, udp, tcp
}

func TestProgram(t *testing.T) {
	dir := build(t)
	config := filepath.Join(dir, "config.json")
	configure(t, config, "192.0.2.1")
	files, udp, tcp := socketsFor(t)
	start := func(uid int) (*exec.Cmd, *strings.Builder) {
		var out strings.Builder
		c := exec.Command(dir+"/allot-resolver", config)
		c.ExtraFiles, c.Stderr = files, &out
		if uid != os.Getuid() {
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return c, &out
	}
	uid := os.Getuid()
	if uid == 0 {
		uid = 65534
		c, out := start(0)
		if err := c.Wait(); err == nil || !strings.Contains(out.String(), "cannot run as root") {
			t.Errorf("as root: %v, %s", err, out)
		}
	}
	c, out := start(uid)
	defer c.Process.Kill()
	ask := func(network, at string) string {
		client := &dns.Client{Net: network, Timeout: 10 * time.Second}
		r, _, err := client.Exchange(new(dns.Msg).SetQuestion("host.internal.", dns.TypeA), at)
		if err != nil || len(r.Answer) != 1 {
			t.Fatalf("%v, %v; %s", r, err, out)
		}
		return r.Answer[0].(*dns.A).A.String()
	}
	for network, at := range map[string]string{"udp": udp, "tcp": tcp} {
		if got := ask(network, at); got != "192.0.2.1" {
			t.Errorf("%s: %s", network, got)
		}
	}
	configure(t, config, "192.0.2.2")
	if err := c.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(10 * time.Second); ask("udp", udp) != "192.0.2.2"; {
		if time.Now().After(limit) {
			t.Fatalf("the new configuration is not read: %s", out)
		}
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
