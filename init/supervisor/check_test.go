package supervisor

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"allotment/image"
	"allotment/init/console"
)

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
		{"refused", image.Check{TCP: closed.Addr().(*net.TCPAddr).Port, Timeout: 1}, "refused"},
	} {
		asked = 0
		err := awaitReady(context.Background(), c.check, netip.MustParseAddr("127.0.0.1"))
		if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestLogKeepsItsBeginning(t *testing.T) {
	shown := &lines{new: make(chan struct{}, 1)}
	screen := console.New(nil, []io.Writer{shown})
	log := NewLog(screen)
	logger := log.Logger()
	logger.Info("early")
	logger.Warn("beware", "unit", "web.page")
	for range 10000 {
		log.Part("gateway").Write([]byte("a flood of words before there is a disk\n"))
	}
	if n := len(log.parts["gateway"].early); n > mostEarly {
		t.Errorf("%d bytes are kept in memory", n)
	}
	dir := t.TempDir()
	if err := log.Keep(dir); err != nil {
		t.Fatal(err)
	}
	logger.Info("late")
	log.Close()
	logger.Info("after the end")
	screen.Close()
	b, err := os.ReadFile(filepath.Join(dir, "supervisor.log"))
	if err != nil || !strings.Contains(string(b), "early") || !strings.Contains(string(b), "late") || strings.Contains(string(b), "after") {
		t.Errorf("%q, %v", b, err)
	}
	if got := shown.text(); got != "allotment: beware unit=web.page\r\n" {
		t.Errorf("the console shows %q", got)
	}
}
