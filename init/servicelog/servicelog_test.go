package servicelog

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"
)

// ticking returns a clock that advances by step at each reading.
func ticking(step time.Duration) func() time.Time {
	t := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	return func() time.Time { t = t.Add(step); return t }
}

func TestLinesGetTheTime(t *testing.T) {
	var out bytes.Buffer
	if err := Copy(&out, strings.NewReader("one\ntwo"), ticking(0)); err != nil {
		t.Fatal(err)
	}
	want := "2026-11-22T00:00:00.000Z one\n2026-11-22T00:00:00.000Z two\n"
	if out.String() != want {
		t.Errorf("got %q", out.String())
	}
}

func TestFileKeepsItsBounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web", "page.log")
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	line := []byte(strings.Repeat("x", 999) + "\n")
	for range 5 * MaxFile / len(line) {
		if _, err := l.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := l.Write(make([]byte, 2*MaxFile)); n != 2*MaxFile || err != nil {
		t.Errorf("a huge write: %d, %v", n, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(path + "*")
	if len(files) != 2 {
		t.Errorf("files: %v", files)
	}
	for _, f := range files {
		if st, _ := os.Stat(f); st.Size() > MaxFile {
			t.Errorf("%s has %d bytes", f, st.Size())
		}
	}
	if l, err = Open(path); err != nil || l.size == 0 {
		t.Errorf("opening again does not continue: size %d, %v", l.size, err)
	}
	l.Close()
}

func TestFloodIsLeftOut(t *testing.T) {
	var out bytes.Buffer
	flood := strings.NewReader(strings.Repeat("no such file\n", 1<<20))
	if err := Copy(&out, flood, ticking(time.Microsecond)); err != nil {
		t.Fatal(err)
	}
	// One second and some went by: the burst, what was gained since, and the stamps.
	if out.Len() > 2*Burst {
		t.Errorf("%d bytes came through", out.Len())
	}
	if !strings.Contains(out.String(), "lines that came too fast") {
		t.Error("nothing tells that lines are missing")
	}
}

// Every line of a flood comes through whole or is counted.
func TestFloodIsCounted(t *testing.T) {
	var in, out bytes.Buffer
	for i := range 100_000 {
		fmt.Fprintf(&in, "line %06d\n", i)
	}
	if err := Copy(&out, iotest.OneByteReader(&in), ticking(time.Microsecond)); err != nil {
		t.Fatal(err)
	}
	whole, left := 0, 0
	for line := range strings.Lines(out.String()) {
		var n int
		if _, err := fmt.Sscanf(line[25:], "allotment: left out %d lines", &n); err == nil {
			left += n
		} else if len(line) == 25+len("line 000000\n") {
			whole++
		} else {
			t.Fatalf("half a line: %q", line)
		}
	}
	if whole+left != 100_000 || left == 0 {
		t.Errorf("%d lines came through, %d were left out", whole, left)
	}
}

func BenchmarkFlood(b *testing.B) {
	line := []byte("2026/11/22 10:00:00 [error] 12#12: *1 open() \"/srv/www/missing\" failed (2: No such file or directory)\n")
	flood := bytes.Repeat(line, b.N)
	b.SetBytes(int64(len(line)))
	b.ResetTimer()
	if err := Copy(io.Discard, bytes.NewReader(flood), time.Now); err != nil {
		b.Fatal(err)
	}
}

func TestSlowServiceLosesNothing(t *testing.T) {
	var in, out bytes.Buffer
	for i := range 20000 {
		fmt.Fprintf(&in, "line %05d\n", i)
	}
	if err := Copy(&out, &in, ticking(10*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\n"); n != 20000 || strings.Contains(out.String(), "too fast") {
		t.Errorf("%d lines of 20000 came through", n)
	}
}

func TestPipeOutlivesItsReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	service, reader, err := Pipe(path, os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	reader.Close()
	if _, err := io.WriteString(service, "said to nobody\n"); err != nil {
		t.Fatalf("a service without a reader: %v", err)
	}
	again, reader, err := Pipe(path, os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	defer reader.Close()
	buf := make([]byte, 64)
	if n, err := reader.Read(buf); string(buf[:n]) != "said to nobody\n" {
		t.Errorf("the next reader got %q, %v", buf[:n], err)
	}
}

func TestServiceEndBlocks(t *testing.T) {
	service, reader, err := Pipe(filepath.Join(t.TempDir(), "pipe"), os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	defer reader.Close()
	raw, err := service.SyscallConn() // Fd itself would change the flag
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		if flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("flags %#x, %v", flags, err)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func FuzzCopy(f *testing.F) {
	f.Add([]byte("one\ntwo\n\n"))
	f.Add(bytes.Repeat([]byte{0}, 3*maxLine))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		if err := Copy(&out, bytes.NewReader(in), ticking(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if len(in) > 0 && !bytes.HasSuffix(out.Bytes(), []byte("\n")) {
			t.Errorf("the last line is open: %q", out.Bytes())
		}
	})
}

func texts(lines []Line) string {
	var all []string
	for _, l := range lines {
		all = append(all, l.Text)
	}
	return strings.Join(all, " ")
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.log")
	none, early, err := OpenTail(path, -1)
	if err != nil || len(none) != 0 {
		t.Fatalf("before there is a log: %v, %v", none, err)
	}
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	now := ticking(time.Second)
	w := Stamped(l, now)
	for i := range 5 {
		fmt.Fprintf(w, "line%d\n", i)
	}
	lines, tail, err := OpenTail(path, 2)
	if err != nil || texts(lines) != "line3 line4" {
		t.Fatalf("the last two: %v, %v", lines, err)
	}
	if want := time.Date(2026, 11, 22, 0, 0, 5, 0, time.UTC); !lines[1].Time.Equal(want) {
		t.Errorf("the last is of %v", lines[1].Time)
	}
	l.Write([]byte("half"))
	if lines, err := tail.Next(); err != nil || len(lines) != 0 {
		t.Errorf("half a line: %v, %v", lines, err)
	}
	l.Write([]byte(" whole\n"))
	l.rotate()
	l.Write([]byte("rotated\n"))
	if lines, err := tail.Next(); err != nil || texts(lines) != "half whole rotated" {
		t.Errorf("over a rotation: %v, %v", lines, err)
	}
	all, again, err := OpenTail(path, -1)
	if err != nil || texts(all) != "line0 line1 line2 line3 line4 half whole rotated" {
		t.Errorf("all: %v, %v", all, err)
	}
	if lines, err := early.Next(); err != nil || texts(lines) != "rotated" {
		t.Errorf("from the beginning on, what is kept in this file: %v, %v", lines, err)
	}
	for _, x := range []*Tail{early, tail, again} {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}
	l.Close()
}

func FuzzTail(f *testing.F) {
	f.Add([]byte("2026-11-22T00:00:00.000Z one\ntwo\n\nhalf"))
	f.Add([]byte{0xff, '\n', ' ', '\n'})
	f.Fuzz(func(t *testing.T, in []byte) {
		whole := (&Tail{}).take(in)
		pieces, cut := &Tail{}, []Line{}
		for _, b := range in {
			cut = append(cut, pieces.take([]byte{b})...)
		}
		if texts(whole) != texts(cut) || len(whole) != bytes.Count(in, []byte("\n")) {
			t.Errorf("%d lines at once, %d byte by byte", len(whole), len(cut))
		}
	})
}
