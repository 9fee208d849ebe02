package qemutests

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"allotment/builder"
)

// TestModuleRunTakesChangesIn works on a copy of module page: a changed file is live without a new image, faults are told
// and leave the page as it was, and the interrupt ends everything.
func TestModuleRunTakesChangesIn(t *testing.T) {
	needMachines(t)
	source := copySource(t)
	allot := filepath.Join(t.TempDir(), "allot")
	if out, err := exec.Command("go", "build", "-o", allot, "../cmd/allot").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), allot, "module", "run", "page", "--quiet", "--source", source)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	await := func(pattern string) []string {
		t.Helper()
		for p := regexp.MustCompile(pattern); lines.Scan(); {
			t.Log(lines.Text())
			if m := p.FindStringSubmatch(lines.Text()); m != nil {
				return m
			}
		}
		t.Fatalf("the command has ended without a line like %q", pattern)
		return nil
	}
	url := await(`page: (http://\S+)`)[1]
	await(`the box is ready`)
	page := filepath.Join(source, "modules", "page")
	saved := time.Now()
	change(t, filepath.Join(page, "www", "index.html"), "</body>", "taken in</body>")
	await(`^page is ready after`)
	load, _ := os.ReadFile("/proc/loadavg") // without it the figure has no meaning
	t.Logf("a saved file was live after %.1f s; load %s", time.Since(saved).Seconds(), load)
	if got := body(t, url); !strings.Contains(got, "taken in</body>") {
		t.Errorf("the page is still\n%s", got)
	}
	change(t, filepath.Join(page, "module.toml"), "\n[[service]]", "\ncolour = 1\n[[service]]")
	await(`unknown key "colour"`)
	await(`What ran before still runs`)
	if got := body(t, url); !strings.Contains(got, "taken in</body>") {
		t.Errorf("after a fault the page is\n%s", got)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, out); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after the interrupt: %v", err)
	}
}

// copySource copies what an image is made of.
func copySource(t *testing.T) string {
	t.Helper()
	source, err := builder.FindSource(".")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	entries, err := os.ReadDir(string(source))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		from, to := filepath.Join(string(source), e.Name()), filepath.Join(dir, e.Name())
		switch {
		case e.Name() == ".git" || e.Name() == "out" || e.Name() == "keys":
		case e.IsDir():
			err = os.CopyFS(to, os.DirFS(from))
		case e.Type().IsRegular():
			var b []byte
			if b, err = os.ReadFile(from); err == nil {
				err = os.WriteFile(to, b, 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// change replaces the first place of a text in a file.
func change(t *testing.T, file, from, to string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil && !bytes.Contains(b, []byte(from)) {
		t.Fatalf("%s does not contain %q", file, from)
	}
	if err == nil {
		err = os.WriteFile(file, bytes.Replace(b, []byte(from), []byte(to), 1), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func body(t *testing.T, url string) string {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
