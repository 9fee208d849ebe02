package supervisor

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"allotment/init/console"
)

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
