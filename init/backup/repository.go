package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"allotment/api"
)

// opened is a repository that can be worked with, by restic.
type opened struct {
	repository
	restic Restic
	host   string // which box's snapshots count
}

// Progress tells of bytes that are done, of those known so far.
type Progress func(done, total int64)

// ensure makes the repository if there is none, and takes away what a cut has left in one.
func (o opened) ensure(ctx context.Context) error {
	if o.folder != "" {
		if err := o.makeFolder(); err != nil {
			return err
		}
	}
	err := o.unlock(ctx)
	if errors.Is(err, ErrNoRepository) {
		return o.restic.run(ctx, call{repository: o.repository, writes: true, args: []string{"init"}})
	}
	return err
}

// makeFolder makes the repository's folder on a disk, for whoever owns that.
func (o opened) makeFolder() error {
	err := os.Mkdir(o.folder, 0o700)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err == nil && o.restic.Owner != 0 {
		if err = os.Chown(o.folder, o.restic.Owner, o.restic.Owner); errors.Is(err, os.ErrPermission) {
			return nil // FAT knows no owners, and is mounted as restic's
		}
	}
	if err != nil {
		return fmt.Errorf("cannot make %q on the disk: %w", filepath.Base(o.folder), err)
	}
	return nil
}

// unlock takes away what a cut has left: locks of this machine's processes that are gone, and old ones of others.
func (o opened) unlock(ctx context.Context) error {
	return o.restic.run(ctx, call{repository: o.repository, writes: true, args: []string{"unlock"}})
}

// summary is how restic sums a backup up.
type summary struct {
	Snapshot string `json:"snapshot_id"`
	Bytes    int64  `json:"total_bytes_processed"`
	Files    int64  `json:"total_files_processed"`
	Added    int64  `json:"data_added_packed"`
}

// resticLine is one line of what restic tells of a backup or a restore.
type resticLine struct {
	Type     string `json:"message_type"`
	Done     int64  `json:"bytes_done"`
	Restored int64  `json:"bytes_restored"`
	Total    int64  `json:"total_bytes"`
	Files    int64  `json:"total_files"`
}

// save makes a snapshot of the folder.
func (o opened) save(ctx context.Context, folder string, tell Progress) (summary, error) {
	var s summary
	err := o.restic.run(ctx, call{repository: o.repository, line: func(line []byte) {
		var l resticLine
		if json.Unmarshal(line, &l) != nil {
			return
		}
		switch l.Type {
		case "status":
			tell(l.Done, l.Total)
		case "summary":
			_ = json.Unmarshal(line, &s)
		}
	}, args: []string{"backup", "--host", o.host, "--tag", tag, "--group-by", "host,tags", folder}})
	if err == nil && s.Snapshot == "" {
		err = errors.New("restic did not say which snapshot it has made")
	}
	return s, err
}

// tag marks our snapshots, so that nobody's else are forgotten.
const tag = "allotment"

// mostRepacked bounds what one pruning moves, so that it ends in a night.
const mostRepacked = "512M"

// forget thins the snapshots out; with prune, their data goes too.
func (o opened) forget(ctx context.Context, prune bool) error {
	args := []string{"forget", "--host", o.host, "--tag", tag, "--group-by", "host,tags", "--keep-daily", "7", "--keep-weekly", "5",
		"--keep-monthly", "12"}
	if prune {
		args = append(args, "--prune", "--max-unused", "10%", "--max-repack-size", mostRepacked)
	}
	return o.restic.run(ctx, call{repository: o.repository, writes: true, args: args})
}

// check looks for damage: in the structure, and in a part of the data, another one each week.
func (o opened) check(ctx context.Context, week int) error {
	part := fmt.Sprintf("--read-data-subset=%d/%d", week%checkParts+1, checkParts)
	return o.restic.run(ctx, call{repository: o.repository, writes: true, args: []string{"check", part}})
}

// checkParts is in how many weeks check reads everything once.
const checkParts = 13

