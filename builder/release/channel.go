package release

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	tuf "github.com/theupdateframework/go-tuf/v2/metadata"

	"allotment/image"
)

// releaseFile is the last part of the name of a target.
const releaseFile = "release.json"

// maxRelease bounds the description of a release, in bytes.
const maxRelease = 1 << 20

// Target is what the devices of a channel shall have, for one profile and architecture.
type Target struct {
	Channel string
	Name    string // of the profile
	Arch    image.Arch
	Digest  image.Digest // of the release's description
	Size    int64        // of it, bytes
	Custom
}

// Custom is what the signed metadata says of a target, beside what it is.
type Custom struct {
	Wave      image.Wave `json:"wave"`
	Withdrawn bool       `json:"withdrawn"`
}

// path is the target's TUF path.
func (t Target) path() string {
	return strings.Join([]string{t.Channel, t.Name, string(t.Arch), releaseFile}, "/")
}

// file is the name in a store of the description that the target is.
func (t Target) file() string {
	return strings.Join([]string{"targets", t.Channel, t.Name, string(t.Arch), t.Digest.Hex() + "." + releaseFile}, "/")
}

// parseTarget reads a target of a channel's metadata.
func parseTarget(path string, f *tuf.TargetFiles) (Target, error) {
	bad := func(why string) (Target, error) { return Target{}, fmt.Errorf("target %q %s", path, why) }
	parts := strings.Split(path, "/")
	if len(parts) != 4 || !slices.Contains(Channels, parts[0]) || parts[3] != releaseFile {
		return bad("has a path of another form than CHANNEL/NAME/ARCH/" + releaseFile)
	}
	arch, err := image.ParseArch(parts[2])
	if err != nil {
		return Target{}, err
	}
	sum := f.Hashes["sha256"]
	if len(sum) != 32 || len(f.Hashes) != 1 {
		return bad("has another hash than one SHA-256")
	}
	if f.Length <= 0 || f.Length > maxRelease || f.Custom == nil {
		return bad("has no size, a large one, or no wave")
	}
	t := Target{Channel: parts[0], Name: parts[1], Arch: arch, Digest: image.NewDigest([32]byte(sum)), Size: f.Length}
	if err := decode(*f.Custom, &t.Custom); err != nil {
		return bad("says " + err.Error())
	}
	return t, nil
}

// decode reads JSON strictly: what is not known is a mistake.
func decode(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("JSON goes on behind its end")
	}
	return nil
}

// put makes t the target of its channel.
func (st *state) put(t Target) error {
	custom, err := json.Marshal(t.Custom)
	if err != nil {
		return err
	}
	raw := json.RawMessage(custom)
	st.channels[t.Channel].Signed.Targets[t.path()] = &tuf.TargetFiles{
		Length: t.Size, Hashes: tuf.Hashes{"sha256": t.Digest.Bytes()}, Custom: &raw, Path: t.path(),
	}
	return nil
}

// targets lists the targets of a channel by their paths.
func (st *state) list(channel string) ([]Target, error) {
	var all []Target
	files := st.channels[channel].Signed.Targets
	for _, path := range slices.Sorted(maps.Keys(files)) {
		t, err := parseTarget(path, files[path])
		if err != nil {
			return nil, err
		}
		if t.Channel != channel {
			return nil, fmt.Errorf("channel %s has target %q", channel, path)
		}
		all = append(all, t)
	}
	return all, nil
}

// Targets lists what the channels have.
func (r *Repository) Targets() ([]Target, error) {
	var all []Target
	for _, c := range Channels {
		some, err := r.now.list(c)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// Release reads the description of a target's release.
func (r *Repository) Release(ctx context.Context, t Target) (*image.Release, error) {
	return readRelease(ctx, r.files, t)
}

// readRelease reads and checks the description of a release.
func readRelease(ctx context.Context, s Store, t Target) (*image.Release, error) {
	b, err := s.Get(ctx, t.file())
	if err != nil {
		return nil, err
	}
	if int64(len(b)) != t.Size || image.NewDigest(sha256.Sum256(b)) != t.Digest {
		return nil, fmt.Errorf("%s is damaged: its SHA-256 or size is not what the metadata says", t.file())
	}
	rel, err := ParseRelease(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.file(), err)
	}
	if rel.Name != t.Name || rel.Arch != t.Arch {
		return nil, fmt.Errorf("%s is of %s for %s", t.file(), rel.Name, rel.Arch)
	}
	return rel, nil
}

// Select narrows what a command works on; a zero field takes all.
type Select struct {
	Channel string
	Name    string
	Arch    image.Arch
}

func (s Select) takes(t Target) bool {
	return t.Channel == cmp.Or(s.Channel, t.Channel) && t.Name == cmp.Or(s.Name, t.Name) && t.Arch == cmp.Or(s.Arch, t.Arch)
}

// selected lists the targets that s takes; none is an error.
func (r *Repository) selected(s Select) ([]Target, error) {
	all, err := r.Targets()
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(t Target) bool { return !s.takes(t) })
	if len(all) == 0 {
		return nil, fmt.Errorf("cannot find a release of %q for %q in channel %q; see what there is: allot release check %s",
			cmp.Or(s.Name, "any profile"), cmp.Or(s.Arch, "any architecture"), cmp.Or(s.Channel, "any"), r.Dir)
	}
	return all, nil
}

