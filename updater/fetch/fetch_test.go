package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/image"
)

// content is what the blob of most tests holds.
var content = func() []byte {
	b := make([]byte, 300<<10)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}()

func blobOf(b []byte) image.Blob {
	d, n, err := image.DigestOf(bytes.NewReader(b))
	if err != nil {
		panic(err)
	}
	return image.Blob{Digest: d, Size: n}
}

// mirrors serves each handler at an address of its own.
func mirrors(t *testing.T, handlers ...http.HandlerFunc) []string {
	var urls []string
	for _, h := range handlers {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		urls = append(urls, s.URL+"/base/")
	}
	return urls
}

// quick are options that let a test see a fault soon, and a good server on a busy machine be none; pauses are counted, not
// waited for.
func quick(pauses *[]time.Duration) Options {
	return Options{
		Headers: 2 * time.Second, Stall: 2 * time.Second, Window: 100 * time.Millisecond, Speed: 10000,
		Random: func() float64 { return 0.5 },
		Sleep: func(ctx context.Context, d time.Duration) error {
			if pauses != nil {
				*pauses = append(*pauses, d)
			}
			return ctx.Err()
		},
	}
}

// good serves content as a usual server does, and notes the ranges that it is asked for.
func good(asked *[]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if asked != nil {
			*asked = append(*asked, r.Header.Get("Range"))
		}
		w.Header().Set("ETag", `"1"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}
}

// partly serves as good does, but breaks off after n bytes.
func partly(n int, then http.HandlerFunc) http.HandlerFunc {
	first := true
	return func(w http.ResponseWriter, r *http.Request) {
		if !first && then != nil {
			then(w, r)
			return
		}
		first = false
		good(nil)(&cutWriter{ResponseWriter: w, left: n}, r)
	}
}

// cutWriter ends the connection after some bytes.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	n, _ := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	if c.left -= n; c.left == 0 {
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, nil
}

func status(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

// want has File give the content.
func want(t *testing.T, s Source, dir string) {
	t.Helper()
	path, err := File(context.Background(), s, blobOf(content), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, content) {
		t.Fatalf("the file is not the blob: %v", err)
	}
	if _, err := os.Stat(path + ".part"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the part is still there: %v", err)
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	var asked []string
	urls := mirrors(t, good(&asked))
	want(t, HTTP(urls, quick(nil)), dir)
	want(t, HTTP(urls, quick(nil)), dir)
	if len(asked) != 1 {
		t.Errorf("asked for %q although the file was there", asked)
	}
	path := filepath.Join(dir, blobOf(content).Digest.Hex())
	if err := os.WriteFile(path, []byte("spoilt"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, HTTP(urls, quick(nil)), dir)
}

// What a call or a cut of the power has left is gone on from; what is wrong in it costs one more try.
func TestFileResumes(t *testing.T) {
	for name, c := range map[string]struct {
		part  []byte
		asked []string
	}{
		"nothing":      {nil, []string{"bytes=0-307199"}},
		"some":         {content[:100000], []string{"bytes=100000-307199"}},
		"all":          {content, nil},
		"too much":     {append(slices.Clone(content), 1, 2), nil},
		"zeros at end": {append(slices.Clone(content[:1000]), make([]byte, 5000)...), []string{"bytes=6000-307199", "bytes=0-307199"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.part != nil {
				if err := os.WriteFile(filepath.Join(dir, blobOf(content).Digest.Hex()+".part"), c.part, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var asked []string
			want(t, HTTP(mirrors(t, good(&asked)), quick(nil)), dir)
			if !slices.Equal(asked, c.asked) {
				t.Errorf("asked for %q, want %q", asked, c.asked)
			}
		})
	}
}

// Each of these servers is worked with, or around with the help of a good mirror, which goes on where it stopped.
func TestFaults(t *testing.T) {
	stall := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		w.Write(content[:5000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	drip := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		for i := range content {
			w.Write(content[i : i+1])
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	changed := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"2"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(make([]byte, len(content))))
	}
	for name, c := range map[string]struct {
		bad  http.HandlerFunc
		rest string // that the good mirror is asked for; empty: it is not needed; -: not looked at
	}{
		"truncates and goes on":  {partly(100000, good(nil)), "bytes=100000-307199"},
		"truncates always":       {partly(100000, nil), "bytes=100000-307199"},
		"truncates, then is off": {partly(100000, status(503)), "bytes=100000-307199"},
		"changes meanwhile":      {partly(100000, changed), "bytes=100000-307199"},
		"knows no ranges":        {func(w http.ResponseWriter, _ *http.Request) { w.Write(content) }, ""},
		"knows no ranges and cuts": {partly(100000, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"1"`)
			w.Write(content)
		}), "-"},
		"sends too much": {func(w http.ResponseWriter, _ *http.Request) {
			w.Write(content)
			for range 1000 {
				w.Write(content)
			}
		}, ""},
		"sends too little": {func(w http.ResponseWriter, _ *http.Request) { w.Write(content[:1000]) }, "bytes=0-307199"},
		"promises too much": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "400000")
			w.Write(content)
		}, ""},
		"other range": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 7-307199/307200")
			w.WriteHeader(http.StatusPartialContent)
			w.Write(content[7:])
		}, "bytes=0-307199"},
		"no range at all": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusPartialContent)
			w.Write(content)
		}, "bytes=0-307199"},
		"wrong bytes":       {func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, len(content))) }, "bytes=0-307199"},
		"stalls":            {stall, "bytes=5000-307199"},
		"drips":             {drip, "-"},
		"never answers":     {func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "bytes=0-307199"},
		"does not have it":  {status(404), "bytes=0-307199"},
		"forbids":           {status(403), "bytes=0-307199"},
		"fails":             {status(500), "bytes=0-307199"},
		"is busy":           {status(429, "Retry-After", "3600"), "bytes=0-307199"},
		"redirects forever": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, "bytes=0-307199"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked []string
			want(t, HTTP(mirrors(t, c.bad, good(&asked)), quick(nil)), t.TempDir())
			if c.rest == "" && len(asked) > 0 || c.rest != "" && c.rest != "-" && !slices.Equal(asked, []string{c.rest}) {
				t.Errorf("the good mirror was asked for %q, want %q", asked, c.rest)
			}
		})
	}
}

