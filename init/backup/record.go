package backup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"allotment/api"
	"allotment/init/durable"
)

// The files of the folder /state/backup; docs/formats/backup.md describes them.
const (
	folder        = "backup"
	targetFile    = "target.json"
	keyFile       = "key"
	historyFile   = "history.json"
	restoreFile   = "restore.json"
	authorityFile = "authority.pem"
	cacheFolder   = "cache"
)

// history is what the backup has come to, durable across restarts.
type history struct {
	Printed bool              `json:"printed"` // somebody has the key on paper
	Last    *api.BackupRun    `json:"last,omitempty"`
	Good    *api.BackupRun    `json:"good,omitempty"`
	Export  *api.BackupExport `json:"export,omitempty"`
	Proof   *api.BackupProof  `json:"proof,omitempty"`
	Proven  time.Time         `json:"proven,omitzero"`
	Pruned  time.Time         `json:"pruned,omitzero"`
	Since   time.Time         `json:"since,omitzero"` // when there was a target first
}

// store is the folder.
type store struct{ dir string }

func (s store) path(name string) string { return filepath.Join(s.dir, name) }

// load reads a file of JSON; it leaves v as it is if there is none.
func (s store) load(name string, v any) (found bool, err error) {
	b, err := os.ReadFile(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return false, fmt.Errorf("cannot read what is known of backups: %w", err)
	}
	return true, nil
}

// keep writes a file of JSON, durably.
func (s store) keep(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "\t")
	if err == nil {
		err = durable.MkdirAll(s.dir, 0o700)
	}
	if err == nil {
		err = durable.WriteFile(s.path(name), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot note what is known of backups: %w", err)
	}
	return nil
}

func (s store) remove(name string) error {
	if err := os.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// key reads the box's key; ok is false if there is none yet.
func (s store) key() (k Key, ok bool, err error) {
	b, err := os.ReadFile(s.path(keyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return k, false, nil
	}
	if err == nil {
		k, err = ParseKey(string(b))
	}
	if err != nil {
		return k, false, fmt.Errorf("cannot read the backup's key: %w", err)
	}
	return k, true, nil
}

func (s store) keepKey(k Key) error {
	err := durable.MkdirAll(s.dir, 0o700)
	if err == nil {
		err = durable.WriteFile(s.path(keyFile), []byte(k.Text()+"\n"), 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot keep the backup's key: %w", err)
	}
	return nil
}

// contents is what a backup says of itself, in the file box.json.
type contents struct {
	Format  int           `json:"format"`
	Profile string        `json:"profile"`
	Version string        `json:"version"`
	Time    time.Time     `json:"time"`
	Modules []savedModule `json:"modules"`
}

// savedModule is a module in a backup.
type savedModule struct {
	Name    string        `json:"name"`
	Title   string        `json:"title"`
	Volumes []savedVolume `json:"volumes"`
}

// check refuses what this release does not understand, and names that would lead elsewhere.
func (c contents) check() error {
	if c.Format != contentsFormat {
		return api.Errorf(api.Conflict, "the backup was made by a newer version than this box runs: update the box first")
	}
	for _, m := range c.Modules {
		if !nameForm.MatchString(m.Name) {
			return fmt.Errorf("cannot use a backup with a module named %q", m.Name)
		}
		for _, v := range m.Volumes {
			if !nameForm.MatchString(v.Name) {
				return fmt.Errorf("cannot use a backup with a volume named %q", v.Name)
			}
		}
	}
	return nil
}

// nameForm is that of modules and volumes.
var nameForm = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$`)

// savedVolume is a volume in a backup, with the version of its content.
type savedVolume struct {
	Name   string `json:"name"`
	Format int    `json:"format,omitempty"`
	UID    uint32 `json:"uid"` // of its folder, as are the following; restic keeps those of what is in it
	GID    uint32 `json:"gid"`
	Mode   uint32 `json:"mode"`
}

const (
	contentsFile   = "box.json"
	contentsFormat = 1
)
