package gate

import "allotment/updater/snapshot"

// Data are the modules' data on the state partition that is mounted at Root. It implements Snapshots.
type Data struct{ Root string }

// Take implements Snapshots.
func (d Data) Take(name string) error { return snapshot.Take(d.Root, name) }

// Restore implements Snapshots.
func (d Data) Restore(name string) error { return snapshot.Restore(d.Root, name) }

// Remove implements Snapshots.
func (d Data) Remove(name string) error { return snapshot.Remove(d.Root, name) }

// Exists implements Snapshots.
func (d Data) Exists(name string) bool { return snapshot.Exists(d.Root, name) }

// List implements Snapshots.
func (d Data) List() ([]string, error) { return snapshot.List(d.Root) }

// Changes implements Snapshots.
func (d Data) Changes(name string) ([]snapshot.Change, error) { return snapshot.Changes(d.Root, name) }
