// Package cache keeps derived files under the user's cache directory, keyed by content. Everything in it can be deleted at
// any time, and several processes can use it at once: a file appears under its name by rename when it is whole.
package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Dir is a cache directory.
type Dir string

// Default returns the cache directory of the user: $ALLOT_CACHE, or allotment in the user's cache directory.
func Default() (Dir, error) {
	if d := os.Getenv("ALLOT_CACHE"); d != "" {
		d, err := filepath.Abs(d)
		return Dir(d), err
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cannot find a cache directory: %w; set HOME or ALLOT_CACHE", err)
	}
	return Dir(filepath.Join(d, "allotment")), nil
}

// Key hashes anything that can be written as JSON into a key for Path.
func Key(inputs ...any) string {
	h := sha256.New()
	for _, in := range inputs {
		b, err := json.Marshal(in)
		if err != nil {
			panic(fmt.Sprintf("cache: unhashable key part %T: %v", in, err))
		}
		fmt.Fprintf(h, "%d:%s\n", len(b), b)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Path is where the entry of a kind and key lies, whether it exists or not.
func (d Dir) Path(kind, key string) string { return filepath.Join(string(d), kind, key) }

// Make returns the path of an entry and calls fill to make it where it does not exist yet. Fill gets a path beside the
// entry and makes a file or folder there; it becomes the entry only when fill succeeds. Two processes that want the same
// entry take turns, so that the work is done once.
func (d Dir) Make(ctx context.Context, kind, key string, fill func(tmp string) error) (string, error) {
	path := d.Path(kind, key)
	if _, err := os.Lstat(path); err == nil {
		return path, nil
	}
	unlock, err := d.Lock(ctx, kind, key)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Lstat(path); err == nil {
		return path, nil
	}
	tmp := path + ".tmp"
	if err := removeAll(tmp); err != nil { // left by a build that was killed
		return "", err
	}
	err = fill(tmp)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = settle(tmp)
	}
	if err != nil {
		removeAll(tmp)
		return "", err
	}
	if err := os.Rename(tmp, path); err != nil {
		return "", err
	}
	return path, nil
}

// settle waits until a file, or a folder with all that is in it, is on the disk: after a power cut an entry must not be
// there with zeros in it.
func settle(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return unix.Syncfs(int(f.Fd()))
	}
	return f.Sync()
}

// Lock keeps other processes from whatever they take the same lock for, until the returned function is called.
func (d Dir) Lock(ctx context.Context, kind, key string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Join(string(d), kind), 0o755); err != nil {
		return nil, fmt.Errorf("cannot use the cache: %w", err)
	}
	f, err := os.OpenFile(d.Path(kind, key)+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	return lock(ctx, f)
}

// LockFolder is Lock for a folder that processes share without sharing a cache.
func LockFolder(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return lock(ctx, f)
}

// Discard removes an entry if broken still says that it is damaged, when no other process makes it.
func (d Dir) Discard(ctx context.Context, kind, key string, broken func(path string) bool) error {
	unlock, err := d.Lock(ctx, kind, key)
	if err != nil {
		return err
	}
	defer unlock()
	if path := d.Path(kind, key); broken(path) {
		return removeAll(path)
	}
	return nil
}

// lock takes an exclusive lock on f, waiting for another holder until ctx ends. The file stays when it is released:
// removing it would let two holders lock different files of one name.
func lock(ctx context.Context, f *os.File) (func(), error) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != syscall.EWOULDBLOCK && err != syscall.EINTR {
			f.Close()
			return nil, fmt.Errorf("cannot lock %q: %w", f.Name(), err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("cannot wait for another build that holds %q: %w", f.Name(), ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// removeAll removes a tree whose folders may be read-only, as unpacked packages' are.
func removeAll(path string) error {
	if err := os.RemoveAll(path); err == nil {
		return nil
	}
	filepath.WalkDir(path, func(p string, e os.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			os.Chmod(p, 0o755)
		}
		return nil
	})
	return os.RemoveAll(path)
}