// snapshots lists those that this software has made, the newest first; of all boxes if host is empty.
func (o opened) snapshots(ctx context.Context, host string) ([]kept, error) {
	var out bytes.Buffer
	args := []string{"snapshots", "--tag", tag, "--no-lock"}
	if host != "" {
		args = append(args, "--host", host)
	}
	if err := o.restic.run(ctx, call{repository: o.repository, output: &out, args: args}); err != nil {
		return nil, err
	}
	var all []kept
	if err := json.Unmarshal(out.Bytes(), &all); err != nil {
		return nil, fmt.Errorf("cannot understand restic's list of snapshots: %w", err)
	}
	all = slices.DeleteFunc(all, func(k kept) bool { return len(k.Paths) != 1 })
	slices.SortStableFunc(all, func(a, b kept) int { return b.Time.Compare(a.Time) })
	return all, nil
}

// kept is a snapshot in the repository.
type kept struct {
	ID    string    `json:"id"`
	Time  time.Time `json:"time"`
	Host  string    `json:"hostname"`
	Paths []string  `json:"paths"`
}

// path is where the snapshot has what was NAME in the folder that was saved.
func (k kept) path(name ...string) string { return filepath.Join(append(k.Paths[:1:1], name...)...) }

// newest is the newest snapshot, or the one with that id.
func (o opened) newest(ctx context.Context, host, id string) (kept, error) {
	all, err := o.snapshots(ctx, host)
	if err != nil {
		return kept{}, err
	}
	for _, k := range all {
		if id == "" || k.ID == id {
			return k, nil
		}
	}
	return kept{}, api.Errorf(api.NotFound, "there is no such backup at the target")
}

// contents reads what the snapshot says of itself.
func (o opened) contents(ctx context.Context, k kept) (contents, error) {
	var c contents
	b, err := o.read(ctx, k.ID, k.path(contentsFile))
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("cannot understand the backup's description: %w", err)
	}
	return c, c.check()
}

// bring writes what the snapshot has below the folder from into the folder to, with owners and modes.
func (o opened) bring(ctx context.Context, k kept, from, to string, tell Progress) (bytes, files int64, err error) {
	err = o.restic.run(ctx, call{repository: o.repository, writes: true, line: func(line []byte) {
		var l resticLine
		if json.Unmarshal(line, &l) == nil && (l.Type == "status" || l.Type == "summary") {
			bytes, files = l.Restored, l.Files
			tell(l.Restored, l.Total)
		}
	}, args: []string{"restore", k.ID + ":" + k.path(from), "--target", to, "--no-lock"}})
	return bytes, files, err
}

// read returns a small file of the snapshot.
func (o opened) read(ctx context.Context, snapshot, path string) ([]byte, error) {
	var out bytes.Buffer
	err := o.restic.run(ctx, call{repository: o.repository, output: &out, args: []string{"dump", "--no-lock", snapshot, path}})
	return out.Bytes(), err
}

// inWords is the error for people, who need not know of restic.
func inWords(err error) error {
	var r *ResticError
	if !errors.As(err, &r) {
		return err
	}
	switch text := r.Text; {
	case strings.Contains(text, "no such host") || strings.Contains(text, "server misbehaving"):
		return fmt.Errorf("the target's name is not known: is the address right, and the box online? (%w)", err)
	case strings.Contains(text, "connection refused") || strings.Contains(text, "i/o timeout") || strings.Contains(text, "network is unreachable"):
		return fmt.Errorf("the target does not answer: is the address right, and the box online? (%w)", err)
	case strings.Contains(text, "Access Denied") || strings.Contains(text, "403") || strings.Contains(text, "InvalidAccessKeyId") ||
		strings.Contains(text, "SignatureDoesNotMatch") || strings.Contains(text, "unable to authenticate") || strings.Contains(text, "401"):
		return fmt.Errorf("the target does not let this box in: are the user and the password right? (%w)", err)
	case strings.Contains(text, untrusted):
		return fmt.Errorf("the target's certificate is not the one that was trusted: somebody else may be answering (%w)", err)
	case strings.Contains(text, syscall.ENOSPC.Error()) || strings.Contains(text, full):
		return fmt.Errorf("there is no room left at the target or on this box (%w)", err)
	}
	return err
}
