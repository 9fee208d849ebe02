// Package install writes a release to where the machine can start it: root and hash tree to the slot that does not run,
// layers to the store, the UKI to the state and the ESP. All of it is read back and verified, and nothing starts it yet:
// that is for package slot's Arm.
package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"allotment/image"
	"allotment/image/verity"
	"allotment/init/durable"
	"allotment/updater/attempt"
	"allotment/updater/fetch"
)

// Config says where to install.
type Config struct {
	State     string                            // where the state partition is mounted, /state
	Manifest  *image.Manifest                   // of the system that runs
	Running   attempt.System                    // likewise
	Partition func(name string) (string, error) // the device of a partition of the boot disk: see state.Partition
	Boot      func() (Boot, error)              // opens what the boot loader reads
	Log       *slog.Logger

	// Verity gives a file fs-verity unless it has it, and is an error if its digest is another one: btrfs.CheckVerity.
	Verity func(path string, d image.Digest) error
}

// Boot is what the boot loader reads, for as long as it is changed: a slot.Store.
type Boot interface {
	Versions() ([]image.Version, error)            // that could be started
	Place(version image.Version, uki string) error // boot files of the UKI, so that nothing starts them yet
	Drop(version image.Version) error              // is never started again
	UKI(version image.Version) (io.Reader, error)  // as it lies there
	Close() error
}

// Dir is the updater's folder on the state partition.
func Dir(state string) string { return filepath.Join(state, "update") }

// UKI is the path of the copy of a release's UKI.
func UKI(state string, v image.Version) string {
	return filepath.Join(Dir(state), "boot", string(v)+".efi")
}

// FetchDir is where downloads lie, whole or in part.
func FetchDir(state string) string { return filepath.Join(Dir(state), "fetch") }

// Stage installs the release from what the device has and what src gives, and returns it as the system to be started next. On
// an error the slot that does not run holds no system at all, and nothing that could be started points at it; Stage can
// be called again and goes on with what was fetched. Report is told how many bytes of work are done of how many.
func Stage(
	ctx context.Context, c Config, r image.Release, src fetch.Source, report func(done, total int64),
) (attempt.System, error) {
	to, err := stage(ctx, c, r, src, report)
	if err != nil {
		return attempt.System{}, fmt.Errorf("cannot install version %s: %w", r.Version, err)
	}
	return to, nil
}

func stage(
	ctx context.Context, c Config, r image.Release, src fetch.Source, report func(done, total int64),
) (attempt.System, error) {
	to := attempt.System{Version: r.Version, Slot: Other(c.Running.Slot)}
	var err error
	if to.RootHash, err = Check(c, r); err != nil {
		return to, err
	}
	t, err := openTarget(c, r, to.Slot)
	if err != nil {
		return to, err
	}
	defer t.close()
	if err := c.enoughSpace(r); err != nil {
		return to, err
	}
	if err := c.empty(t); err != nil {
		return to, err
	}
	if err := errors.Join(c.removeLayers(c.neededWith(r)), c.removeDownloads(&r)); err != nil {
		return to, err
	}
	if err := makeParts(ctx, c, r, src, t, report); err != nil {
		return to, err
	}
	if err := t.seal(to.RootHash); err != nil {
		return to, err
	}
	n := Needs{RootHash: to.RootHash}
	for _, l := range r.Layers {
		n.Layers = append(n.Layers, image.Layer{Name: l.Name, Digest: l.Verity, Size: l.Size})
	}
	if err := c.KeepNeeds(r.Version, n); err != nil {
		return to, err
	}
	return to, c.place(r.Version)
}

// Other is the other slot.
func Other(s image.Slot) image.Slot {
	if s == image.SlotA {
		return image.SlotB
	}
	return image.SlotA
}

// empty makes sure that the target can be written: first nothing is left that would start it, then it is no system any more.
func (c Config) empty(t *target) error {
	b, err := c.Boot()
	if err != nil {
		return err
	}
	defer b.Close()
	versions, err := b.Versions()
	if err != nil {
		return err
	}
	for _, v := range versions {
		if v == c.Running.Version {
			continue
		}
		if err := b.Drop(v); err != nil {
			return err
		}
	}
	return t.wipe()
}

func (c Config) place(v image.Version) error {
	b, err := c.Boot()
	if err != nil {
		return err
	}
	if err := b.Place(v, UKI(c.State, v)); err != nil {
		b.Close()
		return err
	}
	return b.Close()
}

// Needs is what a version needs of the state partition, so that nobody removes it.
type Needs struct {
	RootHash verity.RootHash `json:"roothash"`
	Layers   []image.Layer   `json:"layers"`
}

// KeepNeeds notes what a version needs.
func (c Config) KeepNeeds(v image.Version, n Needs) error {
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	path := needsFile(c.State, v)
	if err := durable.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(path, b, 0o644)
}

func needsFile(state string, v image.Version) string {
	return filepath.Join(Dir(state), "releases", string(v)+".json")
}

// NeedsOf reads what a version needs that was installed here.
func NeedsOf(state string, v image.Version) (Needs, error) {
	var n Needs
	b, err := os.ReadFile(needsFile(state, v))
	if err == nil {
		err = json.Unmarshal(b, &n)
	}
	if err != nil {
		return n, fmt.Errorf("cannot read what version %s needs: %w", v, err)
	}
	return n, nil
}
