// Package config is what the supervisor tells the updater, and what that tells people: files of JSON that both know, so that
// neither program holds the other one.
package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"allotment/image"
	"allotment/image/verity"
)

// Config is what the supervisor tells the daemon, in a file of JSON whose path is its one argument.
type Config struct {
	Manifest string          `json:"manifest"` // path of the running system's image.Manifest
	Disk     string          `json:"disk"`     // that root, ESP and state are on, such as /dev/vda (boot.Facts)
	Slot     image.Slot      `json:"slot"`     // that runs
	RootHash verity.RootHash `json:"roothash"` // of the root that runs
	API      string          `json:"api"`      // path of the API's socket
	State    string          `json:"state"`    // where the state partition is mounted, such as /state
	Run      string          `json:"run"`      // folder of its own for what need not last: status.json
	Media    string          `json:"media"`    // folder in which the disk that officers name as a source is mounted, as MediaDisk
	Zone     string          `json:"zone"`     // the organisation's time zone, such as Europe/London
}

// Read reads and checks the file at path.
func Read(path string) (Config, error) {
	var c Config
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return Config{}, fmt.Errorf("cannot read configuration %q: %w", path, err)
	}
	return c, nil
}

func (c Config) check() error {
	for _, path := range []string{c.Manifest, c.Disk, c.API, c.State, c.Run, c.Media} {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("path %q is not absolute", path)
		}
	}
	if c.Slot != image.SlotA && c.Slot != image.SlotB {
		return fmt.Errorf("slot is %q, want a or b", c.Slot)
	}
	if c.RootHash == (verity.RootHash{}) {
		return errors.New("no root hash")
	}
	return nil
}

// MediaDisk is the folder in Config.Media at which the disk is mounted. It lies in another one as what a confined program may
// open must be there when it starts.
const MediaDisk = "disk"

// StatusFile is the name of the daemon's status in Config.Run.
const StatusFile = "status.json"

// Status is what the daemon is doing, for people. The file is replaced as a whole at every change.
type Status struct {
	State     State         `json:"state"`
	Text      string        `json:"text"`              // the same in a plain English sentence
	Version   image.Version `json:"version,omitempty"` // that is offered, being had or ready
	Done      int64         `json:"done,omitempty"`    // bytes
	Total     int64         `json:"total,omitempty"`   // bytes
	Checked   int64         `json:"checked,omitempty"` // Unix time in seconds of the last check that succeeded
	NextCheck int64         `json:"nextCheck,omitempty"`
	Due       int64         `json:"due,omitempty"`    // Unix time in seconds of the restart, as far as is known
	Reason    string        `json:"reason,omitempty"` // why it waits, or what failed, in a plain English sentence
}

// State is one word for what the daemon is doing.
type State string

// The states of the daemon.
const (
	Idle       State = "idle"       // the newest release runs, or none can be had
	Checking   State = "checking"   // the repository is being asked
	Waiting    State = "waiting"    // a release is offered, its wave has not come, or officers do not want it yet
	Fetching   State = "fetching"   // bytes are being had and written
	Ready      State = "ready"      // all is staged; the restart comes in the maintenance window
	Restarting State = "restarting" // the supervisor has been asked for the restart
	Failed     State = "failed"     // the last try failed; there will be another
	Off        State = "off"        // no source of updates is known
)
