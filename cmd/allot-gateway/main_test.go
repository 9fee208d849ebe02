package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/sys/unix"

	"allotment/gateway"
	"allotment/init/confine"
)

// nobody is who the program runs as if the test runs as root.
const nobody = 65534

// started is the program with sockets of its own, confined as on a device.
type started struct {
	plain, secure, quic string // HOST:PORT
	process             *exec.Cmd
	config              string
}

// start builds and runs the program with a configuration, and waits until it answers.
func start(t *testing.T, c gateway.Config) *started {
	t.Helper()
	if err := confine.Supported(); err != nil {
		t.Skip(err)
	}
	folder, err := os.MkdirTemp("", "gateway") // the parents of t.TempDir are closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	program := filepath.Join(folder, "allot-gateway")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.Data = filepath.Join(folder, "data")
	s := &started{config: filepath.Join(folder, "config", "config.json")}
	if err := errors.Join(os.Chmod(folder, 0o755), os.Mkdir(c.Data, 0o700), os.Mkdir(filepath.Dir(s.config), 0o755)); err != nil {
		t.Fatal(err)
	}
	s.configure(t, c)
	s.process = exec.Command(program, s.config)
	s.process.Stderr = t.Output()
	if os.Getuid() == 0 {
		if err := os.Chown(c.Data, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		s.process.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	s.listen(t)
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.process.Process.Kill(); s.process.Wait() })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := gateway.AwaitConfig(ctx, s.plain, c); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *started) configure(t *testing.T, c gateway.Config) {
	t.Helper()
	b, err := json.Marshal(c)
	if err == nil {
		err = os.WriteFile(s.config, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// listen makes the sockets that the supervisor makes on a device.
func (s *started) listen(t *testing.T) {
	t.Helper()
	for _, address := range []*string{&s.plain, &s.secure} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		*address = l.Addr().String()
		s.process.ExtraFiles = append(s.process.ExtraFiles, f)
	}
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	s.quic = u.LocalAddr().String()
	f, err := u.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	s.process.ExtraFiles = append(s.process.ExtraFiles, f)
}

// memory is what the program holds, in KiB: now, and at most so far.
func (s *started) memory(t *testing.T) (now, most int) {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", s.process.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 {
			n, _ := strconv.Atoi(fields[1])
			switch fields[0] {
			case "VmRSS:":
				now = n
			case "VmHWM:":
				most = n
			}
		}
	}
	return now, most
}

// from makes a client that comes from an address, trusts the box's own authority, and keeps its connection.
func (s *started) from(t *testing.T, address string, trusted *x509.CertPool) *http.Client {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	tr := &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: trusted},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return d.DialContext(ctx, network, s.secure)
		},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// TestConfined runs the program as on a device: it makes certificates, serves with them, follows another
// configuration, and ends. It holds no more memory than a small box has for it while as many visitors stay as may
// come.
func TestConfined(t *testing.T) {
	page := strings.Repeat("allotment ", 10<<10)
	module := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, page) }))
	defer module.Close()
	c := gateway.Config{Names: []string{"box.internal"}, Routes: []gateway.Route{{Path: "/", Target: module.URL, Ready: true}}}
	s := start(t, c)
	idle, _ := s.memory(t)

	r, err := http.Get("http://" + s.plain + gateway.AuthorityPath)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r.Body)
	r.Body.Close()
	trusted := x509.NewCertPool()
	if err != nil || !trusted.AppendCertsFromPEM(b) {
		t.Fatalf("%v, %q", err, b)
	}
	third := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted},
		Dial: func(ctx context.Context, _ string, c *tls.Config, q *quic.Config) (*quic.Conn, error) {
			return quic.DialAddrEarly(ctx, s.quic, c, q)
		}}
	defer third.Close()
	if r, err := (&http.Client{Transport: third}).Get("https://box.internal" + gateway.HealthPath); err != nil || r.ProtoMajor != 3 {
		t.Errorf("HTTP/3: %v, %v", r, err)
	}
	some := 0
	for i := range 1000 {
		if i == 200 {
			some, _ = s.memory(t)
		}
		r, err := s.from(t, fmt.Sprintf("127.0.1.%d", 1+i/100), trusted).Get("https://box.internal/")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || string(b) != page {
			t.Fatalf("%s, %d bytes, %v", r.Status, len(b), err)
		}
	}
	loaded, most := s.memory(t)
	t.Logf("%d KiB idle, %d with 200 visitors, %d with 1000, %d at most", idle, some, loaded, most)
	if idle > 24<<10 || some > 40<<10 || most > 80<<10 {
		t.Errorf("%d KiB idle, %d with 200 visitors, %d at most", idle, some, most)
	}

	if err := s.process.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.process.Wait(); err != nil {
		t.Errorf("at its end: %v", err)
	}
}