// Promote gives stable what candidate has.
func (r *Repository) Promote(ctx context.Context, s Select, w image.Wave) ([]Target, error) {
	s.Channel = Candidate
	from, err := r.selected(s)
	if err != nil {
		return nil, err
	}
	next := r.now.clone()
	var files []named
	for i, t := range from {
		if t.Withdrawn {
			return nil, fmt.Errorf("cannot promote %s for %s: it was withdrawn", t.Name, t.Arch)
		}
		b, err := r.files.Get(ctx, t.file())
		if err != nil {
			return nil, err
		}
		rel, err := r.Release(ctx, t)
		if err != nil {
			return nil, err
		}
		t.Channel, t.Wave = Stable, w
		if err := r.newer(ctx, t, rel); err != nil {
			return nil, fmt.Errorf("cannot promote %s for %s: %w", t.Name, t.Arch, err)
		}
		files = append(files, named{t.file(), b})
		if err := next.put(t); err != nil {
			return nil, err
		}
		from[i] = t
	}
	if err := r.write(ctx, files); err != nil {
		return nil, err
	}
	return from, r.commit(ctx, next, Stable)
}

// newer refuses a release that is not newer than what its channel has: devices would not take it.
func (r *Repository) newer(ctx context.Context, t Target, rel *image.Release) error {
	all, err := r.now.list(t.Channel)
	if err != nil {
		return err
	}
	for _, old := range all {
		if old.path() != t.path() {
			continue
		}
		had, err := r.Release(ctx, old)
		if err != nil {
			return err
		}
		if rel.Version.Compare(had.Version) <= 0 {
			return fmt.Errorf("channel %s has version %s, %s is not newer; build it with a higher version", t.Channel, had.Version, rel.Version)
		}
	}
	return nil
}

// SetWave says anew when devices may take what s takes.
func (r *Repository) SetWave(ctx context.Context, s Select, w image.Wave) ([]Target, error) {
	all, err := r.selected(s)
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i].Wave = w
	}
	return all, r.change(ctx, all)
}

// Withdraw keeps devices from taking a version of what s takes. Those that have it keep it, until a newer release comes.
func (r *Repository) Withdraw(ctx context.Context, s Select, v image.Version) ([]Target, error) {
	all, err := r.selected(s)
	if err != nil {
		return nil, err
	}
	var withdrawn []Target
	for _, t := range all {
		rel, err := r.Release(ctx, t)
		if err != nil {
			return nil, err
		}
		if rel.Version == v {
			t.Withdrawn = true
			withdrawn = append(withdrawn, t)
		}
	}
	if len(withdrawn) == 0 {
		return nil, fmt.Errorf("cannot withdraw version %s of %q: no channel has it; see: allot release check %s", v, s.Name, r.Dir)
	}
	return withdrawn, r.change(ctx, withdrawn)
}

// change puts targets in force as they are said to be now.
func (r *Repository) change(ctx context.Context, all []Target) error {
	next := r.now.clone()
	var changed []string
	for _, t := range all {
		if err := next.put(t); err != nil {
			return err
		}
		changed = append(changed, t.Channel)
	}
	return r.commit(ctx, next, slices.Compact(changed)...)
}

// waveHours is how long each kind of wave takes by default.
var waveHours = map[string]int{"default": 72, "fast": 12, "emergency": 0}

// NewWave is a wave of a kind that starts at a time. Hours below 0 are those of the kind.
func NewWave(kind string, start time.Time, hours int) (image.Wave, error) {
	usual, ok := waveHours[kind]
	if !ok {
		return image.Wave{}, fmt.Errorf("cannot use wave %q: want default, fast or emergency", kind)
	}
	if hours < 0 {
		hours = usual
	}
	return image.Wave{Start: start.Unix(), Hours: hours, Kind: kind}, nil
}
