package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"allotment/image"
	"allotment/updater/fetch"
	"allotment/updater/trust"
	"allotment/updater/trust/trusttest"
)

// cost is what a device does to the server once.
type cost struct {
	requests    int64
	sent, asked int64 // bytes that the server sends and gets, with the heads of HTTP
}

// costs are those of all that a device does.
type costs struct {
	first  cost // the first check of a new device
	idle   cost // a check that finds nothing new
	notice cost // a check that finds a new release
	fetch  cost // of the release's delta
}

// layers is the number of layers of a release, about that of the garden club's.
const layers = 24

// server gives a folder's files and counts.
type server struct {
	net.Listener
	requests, in, out atomic.Int64
}

// Accept implements net.Listener.
func (s *server) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return counted{c, s}, nil
}

// counted is a connection whose bytes are counted.
type counted struct {
	net.Conn
	s *server
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.s.in.Add(int64(n))
	return n, err
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.s.out.Add(int64(n))
	return n, err
}

// cost runs do and returns what it cost.
func (s *server) cost(do func() error) (cost, error) {
	requests, in, out := s.requests.Load(), s.in.Load(), s.out.Load()
	err := do()
	return cost{s.requests.Load() - requests, s.out.Load() - out, s.in.Load() - in}, err
}

// fault lets a mistake in making the repository end the program.
type fault struct{}

func (fault) Helper()          {}
func (fault) Fatal(why ...any) { panic(fmt.Sprint(why...)) }

// measure lets one device take a release from a server of plain files.
func measure(ctx context.Context, delta int64) (c costs, err error) {
	dir, err := os.MkdirTemp("", "allotment-fleet-")
	if err != nil {
		return c, err
	}
	defer os.RemoveAll(dir)
	now := time.Now()
	repo := trusttest.New(fault{}, now)
	addRelease(repo, "2026.11.1", image.Blob{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return c, err
	}
	s := &server{Listener: listener}
	defer s.Close()
	files := http.FileServer(http.Dir(dir))
	go http.Serve(s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		files.ServeHTTP(w, r)
	}))
	device := filepath.Join(dir, "device")
	source := fetch.HTTP([]string{"http://" + listener.Addr().String()}, fetch.Options{})
	check := func() error {
		client, err := trust.New(trust.Config{Dir: filepath.Join(device, "trust"), Root: repo.RootFile(1), Source: source,
			Now: func() time.Time { return now }})
		if err == nil {
			err = client.Refresh(ctx)
		}
		if err != nil {
			return err
		}
		_, err = client.Offer(ctx, "stable", "garden", image.AMD64)
		return err
	}
	if err := writeFiles(dir, repo.Files); err != nil {
		return c, err
	}
	if c.first, err = s.cost(check); err != nil {
		return c, err
	}
	if c.idle, err = s.cost(check); err != nil {
		return c, err
	}
	blob, err := writeBlob(dir, delta)
	if err != nil {
		return c, err
	}
	addRelease(repo, "2026.11.2", blob)
	if err := writeFiles(dir, repo.Files); err != nil {
		return c, err
	}
	if c.notice, err = s.cost(check); err != nil {
		return c, err
	}
	c.fetch, err = s.cost(func() error {
		_, err := fetch.File(ctx, source, blob, device, nil)
		return err
	})
	return c, err
}

// addRelease publishes a release of as many parts as a real one.
func addRelease(repo *trusttest.Repo, version image.Version, delta image.Blob) {
	r := trusttest.Release("garden", version)
	for len(r.Layers) < layers {
		r.Layers = append(r.Layers, r.Layers[0])
	}
	for range 5 {
		if delta.Size > 0 {
			r.Deltas = append(r.Deltas, image.Blob{Digest: delta.Digest, Size: delta.Size, From: "2026.11.1"})
		}
	}
	repo.AddRelease(r, image.Wave{Kind: "default", Hours: 72})
}

func writeFiles(dir string, files map[string][]byte) error {
	for name, b := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeBlob makes a blob of zeros.
func writeBlob(dir string, size int64) (image.Blob, error) {
	digest, _, err := image.DigestOf(io.LimitReader(zeros{}, size))
	if err != nil {
		return image.Blob{}, err
	}
	b := image.Blob{Digest: digest, Size: size}
	path := filepath.Join(dir, fetch.Path(b))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return b, err
	}
	f, err := os.Create(path)
	if err != nil {
		return b, err
	}
	defer f.Close()
	return b, f.Truncate(size)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
