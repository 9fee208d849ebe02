package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"allotment/builder/tools"
	"allotment/internal/run"
)

// load is a writer: how it fills a new volume, and how long its commits take.
type load struct {
	what    string
	commits int
	fill    func(ctx context.Context, server *tools.Root, volume string) error
	change  func(ctx context.Context, server *tools.Root, volume string) (time.Duration, error)
}

var loads = []load{
	{"MariaDB", changes, fillTable, transactions},
	{"pages", pageCommits, fillPages, changePages},
}

// measure lets both writers change a fresh volume each, before and after a snapshot.
func (d *disk) measure(ctx context.Context, server *tools.Root, noCOW bool) ([]row, error) {
	var rows []row
	for _, l := range loads {
		volume, err := d.volume(l.what, noCOW)
		if err == nil {
			err = l.fill(ctx, server, volume)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot fill a volume for %s: %w", l.what, err)
		}
		for _, snapshot := range []bool{false, true} {
			if snapshot {
				if err := d.snapshot(volume); err != nil {
					return nil, err
				}
			}
			r, err := d.time(ctx, server, volume, l)
			if err != nil {
				return nil, fmt.Errorf("cannot measure %s: %w", l.what, err)
			}
			r.noCOW, r.snapshot = noCOW, snapshot
			rows = append(rows, r)
		}
	}
	return rows, nil
}

// time measures one load. What it leaves in memory counts as written.
func (d *disk) time(ctx context.Context, server *tools.Root, volume string, l load) (row, error) {
	before, err := d.written()
	if err != nil {
		return row{}, err
	}
	took, err := l.change(ctx, server, volume)
	if err != nil {
		return row{}, err
	}
	after, err := d.written()
	if err != nil {
		return row{}, err
	}
	n := float64(l.commits)
	r := row{what: l.what, commits: n / took.Seconds(), written: float64(after-before) / 1024 / n}
	if r.written < 1 {
		return row{}, errors.New("nothing was written")
	}
	r.extents, err = extents(volume)
	return r, err
}

// The writer of pages: a file of 64 MiB, in which each commit changes four pages of 4 KiB, whose content compresses to a
// half, and syncs.
const (
	pageFile    = "pages"
	pageSize    = 4096
	pageCount   = 16384
	pageCommits = 2000
)

func page(r *rand.Rand) []byte {
	b := make([]byte, pageSize)
	for i := range b[:pageSize/2] {
		b[i] = byte(r.Uint32())
	}
	return b
}

func fillPages(_ context.Context, _ *tools.Root, volume string) error {
	f, err := os.Create(filepath.Join(volume, pageFile))
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range pageCount {
		if _, err := f.Write(page(r)); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(f.Sync(), f.Close())
}

func changePages(_ context.Context, _ *tools.Root, volume string) (time.Duration, error) {
	f, err := os.OpenFile(filepath.Join(volume, pageFile), os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	r := rand.New(rand.NewPCG(2, 2))
	start := time.Now()
	for range pageCommits {
		for range 4 {
			if _, err := f.WriteAt(page(r), r.Int64N(pageCount)*pageSize); err != nil {
				return 0, err
			}
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

// MariaDB: a table of 100 000 rows with an index, in which four clients change rows at random, each change a transaction
// that is on the disk before it is answered. The buffer pool is small, as on a small box, so that pages are written too.
const (
	fillRows = `CREATE DATABASE b;
CREATE TABLE b.t (id INT PRIMARY KEY, k INT, c VARCHAR(250), KEY (k)) ENGINE=InnoDB;
INSERT INTO b.t SELECT seq, seq * 7 % 100003, CONCAT(REPEAT(MD5(seq), 5), seq) FROM b.seq_1_to_100000;
`
	changeRow = "REPLACE INTO b.t VALUES (1 + FLOOR(RAND() * 100000), FLOOR(RAND() * 100000), " +
		"CONCAT(REPEAT(MD5(RAND()), 5), RAND()))"
	changes    = 8000
	changers   = 4
	readyAfter = "60" // seconds at most
)

// withMariaDB runs a server on the volume while use does.
func withMariaDB(ctx context.Context, t *tools.Root, volume string, use func(client func(...string) error) error,
	more ...string) error {
	socket := filepath.Join(filepath.Dir(filepath.Dir(volume)), "socket")
	server := t.Command(ctx, "mariadbd", append([]string{"--no-defaults", "--user=root", "--skip-grant-tables",
		"--skip-networking", "--datadir=" + volume, "--socket=" + socket, "--innodb-buffer-pool-size=16M",
		"--innodb-log-file-size=32M", "--skip-log-bin", "--pid-file=" + socket + ".pid"}, more...)...)
	var said bytes.Buffer
	server.Stdout, server.Stderr = &said, &said
	if err := server.Start(); err != nil {
		return err
	}
	client := func(args ...string) error {
		args = append([]string{args[0], "--no-defaults", "--socket=" + socket}, args[1:]...)
		return t.Run(ctx, run.Command{Name: args[0], Args: args[1:]})
	}
	err := client("mariadb-admin", "--wait="+readyAfter, "ping")
	if err == nil {
		err = use(client)
	}
	err = errors.Join(err, client("mariadb-admin", "shutdown"), server.Wait())
	if err != nil {
		return fmt.Errorf("cannot use MariaDB: %w: %s", err, said.String())
	}
	return nil
}

func fillTable(ctx context.Context, t *tools.Root, volume string) error {
	file := filepath.Join(filepath.Dir(filepath.Dir(volume)), "fill.sql")
	if err := os.WriteFile(file, []byte(fillRows), 0o644); err != nil {
		return err
	}
	return withMariaDB(ctx, t, volume, func(func(...string) error) error { return nil }, "--init-file="+file)
}

func transactions(ctx context.Context, t *tools.Root, volume string) (took time.Duration, err error) {
	err = withMariaDB(ctx, t, volume, func(client func(...string) error) error {
		start := time.Now()
		defer func() { took = time.Since(start) }()
		return client("mariadb-slap", "--create-schema=b", "--no-drop", "--query="+changeRow,
			"--concurrency="+strconv.Itoa(changers), "--number-of-queries="+strconv.Itoa(changes))
	})
	return took, err
}
