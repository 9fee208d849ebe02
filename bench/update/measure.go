package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"allotment/builder/delta"
	"allotment/builder/lock"
	"allotment/builder/release"
	"allotment/image"
	format "allotment/image/delta"
)

// The names of pairs that goals are about.
const (
	mailServer = "mail server"
	sameKernel = "release, same kernel"
)

// pair is two versions of something and what the way from one to the other costs.
type pair struct {
	Name     string
	From, To []format.File
	Debs     int64 // bytes of the packages that changed
	ours     ours
	peers    peers
}

// ours is what our formats cost. Sizes are in bytes.
type ours struct {
	delta        int64
	stats        delta.Stats
	build        float64 // CPU s
	fetched      int64   // of packs and their indexes, without a delta
	indexes      int64   // of these
	requests     int     // for ranges of packs
	whole        int64   // packs, for a device that has nothing
	apply, other outcome // of the delta; of the packs
}

// size is how long the parts are that the newer version has and the older one has not.
func (p *pair) size() int64 {
	var n int64
	for _, f := range p.To {
		if !slices.Contains(p.From, f) {
			n += f.Size
		}
	}
	return n
}

// changed is how many bytes of the newer version are not copied from the older one.
func (o ours) changed() int64 { return o.stats.Diffed + o.stats.Patched + o.stats.Sent }

// measure makes all pairs and measures them: ours and, meanwhile, the others, which are processes of their own.
func (b *bench) measure(ctx context.Context, r *report, now time.Time) error {
	var err error
	if r.pairs, err = b.releases(ctx, now); err != nil {
		return err
	}
	group, all := errgroup.WithContext(ctx)
	group.Go(func() error {
		for i := range r.pairs {
			if err := b.ours(all, &r.pairs[i]); err != nil {
				return fmt.Errorf("%s: %w", r.pairs[i].Name, err)
			}
		}
		return nil
	})
	if b.peers {
		group.Go(func() error { return b.others(all, r.pairs) })
	}
	return group.Wait()
}

// releases builds what is compared, or finds it in the folder that was kept.
func (b *bench) releases(ctx context.Context, now time.Time) ([]pair, error) {
	list := filepath.Join(b.dir, "pairs.json")
	var all []pair
	text, err := os.ReadFile(list)
	if err == nil {
		return all, json.Unmarshal(text, &all)
	}
	l, err := b.locks(ctx, now)
	if err != nil {
		return nil, err
	}
	images := map[*lock.Lock]*release.Image{}
	for i, packages := range []*lock.Lock{l.oldest, l.old, l.fresh} {
		if images[packages], err = b.build(ctx, l, packages, image.Version(fmt.Sprintf("2026.11.%d", i+1))); err != nil {
			return nil, err
		}
	}
	if all, err = b.pairs(ctx, l, images); err != nil {
		return nil, err
	}
	if text, err = json.Marshal(all); err != nil {
		return nil, err
	}
	return all, os.WriteFile(list, text, 0o644)
}

// pairs lists what is measured: the mail server, every layer of ours that has new packages, and the whole release.
func (b *bench) pairs(ctx context.Context, l *locks, images map[*lock.Lock]*release.Image) ([]pair, error) {
	mail := pair{Name: mailServer, Debs: changedDebs(l.old, l.fresh, mailTree)}
	for _, packages := range []*lock.Lock{l.old, l.fresh} {
		p, err := b.mail(ctx, l, packages)
		if err != nil {
			return nil, err
		}
		mail.From, mail.To = append(mail.From, mail.To...), []format.File{p.File}
	}
	fresh := parts(images[l.fresh])
	ours := slices.DeleteFunc(slices.Sorted(maps.Keys(l.fresh.Trees)), func(name string) bool { return name == mailTree })
	all := []pair{
		mail,
		{Name: sameKernel, From: parts(images[l.old]), To: fresh, Debs: changedDebs(l.old, l.fresh, ours...)},
		{Name: "release with a kernel step", From: parts(images[l.oldest]), To: fresh, Debs: changedDebs(l.oldest, l.fresh, ours...)},
	}
	for _, m := range l.profile.Modules {
		chain, err := l.profile.Chain(&m.Tree)
		if err != nil {
			return nil, err
		}
		var trees []string
		for _, t := range chain {
			trees = append(trees, t.Name)
		}
		all = append(all, pair{Name: "module " + m.Name, From: named(parts(images[l.old]), trees), To: named(fresh, trees),
			Debs: changedDebs(l.old, l.fresh, trees...)})
	}
	return all, nil
}

