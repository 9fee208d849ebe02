package release

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	tuf "github.com/theupdateframework/go-tuf/v2/metadata"

	"allotment/internal/cache"
	"allotment/internal/progress"
)

// errChanged says that a file is not what it was read as.
var errChanged = errors.New("somebody else has changed it meanwhile")

// Options are what all work on a repository needs.
type Options struct {
	Dir      string // of the repository
	Keys     Keys
	Now      time.Time
	Progress progress.Reporter
}

// Repository is a repository in a folder, locked for this process.
type Repository struct {
	Options
	files  *folder
	now    *state
	unlock func()
}

// Init makes a repository without releases. Keys that the keyring has by the names of docs/formats/repository.md are used,
// the others are made.
func Init(ctx context.Context, o Options) error {
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return err
	}
	r, err := lock(ctx, o)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := r.files.Size(ctx, metadataName(tuf.TIMESTAMP, 0)); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot make a repository in %q: there is one already", o.Dir)
	}
	next, err := r.first()
	if err == nil {
		err = r.commit(ctx, next, tuf.ROOT, tuf.TARGETS, Stable, Candidate)
	}
	if err != nil {
		return fmt.Errorf("cannot make repository %q: %w", o.Dir, err)
	}
	return nil
}

// Open opens a repository and locks it, waiting for others that work on it.
func Open(ctx context.Context, o Options) (*Repository, error) {
	r, err := lock(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("cannot open repository %q: %w", o.Dir, err)
	}
	if r.now, err = loadState(ctx, r.files); err != nil {
		r.Close()
		if _, e := r.files.Size(ctx, metadataName(tuf.ROOT, 1)); errors.Is(e, fs.ErrNotExist) {
			err = errors.New("it has no root metadata; make a repository with: allot release init")
		}
		return nil, fmt.Errorf("cannot open repository %q: %w", o.Dir, err)
	}
	return r, nil
}

