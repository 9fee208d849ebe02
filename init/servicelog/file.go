// Package servicelog keeps what services print, within bounds that no service can exceed: a file of at most MaxFile
// bytes and one older file beside it, and a limit on how fast they fill, so that a flood neither fills the disk nor
// wears it out.
package servicelog

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// MaxFile is the size, in bytes, at which a log file becomes the older one; the one older than that is dropped.
const MaxFile = 1 << 20

// File is an append-only log with one older generation, path + ".1". It is safe for concurrent use.
type File struct {
	mu   sync.Mutex
	path string
	f    *os.File
	size int64
}

// Open opens the log at path, making its folder (mode 0750) if needed, and continues what is there.
func Open(path string) (*File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("cannot make the folder of log %q: %w", path, err)
	}
	l := &File{path: path}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *File) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("cannot open log %q: %w", l.path, err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("cannot open log %q: %w", l.path, err)
	}
	l.f, l.size = f, st.Size()
	return nil
}

// Write appends p, whole, to one file; what is longer than MaxFile is cut.
func (l *File) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	p = p[:min(n, MaxFile)]
	if l.f == nil || l.size+int64(len(p)) > MaxFile {
		if err := l.rotate(); err != nil {
			return 0, err
		}
	}
	w, err := l.f.Write(p)
	l.size += int64(w)
	if err != nil {
		return w, fmt.Errorf("cannot write log %q: %w", l.path, err)
	}
	return n, nil
}

func (l *File) rotate() error {
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
	if err := os.Rename(l.path, l.path+".1"); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("cannot rotate log %q: %w", l.path, err)
	}
	return l.open()
}

// Close closes the file; a later Write opens a new one.
func (l *File) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}
