package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"allotment/image"
)

// secrets knows one.
func secrets(name string) (string, error) {
	if name != "probe" {
		return "", errors.New("no such secret")
	}
	return "s3cret", nil
}

func TestHTTPSteps(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		switch {
		case r.URL.Path == "/private" && (user != "probe-web" || password != "s3cret"):
			http.Error(w, "who are you", http.StatusUnauthorized)
		case r.Method == "PUT":
			w.WriteHeader(http.StatusCreated)
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound) // nobody is there
		default:
			fmt.Fprintf(w, "hello at %s, %s", r.Host, r.Header.Get("X-Kind"))
		}
	}))
	defer server.Close()
	port := server.Listener.Addr().(*net.TCPAddr).Port
	for name, c := range map[string]struct {
		request image.Request
		fails   string
	}{
		"plain":        {image.Request{Path: "/"}, ""},
		"text":         {image.Request{Path: "/", Contains: "hello"}, ""},
		"other text":   {image.Request{Path: "/", Contains: "good bye"}, "does not contain"},
		"headers":      {image.Request{Path: "/", Headers: []string{"Host: club.example", "X-Kind: a, b"}, Contains: "club.example, a, b"}, ""},
		"method":       {image.Request{Path: "/x", Method: "PUT", Body: "text", Status: []int{201}}, ""},
		"other status": {image.Request{Path: "/", Status: []int{201}}, "200 OK"},
		"redirection":  {image.Request{Path: "/moved"}, "302 Found"},
		"login":        {image.Request{Path: "/private", User: "probe-web", Secret: "probe"}, ""},
		"no login":     {image.Request{Path: "/private"}, "401"},
		"no secret":    {image.Request{Path: "/private", User: "probe-web", Secret: "gone"}, "no such secret"},
	} {
		c.request.Port = port
		err := Step(image.Step{HTTP: &c.request}, netip.MustParseAddr("127.0.0.1"), secrets)(t.Context())
		if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStepsEndWithTheirTime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	for name, s := range map[string]image.Step{
		"http": {HTTP: &image.Request{Port: port, Path: "/"}},
		"ldap": {LDAP: &image.LDAPRequest{Port: port, Base: "o=organisation", Filter: "(uid=*)"}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := Step(s, netip.MustParseAddr("127.0.0.1"), secrets)(ctx); err == nil {
			t.Errorf("%s: silence is a good answer", name)
		}
		cancel()
	}
	if err := Step(image.Step{TCP: port}, netip.MustParseAddr("127.0.0.1"), secrets)(t.Context()); err != nil {
		t.Error(err)
	}
	if Step(image.Step{Task: &image.Task{}}, netip.MustParseAddr("127.0.0.1"), secrets) != nil {
		t.Error("a task is asked over the network")
	}
}

// found is a SearchResultEntry without attributes, RFC 4511, section 4.5.2.
func found(id byte) []byte { return []byte{0x30, 9, 2, 1, id, 0x64, 4, 4, 0, 0x30, 0} }

// result is an answer that ends an operation.
func result(id, operation, code byte) []byte {
	return []byte{0x30, 12, 2, 1, id, operation, 7, 10, 1, code, 4, 0, 4, 0}
}

func TestLDAPSteps(t *testing.T) {
	for name, c := range map[string]struct {
		entries    int
		bind, code byte
		fails      string
	}{
		"enough":         {2, 0, 0, ""},
		"more than that": {3, 0, 4, ""}, // sizeLimitExceeded
		"too few":        {1, 0, 0, "1 entries were found, not 2"},
		"wrong password": {0, 49, 0, "Invalid Credentials"},
		"not allowed":    {0, 0, 50, "Insufficient Access"},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			b := make([]byte, 1024)
			if n, err := conn.Read(b); err != nil || !strings.Contains(string(b[:n]), "s3cret") {
				return
			}
			conn.Write(result(b[4], 0x61, c.bind))
			if _, err := conn.Read(b); err != nil {
				return
			}
			for range c.entries {
				conn.Write(found(b[4]))
			}
			conn.Write(result(b[4], 0x65, c.code))
			conn.Read(b) // until it is closed
		}()
		q := image.LDAPRequest{Port: l.Addr().(*net.TCPAddr).Port, DN: "cn=web,ou=services,o=organisation", Secret: "probe",
			Base: "o=organisation", Filter: "(uid=*)", Least: 2}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err = Step(image.Step{LDAP: &q}, netip.MustParseAddr("127.0.0.1"), secrets)(ctx)
		cancel()
		if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
