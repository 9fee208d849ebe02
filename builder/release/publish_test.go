package release

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/minio/minio-go/v7"

	"allotment/image"
)

// publish brings the box's repository to a folder.
func (b *box) publish(t testing.TB, dir string) error {
	t.Helper()
	to, unlock, err := OpenFolder(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	return b.do(t, func(r *Repository) error { _, err := r.Publish(t.Context(), to); return err })
}

func TestPublish(t *testing.T) {
	b, www := newBox(t), filepath.Join(t.TempDir(), "www")
	want := func(now ...string) {
		t.Helper()
		got, err := offers(t, www, b.Now)
		if err != nil || !slices.Equal(got, now) {
			t.Fatalf("published are %q, %v; want %q", got, err, now)
		}
	}
	if err := b.publish(t, www); err != nil {
		t.Fatal(err)
	}
	want()
	for _, v := range []image.Version{"1.0", "1.1"} {
		if _, err := b.addImage(t, v); err != nil {
			t.Fatal(err)
		}
		if err := b.publish(t, www); err != nil {
			t.Fatal(err)
		}
		want("candidate/club " + string(v))
	}
	b.must(t, func(r *Repository) error { return r.Rotate(t.Context(), "timestamp", nil, nil) })
	if err := b.publish(t, www); err != nil {
		t.Fatal(err)
	}
	want("candidate/club 1.1")
	b.must(t, func(r *Repository) error {
		to, unlock, err := OpenFolder(t.Context(), www)
		if err != nil {
			return err
		}
		defer unlock()
		if p, err := r.Publish(t.Context(), to); err != nil || p != (Amount{}) {
			t.Errorf("publishing again: %+v, %v", p, err)
		}
		return nil
	})
}

// Nothing is published that a device would refuse, that is older than what is there, or that is of somebody else.
func TestPublishRefuses(t *testing.T) {
	b, www := newBox(t), filepath.Join(t.TempDir(), "www")
	if _, err := b.addImage(t, "1.0"); err != nil {
		t.Fatal(err)
	}
	if err := b.publish(t, www); err != nil {
		t.Fatal(err)
	}
	older, forked, damaged, expired := b.copy(t), b.copy(t), b.copy(t), b.copy(t)

	if _, err := b.addImage(t, "1.1"); err != nil {
		t.Fatal(err)
	}
	if err := b.publish(t, www); err != nil {
		t.Fatal(err)
	}
	wantError(t, older.publish(t, www), "is newer (timestamp 3) than this repository (2)")
	for range 3 { // as a forgotten timer does
		forked.must(t, func(r *Repository) error { return r.Refresh(t.Context()) })
	}
	wantError(t, forked.publish(t, www), "is not an earlier state of this repository")
	replace(t, filepath.Join(www, "metadata/1.root.json"), "2029", "2030")
	wantError(t, b.publish(t, www), "another repository is published there")

	empty := filepath.Join(t.TempDir(), "empty")
	found, err := filepath.Glob(filepath.Join(damaged.Dir, "blobs/*"))
	if err != nil {
		t.Fatal(err)
	}
	flip(t, found[0])
	wantError(t, damaged.publish(t, empty), "is damaged")
	expired.Now = start.Add(20 * day)
	wantError(t, expired.publish(t, empty), "expired")
	if entries, _ := os.ReadDir(empty); len(entries) > 0 {
		t.Errorf("published all the same: %v", entries)
	}
}

// TestPublishInterrupted cuts a publication between all files; devices see the old state or the new one at any time, and it is
// done to the end the next time.
func TestPublishInterrupted(t *testing.T) {
	b, www := newBox(t), filepath.Join(t.TempDir(), "www")
	if _, err := b.addImage(t, "1.0"); err != nil {
		t.Fatal(err)
	}
	if err := b.publish(t, www); err != nil {
		t.Fatal(err)
	}
	if _, err := b.addImage(t, "1.1"); err != nil {
		t.Fatal(err)
	}
	b.must(t, func(r *Repository) error { return r.Rotate(t.Context(), "timestamp", nil, nil) })
	for n := 0; ; n++ {
		dir := filepath.Join(t.TempDir(), "www")
		if err := os.CopyFS(dir, os.DirFS(www)); err != nil {
			t.Fatal(err)
		}
		to, reached := newFolder(dir), false
		left := n
		to.rename = func(from, to string) error {
			if left--; left >= 0 {
				return os.Rename(from, to)
			}
			reached = true
			return errCut
		}
		err := b.do(t, func(r *Repository) error { _, err := r.Publish(t.Context(), to); return err })
		got, e := offers(t, dir, b.Now)
		if e != nil || len(got) != 1 || !strings.HasPrefix(got[0], "candidate/club 1.") {
			t.Errorf("cut %d: published are %q, %v", n, got, e)
		}
		if !reached {
			break
		}
		if !errors.Is(err, errCut) {
			t.Fatalf("cut %d: %v", n, err)
		}
		if err := b.publish(t, dir); err != nil {
			t.Errorf("after cut %d: %v", n, err)
		}
		if got, err := offers(t, dir, b.Now); err != nil || got[0] != "candidate/club 1.1" {
			t.Errorf("after cut %d: published are %q, %v", n, got, err)
		}
	}
}

// newBucket is an S3 server of its own and a store in it.
func newBucket(t *testing.T) Store {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("updates"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(server.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_REGION", "us-east-1")
	t.Setenv("AWS_ENDPOINT_URL", server.URL)
	s, err := OpenS3("s3://updates/club/v1", os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPublishS3(t *testing.T) {
	b, to := newBox(t), newBucket(t)
	publish := func(b *box) (p Amount, err error) {
		t.Helper()
		err = b.do(t, func(r *Repository) error { p, err = r.Publish(t.Context(), to); return err })
		return p, err
	}
	if _, err := b.addImage(t, "1.0"); err != nil {
		t.Fatal(err)
	}
	first, err := publish(b)
	if err != nil {
		t.Fatal(err)
	}
	older := b.copy(t)
	if _, err := b.addImage(t, "1.1"); err != nil {
		t.Fatal(err)
	}
	second, err := publish(b)
	if err != nil || second.Files == 0 || second.Files >= first.Files+3 {
		t.Errorf("published %+v, then %+v, %v", first, second, err)
	}
	if again, err := publish(b); err != nil || again.Files != 0 {
		t.Errorf("published again: %+v, %v", again, err)
	}
	_, err = publish(older)
	wantError(t, err, "is newer")
	wantSame(t, b, to)
}

// wantSame compares what is published with the repository.
func wantSame(t *testing.T, b *box, to Store) {
	t.Helper()
	for _, name := range []string{"metadata/timestamp.json", "metadata/1.root.json", "metadata/3.candidate.json"} {
		got, err := to.Get(t.Context(), name)
		want, e := os.ReadFile(filepath.Join(b.Dir, name))
		if err != nil || e != nil || string(got) != string(want) {
			t.Errorf("%s: %v, %v", name, err, e)
		}
	}
}

// Of two who publish to a bucket at once, the second is told.
func TestS3Replace(t *testing.T) {
	s := newBucket(t)
	ctx, name := t.Context(), "metadata/timestamp.json"
	if err := s.Replace(ctx, name, nil, []byte("one")); err != nil {
		t.Fatal(err)
	}
	for _, old := range [][]byte{nil, []byte("other")} {
		if err := s.Replace(ctx, name, old, []byte("two")); !errors.Is(err, errChanged) {
			t.Errorf("replacing %q: %v", old, err)
		}
	}
	if err := s.Replace(ctx, name, []byte("one"), []byte("two")); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(ctx, name); err != nil || string(got) != "two" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := s.Size(ctx, "blobs/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no blob: %v", err)
	}
	for _, place := range []string{"s3://", "http://x", "s3://a?b=c", "%"} {
		if _, err := OpenS3(place, os.Getenv); err == nil {
			t.Errorf("%q was opened", place)
		}
	}
}

// A blob that takes several requests arrives whole.
func TestS3LargeBlob(t *testing.T) {
	s := newBucket(t)
	want := make([]byte, 17<<20)
	rand.NewChaCha8([32]byte{1}).Read(want)
	if err := s.Put(t.Context(), "blobs/large", bytes.NewReader(want), int64(len(want))); err != nil {
		t.Fatal(err)
	}
	b := s.(*bucket)
	o, err := b.client.GetObject(t.Context(), b.name, b.key("blobs/large"), minio.GetObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(o)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if _, err := s.Get(t.Context(), "blobs/large"); err == nil {
		t.Error("a blob was read as metadata")
	}
}

// A publication to a bucket that is cut in the midst of a blob leaves none.
func TestS3PutIsWhole(t *testing.T) {
	s := newBucket(t)
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	go func() {
		w.Write(make([]byte, 1000))
		cancel()
		w.CloseWithError(context.Canceled)
	}()
	if err := s.Put(ctx, "blobs/x", r, 2000); err == nil {
		t.Error("half a blob was put")
	}
	if _, err := s.Size(t.Context(), "blobs/x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a blob is there: %v", err)
	}
}

// swollen is a store that keeps more than it is given.
type swollen struct{ *folder }

func (s swollen) Put(ctx context.Context, name string, r io.Reader, size int64) error {
	return s.folder.Put(ctx, name, io.MultiReader(r, strings.NewReader("more")), size+4)
}

func TestPublishNoticesBadStore(t *testing.T) {
	b := newBox(t)
	if err := b.add(t, "club", "1.0"); err != nil {
		t.Fatal(err)
	}
	to := swollen{newFolder(t.TempDir())}
	err := b.do(t, func(r *Repository) error { _, err := r.Publish(t.Context(), to); return err })
	wantError(t, err, "the store does not keep what it is given")
}

// What expires in the repository goes from a bucket too, and nothing else.
func TestExpire(t *testing.T) {
	b, to := newBox(t), newBucket(t)
	publish := func(r *Repository) error { _, err := r.Publish(t.Context(), to); return err }
	for _, v := range []image.Version{"1.0", "1.1", "1.2", "1.3"} {
		if _, err := b.addImage(t, v); err != nil {
			t.Fatal(err)
		}
		b.must(t, publish)
		if v == "1.0" {
			b.must(t, func(r *Repository) error {
				_, err := r.Promote(t.Context(), Select{}, image.Wave{Kind: "default"})
				return err
			})
		}
	}
	var gone Amount
	b.must(t, func(r *Repository) (err error) { gone, err = r.Expire(t.Context(), 1); return err })
	if gone.Files == 0 || gone.Bytes == 0 {
		t.Errorf("gone are %+v", gone)
	}
	wantOffers(t, b, "stable/club 1.0", "candidate/club 1.3")
	b.must(t, func(r *Repository) (err error) { gone, err = r.Expire(t.Context(), 1); return err })
	if gone.Files != 0 {
		t.Errorf("gone the second time are %+v", gone)
	}
	b.must(t, publish)
	b.must(t, func(r *Repository) (err error) { gone, err = r.Prune(t.Context(), to); return err })
	left, err := to.List(t.Context(), "blobs")
	kept, e := newFolder(b.Dir).List(t.Context(), "blobs")
	if err != nil || e != nil || gone.Files == 0 || !slices.Equal(left, kept) {
		t.Errorf("pruned %+v; left are %q, want %q (%v, %v)", gone, left, kept, err, e)
	}
	if _, err := b.addImage(t, "1.4"); err != nil {
		t.Fatal(err)
	}
	wantOffers(t, b, "stable/club 1.0", "candidate/club 1.4")
}
