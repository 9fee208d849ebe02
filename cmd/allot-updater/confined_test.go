package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"allotment/image"
	"allotment/init/confine"
	"allotment/init/plan"
	"allotment/init/supervisor"
	"allotment/updater/attempt"
	"allotment/updater/config"
	"allotment/updater/fetch"
	"allotment/updater/install"
	"allotment/updater/install/installtest"
)

// inside tells a copy of the test, by the path of a task, that it is the updater; free tells it not to confine itself.
const (
	inside = "ALLOTMENT_TEST_UPDATER"
	free   = "ALLOTMENT_TEST_FREE"
)

// task is what the confined copy works on.
type task struct {
	Config     config.Config
	Manifest   *image.Manifest
	Running    attempt.System
	Release    image.Release
	Source     string
	Partitions map[string]string
	Disk       string // the folder of the kernel's on a disk
}

func TestMain(m *testing.M) {
	path := os.Getenv(inside)
	if path == "" {
		os.Exit(m.Run())
	}
	if err := beUpdater(path); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// partition gives the box's devices, and for the ESP one that no slot has.
func (k task) partition(name string) (string, error) { return k.Partitions[name], nil }

// beUpdater confines itself as the updater does, stages the release, and prints what it can do besides.
func beUpdater(path string) error {
	var k task
	b, err := os.ReadFile(path)
	if err := errors.Join(err, json.Unmarshal(b, &k)); err != nil {
		return err
	}
	if os.Getenv(free) == "" {
		p, err := paths(path, k.Config, k.partition)
		if err != nil {
			return err
		}
		if err := confine.To(p, memoryLimit); err != nil {
			return err
		}
	}
	esp := &installtest.ESP{Placed: map[image.Version][]byte{}, Entries: []image.Version{"1.0", "0.9"}}
	c := install.Config{State: k.Config.State, Manifest: k.Manifest, Running: k.Running, Partition: k.partition,
		Boot: func() (install.Boot, error) { return esp, nil }, Log: slog.New(slog.DiscardHandler), Verity: installtest.CheckVerity}
	to, err := install.Stage(context.Background(), c, k.Release, fetch.Dir(k.Source), nil)
	if err == nil {
		err = errors.Join(os.WriteFile(filepath.Join(k.Config.Run, "status.json"), nil, 0o600), install.Tidy(c, to.Version))
	}
	fmt.Printf("stages: %v\n", err == nil)
	if err != nil {
		return err
	}
	if len(esp.Placed[k.Release.Version]) == 0 {
		return errors.New("nothing was placed")
	}
	for _, a := range k.attempts(path) {
		fmt.Printf("%s: %v\n", a.name, a.do() == nil)
	}
	return nil
}

type trial struct {
	name string
	do   func() error
}

// attempts are what an updater might try that a stranger has taken over.
func (k task) attempts(path string) []trial {
	open := func(name string, flags int) func() error {
		return func() error {
			f, err := os.OpenFile(name, flags, 0o600)
			if err == nil {
				f.Close()
			}
			return err
		}
	}
	state := func(name ...string) string { return filepath.Join(append([]string{k.Config.State}, name...)...) }
	return []trial{
		{"reads the slot that runs", open(k.Partitions["root-a"], os.O_RDONLY)},
		{"reads the name servers", open("/etc/resolv.conf", os.O_RDONLY)},
		{"reads what its disk is", open(filepath.Join("/sys/class/block", filepath.Base(k.Config.Disk), "size"), os.O_RDONLY)},
		{"writes the slot that runs", open(k.Partitions["root-a"], os.O_RDWR)},
		{"writes its tree", open(k.Partitions["verity-a"], os.O_WRONLY)},
		{"opens another device", open(k.Disk, os.O_RDONLY)},
		{"reads a member's file", open(state("volumes", "web", "data", "file"), os.O_RDONLY)},
		{"lists members' files", open(state("volumes", "web", "data"), os.O_RDONLY)},
		{"reads a copy of it", open(state("snapshots", "2.0", "file"), os.O_RDONLY)},
		{"reads a secret", open(state("secrets", "directory"), os.O_RDONLY)},
		{"writes settings", open(state("settings", "organisation"), os.O_WRONLY)},
		{"makes a folder of the state's", func() error { return os.Mkdir(state("new"), 0o700) }},
		{"moves a file out", func() error { return os.Rename(state("update", "boot", "1.0.efi"), state("settings", "x")) }},
		{"makes a link", func() error { return os.Symlink("/", filepath.Join(k.Config.Run, "link")) }},
		{"makes a device", func() error { return unix.Mknod(filepath.Join(k.Config.Run, "disk"), unix.S_IFBLK|0o600, 1) }},
		{"writes its configuration", open(path, os.O_WRONLY)},
		{"runs a program", runItself},
		{"gets root back", func() error { return unix.Setuid(0) }},
		{"mounts", func() error { return unix.Mount("none", k.Config.Run, "tmpfs", 0, "") }},
		{"signals root", func() error { return unix.Kill(os.Getppid(), 0) }},
	}
}

// runItself runs this program so that it does nothing: without its environment it tries nothing, least of all this again.
func runItself() error {
	c := exec.Command("/proc/self/exe", "-test.run=^$")
	c.Env = []string{"NOTHING="}
	return c.Run()
}

// TestConfined has an updater without root's powers stage a release, and wants it to be able to do nothing else. The twin, as
// root and free, can do all of it, so that it is not for another reason that the first cannot.
func TestConfined(t *testing.T) {
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errno == unix.ENOTSUP {
		t.Skip("this test was built with cgo, as -race does")
	}
	if err := confine.Supported(); err != nil {
		t.Skip(err)
	}
	able := []string{"stages", "reads the slot that runs", "reads the name servers", "reads what its disk is"}
	for _, confined := range []bool{true, false} {
		installtest.Run(t, func(b *installtest.Box) {
			out, err := runTask(t, b, confined)
			if err != nil {
				t.Errorf("confined %t: %v: %s", confined, err, out)
			}
			for line := range strings.Lines(out) {
				name, can, _ := strings.Cut(strings.TrimSpace(line), ": ")
				if want := !confined || slices.Contains(able, name); can != fmt.Sprint(want) {
					t.Errorf("confined %t: %s: %s", confined, name, can)
				}
			}
			if n := strings.Count(out, "\n"); n != 21 {
				t.Errorf("confined %t: %d answers: %s", confined, n, out)
			}
		})
	}
}

// runTask fills the box and runs a copy of the test on it, from the thread that sees the box's state.
func runTask(t *testing.T, b *installtest.Box, confined bool) (string, error) {
	r := b.Publish(t, "2.0", installtest.NewContent(0), true)
	own := t.TempDir()
	spare, err := os.CreateTemp(own, "esp")
	if err != nil {
		return "", err
	}
	defer spare.Close()
	b.Partitions["esp"] = spare.Name()
	k := task{Manifest: b.Manifest, Running: b.Running, Release: r, Source: b.Dir, Partitions: b.Partitions, Disk: "/dev/loop-control",
		Config: config.Config{State: b.State, Media: b.Dir, Run: filepath.Join(own, "run"), Disk: b.Partitions["root-b"], Slot: image.SlotA}}
	for _, name := range []string{"volumes/web/data/file", "snapshots/2.0/file", "secrets/directory", "settings/organisation"} {
		path := filepath.Join(b.State, name)
		err = errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("secret"), 0o600))
	}
	text, e := json.Marshal(k)
	path := filepath.Join(own, "config", "task.json")
	if err = errors.Join(err, e, os.Mkdir(k.Config.Run, 0o755), os.Mkdir(filepath.Dir(path), 0o755), os.WriteFile(path, text, 0o644)); err != nil {
		return "", err
	}
	c := exec.Command("/proc/self/exe")
	c.Env = []string{inside + "=" + path}
	if !confined {
		c.Env = append(c.Env, free+"=yes")
	} else {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: plan.UpdaterID, Gid: plan.UpdaterID},
			AmbientCaps: supervisor.UpdaterCaps()}
	}
	out, err := c.CombinedOutput()
	return string(out), err
}