func lock(ctx context.Context, o Options) (*Repository, error) {
	if o.Progress == nil {
		o.Progress = progress.Silent{}
	}
	wait := o.Progress.Step("wait for others who work on "+o.Dir, 0)
	unlock, err := cache.LockFolder(ctx, o.Dir)
	wait.Done(err)
	if err != nil {
		return nil, err
	}
	r := &Repository{Options: o, files: newFolder(o.Dir), unlock: unlock}
	err = r.files.clean()
	if err == nil {
		err = r.finish(ctx)
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return r, nil
}

// Close lets others work on the repository.
func (r *Repository) Close() { r.unlock() }

// first is the state before the first commit, with version 0 everywhere.
func (r *Repository) first() (*state, error) {
	st := &state{
		root: tuf.Root(r.Now), targets: tuf.Targets(r.Now), snapshot: tuf.Snapshot(r.Now), timestamp: tuf.Timestamp(r.Now),
		channels: map[string]*tuf.Metadata[tuf.TargetsType]{},
	}
	st.targets.Signed.Delegations = &tuf.Delegations{Keys: map[string]*tuf.Key{}}
	for _, c := range Channels {
		st.channels[c] = tuf.Targets(r.Now)
		st.channels[c].Signed.Version = 0
		st.targets.Signed.Delegations.Roles = append(st.targets.Signed.Delegations.Roles, tuf.DelegatedRole{
			Name: c, KeyIDs: []string{}, Threshold: 1, Terminating: true, Paths: []string{c + "/*/*/" + releaseFile},
		})
	}
	for _, version := range []*int64{
		&st.root.Signed.Version, &st.targets.Signed.Version, &st.snapshot.Signed.Version, &st.timestamp.Signed.Version,
	} {
		*version = 0
	}
	for _, ro := range roles {
		if !slices.Contains(Channels, ro.name) {
			st.root.Signed.Roles[ro.name].Threshold = ro.threshold
		}
		for n := range ro.keys {
			if err := r.addKey(st, ro.name, keyName(ro.name, n+1)); err != nil {
				return nil, err
			}
		}
	}
	return st, nil
}

// addKey gives a role the key of the given name, which is made if there is none.
func (r *Repository) addKey(st *state, role, name string) error {
	public, err := r.Keys.Public(name)
	if errors.Is(err, fs.ErrNotExist) {
		public, err = r.Keys.New(name)
	}
	if err != nil {
		return fmt.Errorf("cannot make key %q: %w", name, err)
	}
	key, err := tuf.KeyFromPublicKey(public)
	if err != nil {
		return fmt.Errorf("cannot use key %q: %w", name, err)
	}
	if slices.Contains(Channels, role) {
		return st.targets.Signed.AddKey(key, role)
	}
	return st.root.Signed.AddKey(key, role)
}

// commit signs the changed roles, and those that name their files, and puts them in force.
func (r *Repository) commit(ctx context.Context, next *state, changed ...string) error {
	if err := r.checkClock(); err != nil {
		return err
	}
	c := commit{Repository: r, next: next}
	if slices.ContainsFunc(changed, func(role string) bool { return role == tuf.TARGETS || slices.Contains(Channels, role) }) {
		changed = append(changed, tuf.SNAPSHOT)
	}
	if slices.Contains(changed, tuf.SNAPSHOT) {
		changed = append(changed, tuf.TIMESTAMP)
	}
	// Root comes last. Everything before it is signed by the keys of the old root too, so that it is good with both. Only the
	// first root of all has to be there before the timestamp.
	order := slices.Concat(Channels, []string{tuf.TARGETS, tuf.SNAPSHOT, tuf.TIMESTAMP, tuf.ROOT})
	if r.now == nil {
		order = slices.Concat([]string{tuf.ROOT}, order[:len(order)-1])
	}
	for _, role := range order {
		if slices.Contains(changed, role) {
			if err := c.role(ctx, role); err != nil {
				return err
			}
		}
	}
	if err := r.decide(ctx, c.files); err != nil {
		return err
	}
	r.now = next
	return nil
}

// journal is the file whose appearance decides on a change of metadata. It begins with a dot, so it is not published.
const journal = ".commit.json"

// decide puts all files into the repository or none, wherever it is cut off: finish does the rest.
func (r *Repository) decide(ctx context.Context, files []named) error {
	b, err := json.Marshal(files)
	if err != nil {
		return err
	}
	if err := r.files.Put(ctx, journal, bytes.NewReader(b), int64(len(b))); err != nil {
		return err
	}
	return r.finish(ctx)
}

// finish puts the files of a change that was decided on in place. Doing so again does no harm: until the next change is decided
// on, which replaces the journal, they are what is in force.
func (r *Repository) finish(ctx context.Context) error {
	b, err := r.files.Get(ctx, journal)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var files []named
	if err == nil {
		err = json.Unmarshal(b, &files)
	}
	if err == nil {
		err = r.write(ctx, files)
	}
	if err != nil {
		return fmt.Errorf("cannot finish a change: %w", err)
	}
	return r.files.Remove(ctx, journal)
}

// checkClock refuses to sign with a clock that stands before the last signing: what it signs would expire too soon.
func (r *Repository) checkClock() error {
	if r.now == nil {
		return nil
	}
	ro, err := findRole(tuf.TIMESTAMP)
	if err != nil {
		return err
	}
	if last := r.now.timestamp.Signed.Expires.Add(-ro.lifetime); r.Now.Before(last.Add(-time.Hour)) {
		return fmt.Errorf("cannot sign: this machine's clock shows %s, but the repository was signed at %s; set the clock",
			r.Now.UTC().Format(time.DateTime), last.UTC().Format(time.DateTime))
	}
	return nil
}

// named is a small file.
type named struct {
	Name string `json:"name"`
	Data []byte `json:"data"`
}

// write puts files into the repository one after the other.
func (r *Repository) write(ctx context.Context, files []named) error {
	for _, f := range files {
		if err := r.files.Put(ctx, f.Name, bytes.NewReader(f.Data), int64(len(f.Data))); err != nil {
			return err
		}
	}
	return nil
}

// commit is a change that is being signed.
type commit struct {
	*Repository
	next  *state
	files []named
}

// role signs the metadata of a role in its next version.
func (c *commit) role(ctx context.Context, name string) error {
	ro, err := findRole(name)
	if err != nil {
		return err
	}
	expires := c.Now.UTC().Truncate(time.Second).Add(ro.lifetime)
	st := c.next
	switch name {
	case tuf.ROOT:
		s := &st.root.Signed
		s.Version, s.Expires = s.Version+1, expires
		_, err = seal(ctx, c, name, st.root, s.Version)
		if err == nil && c.now != nil {
			err = c.now.root.VerifyDelegate(tuf.ROOT, st.root)
		}
	case tuf.SNAPSHOT:
		s := &st.snapshot.Signed
		s.Version, s.Expires = s.Version+1, expires
		st.timestamp.Signed.Meta["snapshot.json"], err = seal(ctx, c, name, st.snapshot, s.Version)
	case tuf.TIMESTAMP:
		s := &st.timestamp.Signed
		s.Version, s.Expires = s.Version+1, expires
		_, err = seal(ctx, c, name, st.timestamp, s.Version)
	default:
		m := st.targets
		if name != tuf.TARGETS {
			m = st.channels[name]
		}
		m.Signed.Version, m.Signed.Expires = m.Signed.Version+1, expires
		st.snapshot.Signed.Meta[name+".json"], err = seal(ctx, c, name, m, m.Signed.Version)
	}
	return err
}

// seal signs metadata with the keys of its role, before and after the change, and checks that devices will take it.
func seal[T tuf.Roles](ctx context.Context, c *commit, name string, m *tuf.Metadata[T], version int64) (*tuf.MetaFiles, error) {
	groups := []signers{c.next.keysOf(name)}
	if c.now != nil {
		before := c.now.keysOf(name)
		before.optional = name != tuf.ROOT
		groups = append(groups, before)
	}
	if err := sign(ctx, c.Keys, name, m, groups...); err != nil {
		return nil, err
	}
	var err error
	if slices.Contains(Channels, name) {
		err = c.next.targets.VerifyDelegate(name, m)
	} else {
		err = c.next.root.VerifyDelegate(name, m)
	}
	if err != nil {
		return nil, fmt.Errorf("the signatures of %s do not hold: %w", name, err)
	}
	b, err := m.ToBytes(false)
	if err != nil {
		return nil, err
	}
	c.files = append(c.files, named{metadataName(name, version), b})
	return file(version, b), nil
}
