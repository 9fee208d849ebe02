package check

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"allotment/image"
)

// command stands for a command in a container.
func command(_ context.Context, c []string) error {
	if c[0] != "/bin/true" {
		return errors.New("status 1")
	}
	return nil
}

// directory answers one bind after the other with the result, and returns its port.
func directory(t *testing.T, result byte) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			request := make([]byte, 64) // 30 LENGTH 02 01 ID ...
			if _, err := c.Read(request); err == nil {
				// A BindResponse (RFC 4511, section 4.2.2) with an empty DN and message.
				c.Write([]byte{0x30, 12, 2, 1, request[4], 0x61, 7, 10, 1, result, 4, 0, 4, 0})
			}
			c.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func TestChecks(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch asked++; {
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound) // nobody is there
		case r.URL.Path == "/late" && asked < 3, r.URL.Path == "/broken":
			http.Error(w, "not yet", http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	number, _ := strconv.Atoi(port)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, c := range []struct {
		name  string
		check image.Check
		fails string
	}{
		{"none", image.Check{Timeout: 1}, ""},
		{"tcp", image.Check{TCP: number, Timeout: 5}, ""},
		{"http", image.Check{HTTP: ":" + port + "/", Timeout: 5}, ""},
		{"a redirection", image.Check{HTTP: ":" + port + "/moved", Timeout: 5}, ""},
		{"late", image.Check{HTTP: ":" + port + "/late", Timeout: 5}, ""},
		{"broken", image.Check{HTTP: ":" + port + "/broken", Timeout: 1}, "503"},
		{"exec", image.Check{Exec: []string{"/bin/true"}, Timeout: 1}, ""},
		{"exec that fails", image.Check{Exec: []string{"/bin/false"}, Timeout: 1}, "status 1"},
		{"ldap", image.Check{LDAP: directory(t, ldap.LDAPResultSuccess), Timeout: 5}, ""},
		{"ldap that refuses", image.Check{LDAP: directory(t, ldap.LDAPResultInappropriateAuthentication), Timeout: 1}, "Inappropriate"},
		{"ldap that speaks HTTP", image.Check{LDAP: number, Timeout: 1}, "not ready"},
		{"refused", image.Check{TCP: closed.Addr().(*net.TCPAddr).Port, Timeout: 1}, "refused"},
	} {
		asked = 0
		err := AwaitReady(context.Background(), c.check, New(c.check, netip.MustParseAddr("127.0.0.1"), command))
		if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// A service is dead after so many failures in a row, not before, and no longer asked once ctx has ended.
func TestAwaitDead(t *testing.T) {
	answers := []bool{true, false, false, true, false, false, false}
	asked := 0
	err := awaitDead(t.Context(), time.Millisecond, image.Check{Timeout: 1, Failures: 3}, func(context.Context) error {
		asked++
		if answers[asked-1] {
			return nil
		}
		return errors.New("nobody is there")
	})
	if err == nil || !strings.Contains(err.Error(), "3 times in a row: nobody is there") || asked != len(answers) {
		t.Errorf("after %d questions: %v", asked, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := AwaitDead(ended, image.Check{Every: 1, Timeout: 1, Failures: 1}, nil); err != nil {
		t.Errorf("of a process that has ended: %v", err)
	}
}
