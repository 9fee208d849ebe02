package apt

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"allotment/image"
)

// errMissing is the error for a file that a place does not have.
var errMissing = errors.New("not there")

// errWrong is wrapped by the errors for bytes that are not those that were asked for.
var errWrong = errors.New("wrong bytes")

// attempts bounds how often a transfer is tried in a row without a single new byte.
const attempts = 4

// transfer fetches files over HTTP.
type transfer struct {
	client  *http.Client
	idle    time.Duration // without a byte before a connection counts as broken
	backoff time.Duration // before the second attempt; it doubles
}

// newTransfer returns a transfer with the timeouts that suit a slow line.
func newTransfer() *transfer {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableCompression = true // sizes and hashes are of the bytes as they are stored
	t.MaxIdleConnsPerHost = parallel
	return &transfer{client: &http.Client{Transport: t}, idle: 30 * time.Second, backoff: 500 * time.Millisecond}
}

// download is a file on its way to disk.
type download struct {
	url   string
	limit int64 // its size if that is known, else the most it may have
	file  *os.File
	hash  hash.Hash
	add   func(int64) // told of bytes that came; negative when they are thrown away

	have   int64 // bytes that are in file and hash
	failed error // why Write refused bytes
}

// exact fetches url into a new file at path, which must turn out to have this size and hash. An error that is about the
// bytes wraps errWrong; one for a file that is not there, errMissing.
func (t *transfer) exact(ctx context.Context, url, path string, size int64, want image.Digest, add func(int64)) error {
	d, err := t.download(ctx, url, path, size, add)
	if err != nil {
		return err
	}
	if d.have != size {
		return fmt.Errorf("%w from %s: %d bytes where %d are due", errWrong, url, d.have, size)
	}
	if got := image.NewDigest([sha256.Size]byte(d.hash.Sum(nil))); got != want {
		return fmt.Errorf("%w from %s: hash is %s, want %s", errWrong, url, got, want)
	}
	return nil
}

// download fetches url into a new file at path, going on where a broken connection stopped.
func (t *transfer) download(ctx context.Context, url, path string, limit int64, add func(int64)) (*download, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d := &download{url: url, limit: limit, file: f, hash: sha256.New(), add: add}
	wait := t.backoff
	for try := 1; ; try++ {
		before := d.have
		again, err := t.attempt(ctx, d)
		if err == nil {
			return d, errors.Join(f.Truncate(d.have), f.Close()) // of an attempt that came further
		}
		if d.have > before {
			try, wait = 0, t.backoff
		}
		if !again || try >= attempts || ctx.Err() != nil {
			d.restart()
			return nil, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait *= 2
	}
}

// attempt makes one request for what is missing. When it fails, again tells whether another one may help.
func (t *transfer) attempt(ctx context.Context, d *download) (again bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(t.idle, func() { cancel(fmt.Errorf("no byte came for %s", t.idle)) })
	defer watch.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url, nil)
	if err != nil {
		return false, err
	}
	req.Header.Set("User-Agent", "allot")
	if d.have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.have))
	}
	resp, err := t.client.Do(req)
	if err != nil {
		return true, because(ctx, err)
	}
	defer resp.Body.Close()
	if again, err := d.begin(resp); err != nil {
		return again, err
	}
	_, err = io.Copy(d, &watchedReader{resp.Body, watch, t.idle})
	switch {
	case err == nil:
		return false, nil
	case d.failed != nil:
		return false, d.failed
	}
	return true, fmt.Errorf("cannot fetch %s: broken off after %d bytes: %w", d.url, d.have, because(ctx, err))
}

// because is the reason for which ctx was cancelled, if it was, in place of the error that followed from it.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// begin looks at the head of an answer: whether it has the file, and where in it its body begins.
func (d *download) begin(resp *http.Response) (again bool, err error) {
	switch code := resp.StatusCode; {
	case code == http.StatusPartialContent && d.have > 0:
		if from := fmt.Sprintf("bytes %d-", d.have); !strings.HasPrefix(resp.Header.Get("Content-Range"), from) {
			d.restart()
			return true, fmt.Errorf("cannot fetch %s: another range than asked for", d.url)
		}
		return false, nil
	case code == http.StatusOK:
		d.restart()
		return false, nil
	case code == http.StatusRequestedRangeNotSatisfiable:
		d.restart()
		return true, fmt.Errorf("cannot fetch %s: %s", d.url, resp.Status)
	case code == http.StatusNotFound || code == http.StatusGone:
		return false, fmt.Errorf("%w: %s: %s", errMissing, d.url, resp.Status)
	default:
		again := code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout
		return again, fmt.Errorf("cannot fetch %s: %s", d.url, resp.Status)
	}
}

// restart throws away what has come.
func (d *download) restart() {
	d.add(-d.have)
	d.have = 0
	d.hash.Reset()
}

// Write implements io.Writer for the body of an answer. Its errors are not the connection's.
func (d *download) Write(b []byte) (int, error) {
	if d.have+int64(len(b)) > d.limit {
		d.failed = fmt.Errorf("%w from %s: more than %d bytes", errWrong, d.url, d.limit)
		return 0, d.failed
	}
	n, err := d.file.WriteAt(b, d.have)
	d.failed = err
	d.hash.Write(b[:n])
	d.have += int64(n)
	d.add(int64(n))
	return n, err
}

// watchedReader puts off the end of a connection whenever bytes come.
type watchedReader struct {
	r     io.Reader
	watch *time.Timer
	idle  time.Duration
}

func (w *watchedReader) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	if n > 0 {
		w.watch.Reset(w.idle)
	}
	return n, err
}
