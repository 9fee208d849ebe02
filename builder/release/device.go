package release

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	tuf "github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"

	"allotment/image"
	"allotment/internal/progress"
)

// Verify does what a device does that knows nothing but the repository's first root: it follows the metadata by the TUF
// specification's client workflow at the given time, reads the release of every target, and checks the blobs that those
// name, all from the files in a folder. It returns what devices are offered.
func Verify(ctx context.Context, dir string, now time.Time, report progress.Reporter) ([]Target, error) {
	targets, err := newDevice(dir, now).verify(ctx, report)
	if err != nil {
		return nil, fmt.Errorf("devices would refuse repository %q: %w", dir, err)
	}
	return targets, nil
}

// device is what a device would see of a repository in a folder.
type device struct {
	files *folder
	now   time.Time
}

func newDevice(dir string, now time.Time) *device { return &device{newFolder(dir), now} }

func (d *device) verify(ctx context.Context, report progress.Reporter) ([]Target, error) {
	targets, err := d.follow(ctx)
	if err != nil {
		return nil, err
	}
	checked := map[image.Digest]bool{}
	for _, t := range targets {
		rel, err := readRelease(ctx, d.files, t)
		if err != nil {
			return nil, err
		}
		for _, b := range Blobs(rel) {
			if checked[b.Digest] {
				continue
			}
			if err := d.blob(ctx, b, report); err != nil {
				return nil, err
			}
			checked[b.Digest] = true
		}
	}
	return targets, nil
}

// follow runs go-tuf's client over the metadata and lists all targets of all channels.
func (d *device) follow(ctx context.Context) ([]Target, error) {
	root, err := d.files.Get(ctx, metadataName(tuf.ROOT, 1))
	if err != nil {
		return nil, err
	}
	u, err := d.client(root)
	if err != nil {
		return nil, err
	}
	if err := u.Refresh(); err != nil {
		return nil, err
	}
	// A delegated role is loaded when a target of it is asked for; that there is none with this name is no matter.
	for _, c := range Channels {
		if _, err := u.GetTargetInfo(c + "/-/-/" + releaseFile); err != nil && u.GetTrustedMetadataSet().Targets[c] == nil {
			return nil, fmt.Errorf("channel %s: %w", c, err)
		}
	}
	trusted := u.GetTrustedMetadataSet()
	st := state{channels: trusted.Targets}
	var all []Target
	for _, c := range Channels {
		targets, err := st.list(c)
		if err != nil {
			return nil, err
		}
		for _, t := range targets {
			if _, err := u.GetTargetInfo(t.path()); err != nil {
				return nil, err
			}
		}
		all = append(all, targets...)
	}
	return all, nil
}

// client is go-tuf's client over the folder. What it stores lies in a folder that is gone when it is made: nothing is taken
// from earlier runs, and nothing kept for later ones.
func (d *device) client(root []byte) (*updater.Updater, error) {
	cfg, err := config.New("metadata", root)
	if err != nil {
		return nil, err
	}
	cfg.DisableLocalCache = true
	// The client looks for stored metadata all the same, below this name.
	cfg.LocalMetadataDir = os.DevNull
	cfg.Fetcher = d
	u, err := updater.New(cfg)
	if err != nil {
		return nil, err
	}
	u.UnsafeSetRefTime(d.now)
	return u, nil
}

// DownloadFile implements go-tuf's Fetcher.
func (d *device) DownloadFile(url string, maxLength int64, _ time.Duration) ([]byte, error) {
	f, err := os.Open(d.files.path(url))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &tuf.ErrDownloadHTTP{StatusCode: http.StatusNotFound, URL: url}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxLength+1))
	if err == nil && int64(len(b)) > maxLength {
		err = &tuf.ErrDownloadLengthMismatch{Msg: fmt.Sprintf("%s is longer than %d bytes", url, maxLength)}
	}
	return b, err
}

// blob checks the bytes of a blob.
func (d *device) blob(ctx context.Context, b image.Blob, report progress.Reporter) (err error) {
	step := report.Step("check blob "+b.Digest.Short(), b.Size)
	defer func() { step.Done(err) }()
	f, err := os.Open(d.files.path(blobName(b.Digest)))
	if err != nil {
		return err
	}
	defer f.Close()
	got, size, err := image.DigestOf(io.TeeReader(f, contextWriter{ctx, meter{step}}))
	if err != nil {
		return err
	}
	if got != b.Digest || size != b.Size {
		return fmt.Errorf("%s is damaged: it has %d bytes and SHA-256 %s", strings.TrimPrefix(f.Name(), d.files.dir+"/"), size, got.Short())
	}
	return nil
}

// meter tells a step of bytes that pass.
type meter struct{ step progress.Step }

// Write implements io.Writer.
func (m meter) Write(b []byte) (int, error) {
	m.step.Add(int64(len(b)))
	return len(b), nil
}
