package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"allotment/image"
	"allotment/image/delta"
	"allotment/internal/run"
)

// deviceVerb makes this program do what a device does, as a process whose memory can be measured.
const deviceVerb = "--as-device"

// task is what such a process has to do: apply a delta, or assemble parts of their packs.
type task struct {
	Dir   string // parts and packs, by the parts' digests
	Out   string // the file that parts are made in, one after another: it is on the same disk as they are
	From  []delta.File
	Delta string       // if not empty
	Packs []delta.File // parts to assemble
}

// outcome is what it says of itself.
type outcome struct {
	CPU      float64 // s
	Peak     int64   // most memory, bytes, with program and runtime
	Written  int64   // bytes
	Shared   int64   // bytes that a file system with reflinks does not write
	Fetched  int64   // bytes of packs
	Requests int
}

// memoryLimit is what the updater's Go runtime is told to stay within.
const memoryLimit = "GOMEMLIMIT=40MiB"

// asDevice starts this program again for a task.
func (b *bench) asDevice(ctx context.Context, t task) (outcome, error) {
	step := b.progress.Step("do as a device does", 0)
	var o outcome
	err := func() error {
		text, err := json.Marshal(t)
		if err != nil {
			return err
		}
		self, err := os.Executable()
		if err != nil {
			return err
		}
		var out bytes.Buffer
		c := run.Command{Name: self, Args: []string{deviceVerb, string(text)}, Env: []string{memoryLimit}, Stdout: &out}
		if err := (run.Host{}).Run(ctx, c); err != nil {
			return err
		}
		return json.Unmarshal(out.Bytes(), &o)
	}()
	step.Done(err)
	return o, err
}

// device does a task and prints its outcome.
func device(text string) error {
	var t task
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		return err
	}
	d := &store{task: t, open: map[image.Digest]*os.File{}}
	for _, f := range t.From {
		r, err := os.Open(filepath.Join(t.Dir, f.Digest.Hex()))
		if err != nil {
			return err
		}
		d.open[f.Digest] = r
	}
	var err error
	if t.Delta != "" {
		err = d.apply()
	} else {
		err = d.assemble()
	}
	if err != nil {
		return err
	}
	d.CPU = cpu()
	if d.Peak, err = peak(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(d.outcome)
}

func (d *store) apply() error {
	f, err := os.Open(d.Delta)
	if err != nil {
		return err
	}
	defer f.Close()
	return delta.Apply(context.Background(), f, d, d)
}

func (d *store) assemble() error {
	ctx := context.Background()
	var known delta.Known
	for _, f := range d.From {
		if err := known.Add(ctx, f, d.open[f.Digest]); err != nil {
			return err
		}
	}
	for _, f := range d.Packs {
		name := filepath.Join(d.Dir, f.Digest.Hex())
		in, err := os.Open(name + ".index")
		if err != nil {
			return err
		}
		x, err := delta.ReadIndex(bufio.NewReader(in))
		in.Close()
		if err != nil {
			return err
		}
		pack, err := os.Open(name + ".pack")
		if err != nil {
			return err
		}
		out, err := d.Output(f)
		if err != nil {
			return err
		}
		fetch := func(_ context.Context, from, to int64) (io.ReadCloser, error) {
			d.Requests++
			d.Fetched += to - from
			return io.NopCloser(io.NewSectionReader(pack, from, to-from)), nil
		}
		if err := delta.Assemble(ctx, f, x, &known, fetch, out); err != nil {
			return err
		}
		pack.Close()
	}
	return nil
}

// store is the device's parts, as files.
type store struct {
	task
	outcome
	open map[image.Digest]*os.File
	made int
}

// Source implements delta.Sources.
func (d *store) Source(f delta.File) (io.ReaderAt, error) { return d.open[f.Digest], nil }

// Output implements delta.Outputs.
func (d *store) Output(f delta.File) (delta.Output, error) {
	d.made++
	out, err := os.Create(fmt.Sprintf("%s-%d", d.Out, d.made))
	if err != nil {
		return nil, err
	}
	if err := os.Remove(out.Name()); err != nil { // it is gone when the process ends
		return nil, err
	}
	d.open[f.Digest] = out
	return &output{out, d}, nil
}

// output counts what is written to a part.
type output struct {
	*os.File
	store *store
}

// WriteAt implements delta.Output.
func (o *output) WriteAt(p []byte, off int64) (int, error) {
	o.store.Written += int64(len(p))
	return o.File.WriteAt(p, off)
}

// Clone implements delta.Output. The file system under the benchmark may not know reflinks, so it copies, and counts
// what btrfs would share.
func (o *output) Clone(off int64, from image.Digest, fromOff, n int64) bool {
	_, err := io.Copy(io.NewOffsetWriter(o.File, off), io.NewSectionReader(o.store.open[from], fromOff, n))
	o.store.Shared += n
	return err == nil
}

// Done implements delta.Output.
func (o *output) Done() error { return nil }

// peak is the most memory that this process had, in bytes.
func peak() (int64, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	var kib int64
	_, after, ok := strings.Cut(string(b), "VmHWM:")
	if _, err := fmt.Sscan(after, &kib); !ok || err != nil {
		return 0, fmt.Errorf("cannot read the peak of memory: %w", err)
	}
	return kib << 10, nil
}