// With nobody else to ask it ends, says why, and keeps what it has.
func TestFileGivesUp(t *testing.T) {
	for name, c := range map[string]struct {
		bad  http.HandlerFunc
		why  string
		kept int64
	}{
		"not there":      {status(404), "404", 0},
		"fails":          {status(500), "500", 0},
		"truncates":      {partly(70000, status(502)), "502", 70000},
		"too little":     {func(w http.ResponseWriter, _ *http.Request) { w.Write(content[:1000]) }, "has 1000 bytes", 0},
		"wrong bytes":    {func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, len(content))) }, "digest", -1},
		"busy for hours": {status(429, "Retry-After", "36000"), "asked to wait", 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			_, err := File(context.Background(), HTTP(mirrors(t, c.bad), quick(nil)), blobOf(content), dir, nil)
			if err == nil || !strings.Contains(err.Error(), c.why) {
				t.Fatalf("error %v does not say %q", err, c.why)
			}
			st, err := os.Stat(filepath.Join(dir, blobOf(content).Digest.Hex()+".part"))
			if c.kept >= 0 && (err != nil || st.Size() != c.kept) || c.kept < 0 && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("kept %v, %v, want %d bytes", st, err, c.kept)
			}
		})
	}
}

// Pauses double, are spread, and are as long as a server asks for; a round with progress begins anew.
func TestPauses(t *testing.T) {
	var pauses []time.Duration
	_, err := Bytes(context.Background(), HTTP(mirrors(t, status(500)), quick(&pauses)), "x", 10)
	if want := []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second}; err == nil || !slices.Equal(pauses, want) {
		t.Errorf("pauses %v, want %v; %v", pauses, want, err)
	}
	pauses = nil
	if _, err := Bytes(context.Background(), HTTP(mirrors(t, status(503, "Retry-After", "60")), quick(&pauses)), "x", 10); err == nil ||
		!slices.Equal(pauses, []time.Duration{time.Minute, time.Minute, time.Minute}) {
		t.Errorf("pauses %v; %v", pauses, err)
	}
	pauses = nil
	o := quick(&pauses)
	o.Rounds = 2
	want(t, HTTP(mirrors(t, partly(progress, partly(progress, partly(progress, nil)))), o), t.TempDir())
	if slices.Max(pauses) != 2*time.Second {
		t.Errorf("with progress the pauses are %v", pauses)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	urls := mirrors(t, func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() })
	if _, err := Bytes(ctx, HTTP(urls, Options{}), "x", 10); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestBytes(t *testing.T) {
	endless := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			w.Write(content)
		}
	}
	for name, c := range map[string]struct {
		h     http.HandlerFunc
		limit int64
		err   error
	}{
		"fits":          {good(nil), int64(len(content)), nil},
		"one too many":  {good(nil), int64(len(content)) - 1, ErrTooLarge},
		"endless":       {endless, 1 << 20, ErrTooLarge},
		"missing":       {status(404), 10, fs.ErrNotExist},
		"forbidden":     {status(403), 10, fs.ErrNotExist},
		"gone":          {status(410), 10, fs.ErrNotExist},
		"of no length":  {func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush(); w.Write(content) }, 1 << 20, nil},
		"other methods": {func(w http.ResponseWriter, r *http.Request) { good(nil)(w, r) }, 1 << 20, nil},
	} {
		b, err := Bytes(context.Background(), HTTP(mirrors(t, c.h), quick(nil)), "x", c.limit)
		if !errors.Is(err, c.err) || err == nil && !bytes.Equal(b, content) {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	// One mirror that has it is enough; that one has it not, and the other is out of order, is not a missing file at once.
	three := HTTP(mirrors(t, status(404), status(500), good(nil)), quick(nil))
	if b, err := Bytes(context.Background(), three, "x", 1<<20); err != nil || !bytes.Equal(b, content) {
		t.Error(err)
	}
	var pauses []time.Duration
	two := HTTP(mirrors(t, status(404), status(403)), quick(&pauses))
	if _, err := Bytes(context.Background(), two, "x", 10); !errors.Is(err, fs.ErrNotExist) || pauses != nil {
		t.Errorf("a file that no mirror has: %v after pauses %v", err, pauses)
	}
}

// Without length and in pieces, an answer that breaks off is no answer.
func TestBrokenChunks(t *testing.T) {
	urls := mirrors(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Write(content[:5000])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	if b, err := Bytes(context.Background(), HTTP(urls, quick(nil)), "x", 1<<20); err == nil {
		t.Errorf("took %d bytes for the whole", len(b))
	}
}

func TestRange(t *testing.T) {
	dir := t.TempDir()
	b := blobOf(content)
	if err := os.MkdirAll(filepath.Join(dir, "blobs"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, Path(b)), content, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]Source{"http": HTTP(mirrors(t, good(nil)), quick(nil)), "dir": Dir(dir)} {
		for _, span := range [][2]int64{{0, 0}, {0, 1}, {1000, 2000}, {b.Size - 1, b.Size}, {b.Size, b.Size}, {0, b.Size}} {
			r, err := Range(context.Background(), s, b, span[0], span[1])
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, content[span[0]:span[1]]) {
				t.Errorf("%s: bytes %v: %d, %v", name, span, len(got), err)
			}
		}
		for _, span := range [][2]int64{{-1, 1}, {2, 1}, {0, b.Size + 1}} {
			if _, err := Range(context.Background(), s, b, span[0], span[1]); err == nil {
				t.Errorf("%s: gave bytes %v", name, span)
			}
		}
	}
}

func TestDir(t *testing.T) {
	dir := t.TempDir()
	inner := filepath.Join(dir, "stick")
	for name, text := range map[string]string{"stick/metadata/a b.json": "text", "secret": "secret"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../secret", filepath.Join(inner, "link")); err != nil {
		t.Fatal(err)
	}
	s := Dir(inner)
	if b, err := Bytes(context.Background(), s, "metadata/a%20b.json", 10); err != nil || string(b) != "text" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := Bytes(context.Background(), s, "metadata/none", 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	for _, path := range []string{"../secret", "%2e%2e/secret", "link", "/etc/passwd", "metadata", "", "%"} {
		if b, err := Bytes(context.Background(), s, path, 1<<20); err == nil {
			t.Errorf("%q gave %q", path, b)
		}
	}
	r, err := s.Get(context.Background(), "metadata/a%20b.json", 2, 10)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file that is too short gave %q, %v", b, err)
	}
}

func TestTLSAndProxy(t *testing.T) {
	secure := httptest.NewTLSServer(good(nil))
	defer secure.Close()
	o := quick(nil)
	if _, err := Bytes(context.Background(), HTTP([]string{secure.URL}, o), "x", 1<<20); err == nil {
		t.Error("trusted a server that nobody knows")
	}
	o.Roots = secure.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	if _, err := Bytes(context.Background(), HTTP([]string{secure.URL}, o), "x", 1<<20); err != nil {
		t.Error(err)
	}
	down := httptest.NewTLSServer(http.RedirectHandler(mirrors(t, good(nil))[0], http.StatusFound))
	defer down.Close()
	_, err := Bytes(context.Background(), HTTP([]string{down.URL}, o), "x", 1<<20)
	if err == nil || !strings.Contains(err.Error(), "redirection from TLS") {
		t.Errorf("followed from TLS to plain: %v", err)
	}
	var host string
	through := func(w http.ResponseWriter, r *http.Request) { host = r.Host; good(nil)(w, r) }
	proxy, err := url.Parse(mirrors(t, through)[0])
	if err != nil {
		t.Fatal(err)
	}
	o.Proxy = proxy
	_, err = Bytes(context.Background(), HTTP([]string{"http://updates.example/"}, o), "x", 1<<20)
	if err != nil || host != "updates.example" {
		t.Errorf("the proxy was asked for %q, %v", host, err)
	}
}

// Of a server without ranges a file is had from its first byte, if too much of it would be read again.
func TestNoRangesForLargePart(t *testing.T) {
	const size = maxSkip + 2<<20
	d, _, err := image.DigestOf(io.NewSectionReader(zeroReader{}, 0, size))
	if err != nil {
		t.Fatal(err)
	}
	b, dir := image.Blob{Digest: d, Size: size}, t.TempDir()
	part := filepath.Join(dir, d.Hex()+".part")
	if err := os.WriteFile(part, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(part, maxSkip+1<<20); err != nil {
		t.Fatal(err)
	}
	asked := 0
	s := HTTP(mirrors(t, func(w http.ResponseWriter, _ *http.Request) {
		asked++
		io.Copy(w, io.NewSectionReader(zeroReader{}, 0, size))
	}), quick(nil))
	if _, err := File(context.Background(), s, b, dir, nil); err != nil || asked != 5 { // four rounds, then anew
		t.Errorf("%v after %d requests", err, asked)
	}
}

// A transfer of any size needs no more memory than its buffers.
func TestMemory(t *testing.T) {
	const size = 64 << 20
	zeros := struct{ io.ReadSeeker }{io.NewSectionReader(zeroReader{}, 0, size)}
	d, _, err := image.DigestOf(zeros)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := HTTP(mirrors(t, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(zeroReader{}, 0, size))
	}), Options{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var reports []int64
	report := func(n int64) { reports = append(reports, n) }
	if _, err := File(context.Background(), s, image.Blob{Digest: d, Size: size}, dir, report); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 { // the server's included
		t.Errorf("allocated %d bytes", got)
	}
	if len(reports) < size/settle || reports[len(reports)-1] != size || !slices.IsSorted(reports) {
		t.Errorf("reported %v", reports)
	}
}

type zeroReader struct{}

func (zeroReader) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

// Whatever a server does wrong now and then, in any order: the file is right in the end, and never wrong.
func TestRandomFaults(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 1))
		fault := func(w http.ResponseWriter, r *http.Request) {
			switch random.IntN(7) {
			case 0:
				status(500+random.IntN(5))(w, r)
			case 1:
				w.Write(content[:random.IntN(len(content))])
			case 2:
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", random.IntN(9), len(content)-1, len(content)))
				w.WriteHeader(http.StatusPartialContent)
			default:
				good(nil)(&cutWriter{ResponseWriter: w, left: 1 + random.IntN(200000)}, r)
			}
		}
		o := quick(nil)
		o.Rounds = 100
		want(t, HTTP(mirrors(t, fault, fault), o), t.TempDir())
	}
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-0/1", "bytes 5-9/10", "bytes 5-9/*", "bytes */10", "bytes 9-5/10", "bytes 0-99999999999999999999/1", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if first, total, err := contentRange(s); err == nil && (first < 0 || total >= 0 && first >= total) {
			t.Errorf("%q is read as byte %d of %d", s, first, total)
		}
	})
}
