// Package store is the portal's database: one file (bbolt) with typed buckets of JSON values. A transaction is on disk
// before Update returns, and a copy of the file at any moment is whole. docs/formats/portal-store.md lists the buckets.
package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// ErrNotFound says that a bucket has no value of that key.
var ErrNotFound = errors.New("not in the portal's database")

// lockWait bounds how long Open waits for another process that has the file open.
const lockWait = 5 * time.Second

// DB is an open database. It may be used by several goroutines at once.
type DB struct {
	bolt *bbolt.DB
}

// Tx is a transaction; it must not be used after the function that got it has returned.
type Tx struct {
	bolt *bbolt.Tx
}

// Open opens the database at path and makes it, with its folder, if it is not there.
func Open(path string) (*DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the folder of the portal's database: %w", err)
	}
	b, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, fmt.Errorf("cannot open the portal's database %q: %w", path, err)
	}
	return &DB{b}, nil
}

// Close closes the database once its transactions have ended.
func (db *DB) Close() error { return db.bolt.Close() }

// View calls f with a transaction that can only read: all that it sees is of one moment.
func (db *DB) View(f func(*Tx) error) error {
	return db.bolt.View(func(tx *bbolt.Tx) error { return f(&Tx{tx}) })
}

// Update calls f with the only transaction that can write. What it wrote counts if f returns nil, all or nothing.
func (db *DB) Update(f func(*Tx) error) error {
	return db.bolt.Update(func(tx *bbolt.Tx) error { return f(&Tx{tx}) })
}

// Bucket is a map on disk from names, in the order of their bytes, to values of type T as JSON. Its zero value is of no
// use; make one with NewBucket.
type Bucket[T any] struct {
	name string
}

// NewBucket is the bucket called name. Buckets of the same name are the same.
func NewBucket[T any](name string) Bucket[T] { return Bucket[T]{name} }

// Get returns the value of key. ErrNotFound: there is none.
func (b Bucket[T]) Get(tx *Tx, key string) (T, error) {
	var v T
	values := tx.bolt.Bucket([]byte(b.name))
	if values == nil {
		return v, ErrNotFound
	}
	raw := values.Get([]byte(key))
	if raw == nil {
		return v, ErrNotFound
	}
	return b.decode([]byte(key), raw)
}

// Put sets the value of key, which is 1 to 32768 bytes long.
func (b Bucket[T]) Put(tx *Tx, key string, v T) error {
	raw, err := json.Marshal(v)
	if err == nil {
		var values *bbolt.Bucket
		if values, err = tx.bolt.CreateBucketIfNotExists([]byte(b.name)); err == nil {
			err = values.Put([]byte(key), raw)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot store %q in %q: %w", key, b.name, err)
	}
	return nil
}

// Delete removes the value of key, if there is one.
func (b Bucket[T]) Delete(tx *Tx, key string) error {
	values := tx.bolt.Bucket([]byte(b.name))
	if values == nil {
		return nil
	}
	if err := values.Delete([]byte(key)); err != nil {
		return fmt.Errorf("cannot remove %q from %q: %w", key, b.name, err)
	}
	return nil
}

// All calls f with each value whose key begins with prefix, in the order of keys, until f returns false. f may change
// the bucket.
func (b Bucket[T]) All(tx *Tx, prefix string, f func(key string, v T) (more bool)) error {
	values := tx.bolt.Bucket([]byte(b.name))
	if values == nil {
		return nil
	}
	c := values.Cursor()
	for k, raw := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); {
		v, err := b.decode(k, raw)
		if err != nil {
			return err
		}
		key := string(k)
		if !f(key, v) {
			return nil
		}
		k, raw = c.Seek([]byte(key + "\x00")) // not Next: f may have moved what the cursor points at
	}
	return nil
}

// Backwards calls f with each value whose key is less than before (empty: with each), the greatest first, until f
// returns false. f must not change the bucket.
func (b Bucket[T]) Backwards(tx *Tx, before string, f func(key string, v T) (more bool)) error {
	values := tx.bolt.Bucket([]byte(b.name))
	if values == nil {
		return nil
	}
	c := values.Cursor()
	k, raw := c.Last()
	if before != "" {
		if at, _ := c.Seek([]byte(before)); at != nil {
			k, raw = c.Prev()
		} else {
			k, raw = c.Last()
		}
	}
	for ; k != nil; k, raw = c.Prev() {
		v, err := b.decode(k, raw)
		if err != nil || !f(string(k), v) {
			return err
		}
	}
	return nil
}

// Next returns a number that the bucket has never returned before, greater than all that it has.
func (b Bucket[T]) Next(tx *Tx) (uint64, error) {
	values, err := tx.bolt.CreateBucketIfNotExists([]byte(b.name))
	if err != nil {
		return 0, fmt.Errorf("cannot number %q: %w", b.name, err)
	}
	return values.NextSequence()
}

func (b Bucket[T]) decode(key, raw []byte) (T, error) {
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, fmt.Errorf("cannot read %q of %q in the portal's database: %w", key, b.name, err)
	}
	return v, nil
}