// named are the parts of these names.
func named(all []format.File, names []string) []format.File {
	return slices.DeleteFunc(slices.Clone(all), func(f format.File) bool { return !slices.Contains(names, f.Name) })
}

// changedDebs is what apt would download: the packages of some trees that are not among the older ones, each once.
func changedDebs(old, fresh *lock.Lock, trees ...string) int64 {
	had := map[image.Digest]bool{}
	for _, p := range old.All(image.AMD64, trees...) {
		had[p.SHA256] = true
	}
	var n int64
	for _, p := range fresh.All(image.AMD64, trees...) {
		if !had[p.SHA256] {
			n += p.Size
		}
	}
	return n
}

// ours makes delta and packs of a pair, and has a process of its own apply them as a device does.
func (b *bench) ours(ctx context.Context, p *pair) error {
	from, closeFrom, err := b.open(p.From)
	defer closeFrom()
	if err != nil {
		return err
	}
	to, closeTo, err := b.open(p.To)
	defer closeTo()
	if err != nil {
		return err
	}
	t := task{Dir: b.dir, Delta: b.dir + "/delta", Out: b.dir + "/made", From: p.From}
	out, err := os.Create(t.Delta)
	if err != nil {
		return err
	}
	defer out.Close()
	before := cpu()
	p.ours.stats, err = delta.Make(ctx, out, from, to, delta.Options{Workers: b.workers, Progress: b.progress})
	if err != nil {
		return err
	}
	p.ours.build = cpu() - before
	st, err := out.Stat()
	if err != nil {
		return err
	}
	p.ours.delta = st.Size()
	if p.ours.apply, err = b.asDevice(ctx, t); err != nil {
		return err
	}
	return b.packs(ctx, p, to)
}

// packs makes the packs of what is new, and has a process assemble them.
func (b *bench) packs(ctx context.Context, p *pair, to []delta.Part) error {
	t := task{Dir: b.dir, Out: b.dir + "/made", From: p.From}
	for _, part := range to {
		if slices.Contains(p.From, part.File) {
			continue
		}
		name := b.path(part.File)
		if _, err := os.Stat(name + ".index"); err != nil {
			if err := b.pack(ctx, part, name); err != nil {
				return err
			}
		}
		t.Packs = append(t.Packs, part.File)
		for _, suffix := range []string{".pack", ".index"} {
			st, err := os.Stat(name + suffix)
			if err != nil {
				return err
			}
			p.ours.whole += st.Size()
			if suffix == ".index" {
				p.ours.indexes += st.Size()
			}
		}
	}
	var err error
	p.ours.other, err = b.asDevice(ctx, t)
	p.ours.fetched = p.ours.other.Fetched + p.ours.indexes
	p.ours.requests = p.ours.other.Requests
	return err
}

func (b *bench) pack(ctx context.Context, part delta.Part, name string) error {
	step := b.progress.Step("pack "+part.Name, 0)
	err := func() error {
		out, err := os.Create(name + ".pack")
		if err != nil {
			return err
		}
		defer out.Close()
		x, err := format.Pack(ctx, out, part, part.Size, b.workers)
		if err != nil {
			return err
		}
		index, err := os.Create(name + ".index")
		if err != nil {
			return err
		}
		defer index.Close()
		return x.Write(index)
	}()
	step.Done(err)
	return err
}

// open opens the files of parts.
func (b *bench) open(files []format.File) ([]delta.Part, func(), error) {
	var all []delta.Part
	var open []*os.File
	done := func() {
		for _, f := range open {
			f.Close()
		}
	}
	for _, f := range files {
		r, err := os.Open(b.path(f))
		if err != nil {
			return nil, done, err
		}
		open = append(open, r)
		all = append(all, delta.Part{File: f, ReaderAt: r})
	}
	return all, done, nil
}

// cpu is the processor time that this process has used, in seconds.
func cpu() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
