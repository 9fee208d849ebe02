package portal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"allotment/api"
	"allotment/gateway"
	"allotment/init/apiserver"
	"allotment/init/apiserver/boxtest"
	"allotment/portal/config"
)

// nobody is who the programs run as: they refuse to be root.
const nobody = 65534

// house is where both programs run, in folders as on a device.
type house struct {
	t               *testing.T
	dir             string
	portal, gateway *exec.Cmd
	url             string // of the gateway, by HTTPS
}

// build starts both programs for the directory at address.
func build(t *testing.T, address, password string) *house {
	t.Helper()
	dir, err := os.MkdirTemp("", "portal") // the parents of t.TempDir are closed to others
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &house{t: t, dir: dir}
	for _, folder := range []string{"", "portal", "portal-state", "gateway", "gateway-state"} {
		must(t, errors.Join(os.MkdirAll(filepath.Join(dir, folder), 0o755), os.Chmod(filepath.Join(dir, folder), 0o755)))
	}
	for _, folder := range []string{"portal-state", "gateway-state"} {
		must(t, os.Chown(filepath.Join(dir, folder), nobody, nobody))
	}
	make := exec.Command("go", "build", "-o", dir, "allotment/cmd/allot-portal", "allotment/cmd/allot-gateway")
	make.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := make.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h.startPortal(address, password)
	h.startGateway()
	return h
}

func (h *house) startPortal(address, password string) {
	box := boxtest.New(time.Now())
	box.Claims.Claimed, box.Saved.State = true, api.BackupIdle
	s, err := apiserver.New(apiserver.Config{Box: box, Access: map[uint32]api.Access{nobody: api.Officer}})
	must(h.t, err)
	l, err := apiserver.ListenUnixFor(filepath.Join(h.dir, "portal", "api.sock"), nobody)
	must(h.t, err)
	go s.Serve(l)
	h.t.Cleanup(func() { s.Close() })
	secret := filepath.Join(h.dir, "portal", "password")
	must(h.t, os.WriteFile(secret, []byte(password), 0o644))
	c := config.Config{API: l.Addr().String(), Directory: address, Password: secret, State: filepath.Join(h.dir, "portal-state"),
		Domain: "club.example", Secure: true}
	sock, err := net.Listen("unix", filepath.Join(h.dir, "portal", "http.sock"))
	must(h.t, err)
	must(h.t, os.Chmod(filepath.Join(h.dir, "portal", "http.sock"), 0o777))
	f, err := sock.(*net.UnixListener).File()
	must(h.t, err)
	h.portal = h.start("portal", c, f)
}

func (h *house) startGateway() {
	var files []*os.File
	var addresses []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(h.t, err)
		f, err := l.(*net.TCPListener).File()
		must(h.t, err)
		files, addresses = append(files, f), append(addresses, l.Addr().String())
		l.Close()
	}
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(h.t, err)
	f, err := u.(*net.UDPConn).File()
	must(h.t, err)
	u.Close()
	c := gateway.Config{Names: []string{"127.0.0.1"}, Data: filepath.Join(h.dir, "gateway-state"),
		Portal: "unix:" + filepath.Join(h.dir, "portal", "http.sock")}
	h.gateway = h.start("gateway", c, append(files, f)...)
	h.url = "https://" + addresses[1]
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	must(h.t, gateway.AwaitConfig(ctx, addresses[0], c))
}

// start runs a program with a configuration and sockets, until the test ends.
func (h *house) start(name string, c any, sockets ...*os.File) *exec.Cmd {
	h.t.Helper()
	b, err := json.Marshal(c)
	must(h.t, err)
	path := filepath.Join(h.dir, name, "config.json")
	must(h.t, os.WriteFile(path, b, 0o644))
	cmd := exec.Command(filepath.Join(h.dir, "allot-"+name), path)
	cmd.Stderr, cmd.ExtraFiles = h.t.Output(), sockets
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	must(h.t, cmd.Start())
	h.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for _, f := range sockets {
		f.Close()
	}
	return cmd
}

// memory tells what a program has of memory in KiB: in RAM, and of that its share where pages are shared (proc(5)).
func (h *house) memory(p *exec.Cmd) (rss, pss int) {
	h.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.Process.Pid))
	must(h.t, err)
	for line := range bytes.Lines(b) {
		words := strings.Fields(string(line))
		for name, into := range map[string]*int{"Rss:": &rss, "Pss:": &pss} {
			if words[0] == name {
				*into, err = strconv.Atoi(words[1])
				must(h.t, err)
			}
		}
	}
	return rss, pss
}

// tell prints the memory of both.
func (h *house) tell(when string) {
	h.t.Helper()
	pr, pp := h.memory(h.portal)
	gr, gp := h.memory(h.gateway)
	h.t.Logf("%s: portal %.1f MiB in RAM (share %.1f), gateway %.1f (%.1f), together %.1f (%.1f)", when,
		mib(pr), mib(pp), mib(gr), mib(gp), mib(pr+gr), mib(pp+gp))
	if together := mib(pr + gr); together > mostMemory {
		h.t.Errorf("%s: portal and gateway have %.1f MiB together, more than %d", when, together, mostMemory)
	}
}

func mib(kib int) float64 { return float64(kib) / 1024 }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
